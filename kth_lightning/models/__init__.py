"""A frozen trunk, a trained tail, and the three places to cut between them."""

from kth_lightning.models.base import Classifier
from kth_lightning.models.benchmark import BenchmarkCNN
from kth_lightning.models.finetuned import FineTuned
from kth_lightning.models.head import FeatureHead

__all__ = ["BenchmarkCNN", "Classifier", "FeatureHead", "FineTuned"]
