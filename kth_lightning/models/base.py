"""What the three models share: one step, one set of metrics, one way to make optimisers."""

from collections import defaultdict
from functools import partial
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.data.square import SQUASH, Square
from kth_lightning.errors import InputError
from kth_lightning.io.kept_settings import KeepsSettings
from kth_lightning.models.keepable import require_kept_settings
from kth_lightning.models.layers import Preprocess, spare_single_values
from kth_lightning.models.loss import check_loss, row_losses
from kth_lightning.models.metrics import MetricCallable, extra_metrics, figures_of, own_metrics
from kth_lightning.models.mixup import Mixup
from kth_lightning.models.optimizer import ArticleRMSprop, make_optimizer
from kth_lightning.models.own_names import require_free_name, taken_names
from kth_lightning.models.saving import complete, describe
from kth_lightning.models.schedule import make_scheduler
from kth_lightning.models.weights import BLOG_PREPROCESSING


class Classifier(KeepsSettings, LightningModule):
    """Train, validate and test a classifier whose trunk is frozen and whose tail is trained.

    A subclass defines `tail`, and in its `__init__`, after `super().__init__(num_classes, **kwargs)`, the layers that
    `tail` uses. Where a part of the network is frozen, it sets `trunk` too; where images should come otherwise than
    divided by 255, `preprocess`. Every process of a run takes its share of each batch; the loss is that of the whole
    batch.

    Figures of validation and test are the cross-entropy, whatever the loss of training is.

    Args:
        num_classes: Number of classes, the length of the logits.
        class_names: Names of the classes in the order of the logits; kept for prediction.
        class_weights: Factor of each class in the training loss; None weighs every image alike.
        image_size: Side of the square images; kept for prediction.
        interpolation: How images are resized; kept for prediction.
        resize: How an image becomes a square, as in `ImageData`; kept for prediction.
        value_range: The values that became black and white in images deeper than 8 bits; kept for prediction.
        tta_flip: Average an image's logits with those of its mirror image, except in training.
        optimizer: An optimiser of torch.optim, or your own. The default is the article's: RMSprop with rho .9.
        lr_scheduler: `Cosine`, a schedule of torch.optim.lr_scheduler, or your own; None for a constant learning rate.
            `Cosine`, OneCycleLR and CyclicLR step per batch, others per epoch; where a schedule has an open argument
            `total_steps`, the run fills it in.
        loss: Module that takes logits [B, num_classes] and labels [B] and gives one training loss a row; None for
            cross-entropy.
        label_smoothing: In the cross-entropy of training.
        metrics: Further figures of each epoch, by name: torchmetrics' Multiclass... classes.
        mixup: Train on mixtures of two images (of their features, where a trunk is frozen) and of their losses, whose
            shares are drawn from Beta(mixup, mixup); 0 for none (Zhang et al., "mixup: Beyond Empirical Risk
            Minimization", 2018). The figures of training are then those of mixtures.
        temperature: What calibrated probabilities divide the logits by; fitted and kept when training has ended.
        seed: Of all that is drawn in training.

    Attributes:
        preprocess: From images [B, 3, H, W] of any dtype in 0..255 to what the network takes; divides them by 255.
        trunk: Frozen part of the network, from what `preprocess` gives to what `tail` takes; None for none. It is
            always in evaluation mode and has no gradients.

    Raises:
        InputError: A setting is out of its range, or the optimiser, the schedule, the loss or a metric cannot be used.
    """

    preprocess: nn.Module
    trunk: nn.Module | None

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        class_weights: list[float] | None = None,
        image_size: int = 224,
        interpolation: str = "bilinear",
        resize: str = SQUASH,
        value_range: list[float] | None = None,
        tta_flip: bool = False,
        optimizer: OptimizerCallable = ArticleRMSprop,
        lr_scheduler: LRSchedulerCallable | None = None,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        metrics: dict[str, MetricCallable] | None = None,
        mixup: float = 0.0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if type(self).tail is Classifier.tail:
            raise InputError(f"--model: {type(self).__name__} defines no tail; write one, from features to logits")
        for name in ("trunk", "preprocess"):
            if callable(getattr(type(self), name, None)):
                raise InputError(
                    f"--model: {type(self).__name__} has a method {name}; make it a module, and set it in __init__"
                )
        require_kept_settings(self)
        self.save_hyperparameters(self.settings)
        require_share("label_smoothing", label_smoothing)
        if not temperature > 0:
            raise InputError(f"--model.temperature {temperature}: give a number above 0")
        if loss is not None:
            check_loss(loss, num_classes)
            if label_smoothing:
                raise InputError("--model.label_smoothing goes with the cross-entropy; give it to --model.loss instead")
        self.num_classes = num_classes
        self.class_names = class_names or [str(position) for position in range(num_classes)]
        self.image_size = image_size
        self.interpolation = interpolation
        self.resize = resize
        self.value_range = value_range
        self.tta_flip = tta_flip
        self.temperature = temperature
        self.seed = seed
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        # Built once in vain, so that a mistake shows before any work is done.
        attempt = make_optimizer(optimizer, [{"params": [nn.Parameter(torch.zeros(1, 1))]}])
        if lr_scheduler is not None:
            make_scheduler(lr_scheduler, attempt, total_steps=1000)
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self._mixup = Mixup(mixup) if mixup != 0 else None
        self.register_buffer("class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False)
        self.preprocess = Preprocess(BLOG_PREPROCESSING)
        self.trunk = None
        stages = ("train", "val", "test")
        ours, extra = own_metrics(num_classes), extra_metrics(metrics or {}, num_classes)
        self.metrics = nn.ModuleDict({f"{stage}_metrics": ours.clone(f"{stage}/") for stage in stages})
        self.extra_metrics = nn.ModuleDict({f"{stage}_metrics": extra.clone(f"{stage}/") for stage in stages})
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in stages})
        self._kept: dict[str, dict[str, list[Tensor]]] = defaultdict(partial(defaultdict, list))
        self._taken = taken_names(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Freeze what becomes the trunk, and refuse a layer of a subclass under a name that is used otherwise."""
        require_free_name(Classifier, self, self.__dict__.get("_taken", frozenset()), name, value)
        if name == "trunk" and isinstance(value, nn.Module):
            value.requires_grad_(False).eval()
        super().__setattr__(name, value)

    @property
    def square(self) -> Square:
        """Return what images become before the classifier takes them."""
        return Square(self.image_size, self.interpolation, self.resize)

    def tail(self, features: Tensor) -> Tensor:
        """Map what the trunk gives, or `preprocess` where there is none, to logits [B, num_classes]."""
        raise NotImplementedError

    def class_activation(self) -> tuple[nn.Module, nn.Module] | None:
        """Name the modules that exact class activation maps come from, if the network ends in them.

        Returns:
            The module that averages maps [B, D, h, w] over height and width, and the one that maps the average
            [..., D] linearly to the logits; None for any other network, whose maps are then Grad-CAM's.
        """
        return None

    def features(self, images: Tensor) -> Tensor:
        """Run what is frozen: images [B, 3, H, W] in 0..255 to what the tail takes."""
        inputs = self.preprocess(images)
        if self.trunk is None:
            return inputs
        with torch.no_grad():
            features = self.trunk(inputs)
        if not isinstance(features, Tensor):
            raise InputError(
                f"--model: the trunk of {type(self).__name__} gives a {type(features).__name__}, not a tensor; have it "
                "give one tensor [images, ...]"
            )
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images [B, 3, H, W] of any dtype in 0..255 to float32 logits [B, num_classes]."""
        logits = self._logits(self.features(images))
        if not self.tta_flip or self.training:
            return logits
        return (logits + self._logits(self.features(images.flip(3)))) / 2

    def train(self, mode: bool = True) -> "Classifier":
        """Leave the trunk in evaluation mode, so that its features never depend on the batch."""
        self.training = mode
        for child in self.children():
            if child is not self.trunk:  # hundreds of modules to set, twice an epoch
                child.train(mode)
        for module in self.trunk.modules() if mode and self.trunk is not None else ():
            if module.training:  # a part that has another name too
                module.eval()
        return self

    def setup(self, stage: str) -> None:
        """Forget what an interrupted epoch has left."""
        self._kept.clear()

    def on_fit_start(self) -> None:
        """Train on any number of images: batch normalisation alone would refuse a batch of one."""
        spare_single_values(self)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draw dropout from the seed, the batch and the process alone: a resumed run then goes on as it would have."""
        drawn = hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) & 0x7FFF_FFFF
        torch.default_generator.manual_seed(drawn)  # torch.manual_seed looks for accelerators at every call
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(drawn)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the whole batch, as far as it is this process's."""
        features = batch["features"] if "features" in batch else self.features(batch["images"])
        labels = batch["label"]
        if self._mixup:
            mixture = self._mixup.draw(labels, padded=self.trainer.world_size > 1)
            logits = self._logits(mixture.of(features))
            # Both losses at once, which is half as many operators.
            losses = mixture.of_losses(self._losses(logits.repeat(2, 1), torch.cat([labels, labels[mixture.partners]])))
        else:
            logits = self._logits(features)
            losses = self._losses(logits, labels)
        logits = logits.detach() if self.extra_metrics["train_metrics"] else logits.detach().argmax(1)
        self._keep("train", label=labels, losses=losses.detach(), logits=logits, index=batch["index"])
        # DDP averages the gradients over processes; the images of a batch count alike all the same.
        return losses.sum() * (self.trainer.world_size / batch["count"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the predictions for the figures of the epoch."""
        self._predict(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the predictions for the figures of the epoch."""
        self._predict(batch, "test")

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = self.class_weights
        assert weights is None or isinstance(weights, Tensor)
        return row_losses(logits, labels, self.loss, weights, self.label_smoothing)

    def _predict(self, batch: Batch, stage: str) -> None:
        logits = self._logits_of_features(batch) if "features" in batch else self(batch["images"])
        losses = row_losses(logits, batch["label"])
        self._keep(stage, label=batch["label"], losses=losses, logits=logits, index=batch["index"])

    def _keep(self, stage: str, **tensors: Tensor) -> None:
        # Metrics look at the epoch at its end: their updates would make a GPU wait at every step.
        for name, tensor in tensors.items():
            self._kept[stage][name].append(tensor)

    def _logits_of_features(self, batch: Batch) -> Tensor:
        logits = self._logits(batch["features"])
        return (logits + self._logits(batch["mirrored"])) / 2 if "mirrored" in batch else logits

    def _logits(self, features: Tensor) -> Tensor:
        logits = self.tail(features).float()
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise InputError(
                f"--model: the tail of {type(self).__name__} gives logits of shape {list(logits.shape)}; for "
                f"{self.num_classes} classes it must give [images, {self.num_classes}]"
            )
        return logits

    def on_train_epoch_end(self) -> None:
        """Log the figures of the epoch."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the epoch."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the figures of the epoch."""
        self._log_epoch("test")

    def _log_epoch(self, stage: str) -> None:
        kept = {name: torch.cat(parts) for name, parts in self._kept.pop(stage).items()}
        metrics, extra = self.metrics[f"{stage}_metrics"], self.extra_metrics[f"{stage}_metrics"]
        loss = self.losses[f"{stage}_loss"]
        assert isinstance(metrics, MetricCollection)
        assert isinstance(extra, MetricCollection)
        assert isinstance(loss, Metric)
        real = kept["label"] != PADDING
        metrics.update(kept["logits"], kept["label"])
        if extra:
            extra.update(kept["logits"][real], kept["label"][real])
        loss.update(kept["losses"][real])  # torchmetrics drops weights where NaN is to stay NaN
        # Each is summed over the processes by torchmetrics before it is divided.
        self.log_dict({f"{stage}/loss": loss.compute(), **metrics.compute(), **extra.compute()})
        for metric in (metrics, extra, loss):
            metric.reset()

    def training_losses(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return this process's images and their losses in the running epoch, each [B] for every step so far."""
        return self._kept["train"]["index"], self._kept["train"]["losses"]

    def predictions(self, stage: Literal["val", "test"]) -> tuple[Tensor, Tensor, Tensor]:
        """Gather what the running epoch has predicted, from all processes.

        Returns:
            On the CPU, sorted by index, each image once: index int64 [N], label int64 [N], logits float32 [N, C].
        """
        parts = [torch.cat(self._kept[stage][name]) for name in ("index", "label", "logits")]
        if self.trainer.world_size > 1:
            parts = [torch.cat(list(self.all_gather(part))) for part in parts]
        index, label, logits = parts
        real = label != PADDING
        order = index[real].argsort()
        return index[real][order].cpu(), label[real][order].cpu(), logits[real][order].cpu()

    def further_figures(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Measure predictions, logits [N, num_classes] and labels [N], by the metrics that were added."""
        metrics = self.extra_metrics["test_metrics"]
        assert isinstance(metrics, MetricCollection)
        return figures_of(metrics, logits, labels)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters in groups, with "lr_scale" where one learns at another rate than the rest."""
        return [{"params": [item for item in self.parameters() if item.requires_grad]}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and, unless the learning rate is constant, its schedule."""
        optimizer = make_optimizer(self.optimizer, self.parameter_groups())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = make_scheduler(self.lr_scheduler, optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def frozen_state(self) -> dict[str, Tensor]:
        """Return the part of the state that training never changes."""
        return {key: value for key, value in self.state_dict().items() if key.startswith("trunk.")}

    def weights_sha256(self) -> str:
        """Return the hash of the file that the trunk's weights came from; empty where there is none.

        Where there is one, checkpoints of training leave the trunk out, and take it from that file again.
        """
        return ""

    @classmethod
    def for_prediction(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings to build the classifier by whose weights, the trunk's too, a checkpoint has."""
        return settings

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say of which class and settings the classifier is, and leave out what a file of weights has."""
        describe(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the trunk from the weights where the checkpoint has none.

        Raises:
            InputError: The checkpoint was trained on another trunk, or to tell other classes apart.
        """
        complete(self, checkpoint)


def require_share(flag: str, *values: float) -> None:
    """Refuse what is no share.

    Raises:
        InputError: A value is not within 0 and 1.
    """
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"--model.{flag} {value}: give a number from 0 to 1")
