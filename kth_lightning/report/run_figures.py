"""The PNG files in a run's folder of figures, drawn from what the run has written."""

from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import save
from kth_lightning.drawing.names import picture_names, write_class_numbers
from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.csv_text import csv_text
from kth_lightning.report.charts import confusion_figure, draw_curves, reliability_figure
from kth_lightning.report.model_runs import ModelRuns
from kth_lightning.report.trust_view import risk_coverage_figure


def draw_run(model: ModelRuns) -> None:
    """Draw confusion, curves, reliability and risk_coverage (.png) of a run, and write risk_coverage.csv.

    One that cannot be drawn costs a warning.

    Args:
        model: With one run.
    """
    (run,), (metrics,), history = model.part.runs, model.metrics, model.part.runs[0].read_history()
    with attempt(f"{run.figures / 'confusion.png'} is not drawn"):
        write_class_numbers(model.class_names, run.figures)
        matrix = confusion_matrix(model.labels, model.probabilities.argmax(1), len(model.class_names))
        save(confusion_figure(matrix, picture_names(model.class_names)), run.figures / "confusion.png")
    with attempt(f"{run.figures / 'curves.png'} is not drawn"):
        if history:
            draw_curves(history, metrics["best_epoch"], metrics["test"], run.figures / "curves.png")
    with attempt(f"{run.figures / 'reliability.png'} is not drawn"):
        if model.is_finite:
            save(
                reliability_figure(model.labels, model.probabilities, model.calibrated, model.independent),
                run.figures / "reliability.png",
            )
    with attempt(f"{run.figures / 'risk_coverage.png'} is not drawn"):
        if model.is_finite:
            curve = model.risk_coverage
            columns = (curve.coverage, curve.confidence, curve.mistakes, curve.risk)
            rows = [[f"{value:.9g}" for value in row] for row in zip(*columns, strict=True)]
            header = ["coverage", "lowest confidence", "mistakes", "risk"]
            write_atomically(csv_text([header, *rows]), run.figures / "risk_coverage.csv")
            save(risk_coverage_figure(model), run.figures / "risk_coverage.png")
