"""What `test` and `validate` say at their end."""

from kth_lightning.cli.outcome import group_lines, recall_lines, worst_classes
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import is_first_process, printable
from kth_lightning.report.evaluation_view import accuracy_text, evaluation_sentences
from kth_lightning.report.seen_part import seen_clause


def print_evaluation(folder: RunFolder) -> None:
    """Print what a checkpoint is worth on the images, how that differs from its own test, and where it is written.

    Args:
        folder: Of the evaluation.
    """
    if not is_first_process():
        return
    metrics = folder.read_metrics()
    clause = seen_clause(metrics)
    lines = [
        *([f"images: {metrics['test']['n']}, {clause}"] if clause else []),
        *recall_lines(folder, metrics["test"]),
        f"accuracy: {accuracy_text(metrics['test'])}",
        *group_lines(metrics["test"]),
        *evaluation_sentences(metrics["evaluation"]),
    ]
    lines.append(f"most mistakes: {worst_classes(folder.read_predictions())}")
    if folder.report.exists():
        lines.append(f"report: {folder.report}")
    print(printable("\n".join(lines)))
