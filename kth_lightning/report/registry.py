"""The models that the article had: their names, what people call them, and its figures.

Whatever else is trained is called by the name of its recipe.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """Describe a model of the article.

    Attributes:
        class_name: Of its class.
        title: For people; with the backbone's name in place of {backbone}.
        article: Its row of the article's table, by the names of metrics.json.
    """

    class_name: str
    title: str
    article: dict[str, float]


# E. He, "Transfer Learning with Keras", 2017, table 1
ARTICLE_IMAGES = 140
_COLUMNS = (
    "seconds_per_epoch", "loss", "acc", "kappa", "best_epoch", "epochs", "parameters_trained", "seconds_total"
)  # fmt: skip


def _row(*figures: float) -> dict[str, float]:
    return dict(zip(_COLUMNS, figures, strict=True))


MODELS = {
    "benchmark": KnownModel(
        "BenchmarkCNN", "the benchmark CNN", _row(8.95, 1.83, 0.57, 0.5479, 23, 29, 3_920_531, 259.6)
    ),
    "head": KnownModel("FeatureHead", "the head on {backbone}", _row(0.17, 1.41, 0.60, 0.5777, 224, 235, 9_747, 40.83)),
    "finetune": KnownModel(
        "FineTuned", "fine-tuned {backbone}", _row(12.5, 0.93, 0.80, 0.7890, 24, 30, 9_448_979, 375.82)
    ),
}
"""By the names of their recipes, in the article's order."""


def name_of(class_name: str) -> str | None:
    """Return the name of a class's model, if it is one of the article's."""
    return next((name for name, model in MODELS.items() if model.class_name == class_name), None)
