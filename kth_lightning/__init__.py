"""Classify images with a frozen trunk and a trained tail, and know how good the classifier is."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kth_lightning.predict.predictor import Predictor as Predictor

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Torch takes seconds to import; the command line's help should not wait for it.
    if name == "Predictor":
        from kth_lightning.predict.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
