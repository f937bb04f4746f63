"""Classify images with a frozen trunk and a trained tail, and know how good the classifier is."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kth_lightning.callbacks.compiled_tail import CompiledTail as CompiledTail
    from kth_lightning.cli.curve_objects import learning_curve as learning_curve
    from kth_lightning.cli.fit_objects import fit as fit
    from kth_lightning.data.augmentation.augmentation import Augmentation as Augmentation
    from kth_lightning.data.augmentation.transform import TransformAugmentation as TransformAugmentation
    from kth_lightning.data.box import Box as Box
    from kth_lightning.data.box import Crop as Crop
    from kth_lightning.data.module import ImageData as ImageData
    from kth_lightning.data.sources.folder import FolderSource as FolderSource
    from kth_lightning.data.sources.huggingface import HuggingFaceSource as HuggingFaceSource
    from kth_lightning.data.sources.kth import KthSource as KthSource
    from kth_lightning.data.sources.sample import SampleSource as SampleSource
    from kth_lightning.data.sources.source import Candidate as Candidate
    from kth_lightning.data.sources.source import Listing as Listing
    from kth_lightning.data.sources.source import Source as Source
    from kth_lightning.data.sources.table import TableSource as TableSource
    from kth_lightning.data.sources.torch_dataset import TorchvisionSource as TorchvisionSource
    from kth_lightning.models.base import Classifier as Classifier
    from kth_lightning.models.benchmark import BenchmarkCNN as BenchmarkCNN
    from kth_lightning.models.finetuned import FineTuned as FineTuned
    from kth_lightning.models.head import FeatureHead as FeatureHead
    from kth_lightning.models.schedule import Cosine as Cosine
    from kth_lightning.predict.compare_onnx import compare_onnx as compare_onnx
    from kth_lightning.predict.predictor import Predictor as Predictor
    from kth_lightning.predict.quantize_onnx import quantize_onnx as quantize_onnx

__version__ = "0.7.0"

_PUBLIC = {
    "Augmentation": "data.augmentation.augmentation",
    "BenchmarkCNN": "models.benchmark",
    "Box": "data.box",
    "Candidate": "data.sources.source",
    "Classifier": "models.base",
    "CompiledTail": "callbacks.compiled_tail",
    "Crop": "data.box",
    "Cosine": "models.schedule",
    "FeatureHead": "models.head",
    "FineTuned": "models.finetuned",
    "FolderSource": "data.sources.folder",
    "HuggingFaceSource": "data.sources.huggingface",
    "ImageData": "data.module",
    "KthSource": "data.sources.kth",
    "Listing": "data.sources.source",
    "Predictor": "predict.predictor",
    "SampleSource": "data.sources.sample",
    "Source": "data.sources.source",
    "TableSource": "data.sources.table",
    "TorchvisionSource": "data.sources.torch_dataset",
    "TransformAugmentation": "data.augmentation.transform",
    "compare_onnx": "predict.compare_onnx",
    "fit": "cli.fit_objects",
    "learning_curve": "cli.curve_objects",
    "quantize_onnx": "predict.quantize_onnx",
}
"""Public names, and the module of each."""


def __getattr__(name: str) -> object:
    # Torch takes seconds to import; the command line's help should not wait for it.
    if name in _PUBLIC:
        return getattr(import_module(f"kth_lightning.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
