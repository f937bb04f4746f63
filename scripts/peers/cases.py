"""What is measured, what is asked of it, and what the article did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Name what is measured.

    Attributes:
        ours: Flags of `fit` for each of this package's ways to do it; a peer has one.
        parameters: How many numbers are trained (in the extraction: used), without the dense layer.
        unit: What is counted in a turn: "batch" or "epoch".
        dense: Whether there is a dense layer.
        repeats: Factor of the units that are timed, where one of them is short.
    """

    ours: dict[str, list[str]]
    parameters: int
    unit: str = "batch"
    dense: bool = True
    repeats: int = 1

    def trained(self, classes: int) -> int:
        """Return the number of parameters that every participant must have."""
        return self.parameters + (513 * classes if self.dense else 0)


def _blog(name: str, *argv: str) -> list[str]:
    return ["--config", f"configs/blog/{name}.yaml", *argv]


CASES = {
    "benchmark": Case({"benchmark": _blog("benchmark")}, 3_910_784),
    "extraction": Case({"extraction": _blog("head", "--data.views", "0")}, 20_024_384, dense=False),
    # Images for TensorBoard are drawn at epochs 1, 2, 4, 8, ...: in a few epochs there would be too many of them.
    "head": Case({"head": _blog("head")}, 0, "epoch", repeats=5),
    "finetune": Case(
        {
            "finetune-fresh": _blog("finetune"),
            "finetune-stored": _blog("finetune", "--data.views", "1"),
        },
        9_439_232,
    ),
}

FLOORS = {
    "keras-tensorflow": {
        "benchmark": 1.6,
        "extraction": 3.0,
        "head": 2.5,
        "finetune-fresh": 2.2,
        "finetune-stored": 8.0,
    },
    "pytorch": {"head": 1 / 3, "finetune-fresh": 2.2, "finetune-stored": 8.0},
    "tuned": {"benchmark": 1.0, "extraction": 1.0, "head": 1 / 3, "finetune-fresh": 1.0, "finetune-stored": 3.0},
}
"""How many times faster than a peer this package must be; against a bare loop on features, a third as fast."""

ARTICLE_EPOCHS = {"benchmark": 29, "head": 235, "finetune": 30}
ARTICLE_TRAIN, ARTICLE_ALL = 1460, 1740
"""The images that the article trained on, and all it had."""
