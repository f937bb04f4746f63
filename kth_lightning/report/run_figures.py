"""The PNG files in a run's folder of figures, drawn from what the run has written."""

from kth_lightning.drawing.attempt import attempt
from kth_lightning.drawing.figures import save
from kth_lightning.drawing.names import picture_names, write_class_numbers
from kth_lightning.evaluation.statistics import confusion_matrix
from kth_lightning.report.charts import confusion_figure, draw_curves, reliability_figure
from kth_lightning.report.model_runs import ModelRuns


def draw_run(model: ModelRuns) -> None:
    """Draw confusion.png, curves.png and reliability.png of a run; one that cannot be drawn costs a warning.

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
                reliability_figure(model.labels, model.probabilities, model.calibrated), run.figures / "reliability.png"
            )
