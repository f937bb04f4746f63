"""What the three models share: one step, one set of metrics, one way to make optimisers."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCohenKappa, MulticlassRecall

from kth_lightning.data.batch import PADDING, Batch
from kth_lightning.errors import InputError
from kth_lightning.models.layers import spare_single_values
from kth_lightning.models.optimizer import ARTICLE_OPTIONS, make_optimizer


class Classifier(LightningModule):
    """Train, validate and test a classifier whose trunk is frozen and whose tail is trained.

    A subclass sets `preprocess`, `trunk` (None where nothing is frozen) and `head`, and defines `tail`. Every process
    of a run takes its share of each batch; the loss is that of the whole batch.

    Args:
        num_classes: Length of the logits.
        class_names: In the order of the logits; kept for prediction.
        class_weights: Factor of each class in the training loss; None weighs every image alike.
        image_size: Side of the square images; kept for prediction.
        interpolation: How images are resized; kept for prediction.
        value_range: The values that became black and white in images deeper than 8 bits; kept for prediction.
        tta_flip: Average an image's logits with those of its mirror image, except in training.
        optimizer: Name of a class in torch.optim.
        optimizer_options: Its arguments beside the learning rate; None gives RMSprop and SGD the article's (rho .9,
            epsilon 1e-7; momentum .9).
        lr: Learning rate, of the head where stages have their own.
        schedule: "constant", or "cosine" down to 0 over the run.
        warmup: Share of the run in which the learning rate rises linearly from 0.
        label_smoothing: In the training loss.
        mixup: Train on mixtures of two images (of their features, where a trunk is frozen) and of their losses, whose
            shares are drawn from Beta(mixup, mixup); 0 for none (Zhang et al., "mixup: Beyond Empirical Risk
            Minimization", 2018). The figures of training are then those of mixtures.
        temperature: What calibrated probabilities divide the logits by; fitted and kept when training has ended.
        seed: Of all that is drawn in training.
    """

    preprocess: nn.Module
    trunk: nn.Module | None
    head: nn.Module

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        class_weights: list[float] | None = None,
        image_size: int = 224,
        interpolation: str = "bilinear",
        value_range: list[float] | None = None,
        tta_flip: bool = False,
        optimizer: str = "RMSprop",
        optimizer_options: dict[str, Any] | None = None,
        lr: float = 1e-3,
        schedule: Literal["constant", "cosine"] = "constant",
        warmup: float = 0.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_share("warmup", warmup)
        require_share("label_smoothing", label_smoothing)
        if not temperature > 0:
            raise InputError(f"--model.temperature {temperature}: give a number above 0")
        self.num_classes = num_classes
        self.class_names = class_names or [str(position) for position in range(num_classes)]
        self.image_size = image_size
        self.interpolation = interpolation
        self.value_range = value_range
        self.tta_flip = tta_flip
        self.temperature = temperature
        self.seed = seed
        self.optimizer = optimizer
        self.optimizer_options = ARTICLE_OPTIONS.get(optimizer, {}) if optimizer_options is None else optimizer_options
        self.lr = lr
        # Built once in vain, so that a mistake shows before any work is done.
        make_optimizer(optimizer, [{"params": [nn.Parameter(torch.zeros(1))]}], lr, self.optimizer_options)
        self.schedule = schedule
        self.warmup = warmup
        self.label_smoothing = label_smoothing
        if mixup < 0:
            raise InputError(f"--model.mixup {mixup}: give 0 for none, or a number above it")
        self.mixup = mixup
        self.register_buffer("class_weights", torch.tensor(class_weights) if class_weights else None, persistent=False)
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(num_classes, average="micro", ignore_index=PADDING),
                "kappa": MulticlassCohenKappa(num_classes, ignore_index=PADDING),
                "recall": MulticlassRecall(num_classes, average="macro", ignore_index=PADDING),
            }
        )
        for metric in metrics.values():
            metric.validate_args = False  # an epoch's labels are ours, and looking them over takes longer than counting
        self.metrics = nn.ModuleDict(
            {f"{stage}_metrics": metrics.clone(f"{stage}/") for stage in ("train", "val", "test")}
        )
        self.losses = nn.ModuleDict(
            {f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in ("train", "val", "test")}
        )
        self._kept: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))

    def tail(self, features: Tensor) -> Tensor:
        """Map what the trunk gives to logits [B, num_classes]."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """Run what is frozen: images [B, 3, H, W] in 0..255 to what the tail takes."""
        inputs = self.preprocess(images)
        if self.trunk is None:
            return inputs
        with torch.no_grad():
            return self.trunk(inputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images [B, 3, H, W] of any dtype in 0..255 to float32 logits [B, num_classes]."""
        logits = self.tail(self.features(images)).float()
        if not self.tta_flip or self.training:
            return logits
        return (logits + self.tail(self.features(images.flip(3))).float()) / 2

    def train(self, mode: bool = True) -> "Classifier":
        """Keep the trunk in evaluation mode, so that its features never depend on the batch."""
        super().train(mode)
        if self.trunk is not None:
            self.trunk.eval()
        return self

    def on_fit_start(self) -> None:
        """Train on any number of images: batch normalisation alone would refuse a batch of one."""
        spare_single_values(self)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Draw dropout from the seed, the batch and the process alone: a resumed run then goes on as it would have."""
        drawn = hash((self.seed, self.current_epoch, batch_idx, self.global_rank)) & 0x7FFF_FFFF
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(drawn)  # torch.manual_seed looks for accelerators at every call
        else:
            torch.manual_seed(drawn)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the whole batch, as far as it is this process's."""
        features = batch["features"] if "features" in batch else self.features(batch["images"])
        labels = batch["label"]
        if self.mixup:
            share = float(torch.distributions.Beta(self.mixup, self.mixup).sample())
            partners = torch.randperm(len(labels)).to(features.device)
            logits = self.tail(torch.lerp(features[partners], features, share)).float()
            losses = share * self._losses(logits, labels) + (1 - share) * self._losses(logits, labels[partners])
        else:
            logits = self.tail(features).float()
            losses = self._losses(logits, labels)
        self._keep(
            "train", label=labels, losses=losses.detach(), logits=logits.detach().argmax(1), index=batch["index"]
        )
        # DDP averages the gradients over processes; the images of a batch count alike all the same.
        return losses.sum() * (self.trainer.world_size / batch["count"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the predictions for the figures of the epoch."""
        self._predict(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the predictions for the figures of the epoch."""
        self._predict(batch, "test")

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(
            logits,
            labels,
            weight=self.class_weights if self.training else None,  # type: ignore[arg-type]
            label_smoothing=self.label_smoothing if self.training else 0.0,
            ignore_index=PADDING,
            reduction="none",
        )

    def _predict(self, batch: Batch, stage: str) -> None:
        logits = self._logits_of_features(batch) if "features" in batch else self(batch["images"])
        losses = self._losses(logits, batch["label"])
        self._keep(stage, label=batch["label"], losses=losses, logits=logits, index=batch["index"])

    def _keep(self, stage: str, **tensors: Tensor) -> None:
        # Metrics look at the epoch at its end: their updates would make a GPU wait at every step.
        for name, tensor in tensors.items():
            self._kept[stage][name].append(tensor)

    def _logits_of_features(self, batch: Batch) -> Tensor:
        logits = self.tail(batch["features"]).float()
        return (logits + self.tail(batch["mirrored"]).float()) / 2 if "mirrored" in batch else logits

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
        metrics, loss = self.metrics[f"{stage}_metrics"], self.losses[f"{stage}_loss"]
        assert isinstance(metrics, MetricCollection)
        assert isinstance(loss, Metric)
        metrics.update(kept["logits"], kept["label"])
        loss.update(kept["losses"][kept["label"] != PADDING])  # torchmetrics drops weights where NaN is to stay NaN
        # Each is summed over the processes by torchmetrics before it is divided.
        self.log_dict({f"{stage}/loss": loss.compute(), **metrics.compute()})
        metrics.reset()
        loss.reset()

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

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters, with the learning rate of each group."""
        return [{"params": [item for item in self.parameters() if item.requires_grad], "lr": self.lr}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and, unless the learning rate is constant, a schedule by the step."""
        optimizer = make_optimizer(self.optimizer, self.parameter_groups(), self.lr, self.optimizer_options)
        if self.schedule == "constant" and not self.warmup:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise InputError(f"--model.schedule {self.schedule} needs an end: give --trainer.max_epochs")
        warmup = round(self.warmup * steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if self.schedule == "constant":
                return 1.0
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def frozen_state(self) -> dict[str, Tensor]:
        """Return the part of the state that training never changes and its checkpoints leave out."""
        return {key: value for key, value in self.state_dict().items() if key.startswith("trunk.")}

    def weights_sha256(self) -> str:
        """Return the hash of the file that the trunk's weights came from; empty where there is none."""
        return ""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the trunk out: writing it would take longer than many an epoch."""
        for key in self.frozen_state():
            del checkpoint["state_dict"][key]
        checkpoint["weights_sha256"] = self.weights_sha256()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the trunk from the weights where the checkpoint has none.

        Raises:
            InputError: The checkpoint was trained on another trunk, or to tell other classes apart.
        """
        names = checkpoint.get("hyper_parameters", {}).get("class_names")
        if names and self.class_names != names:
            differ = sorted(set(names) ^ set(self.class_names))
            raise InputError(
                f"--ckpt_path: the checkpoint tells {len(names)} classes apart and the data has "
                f"{len(self.class_names)} ({', '.join(differ[:5]) or 'in another order'}); "
                "give data with its own classes"
            )
        frozen = {key: value for key, value in self.frozen_state().items() if key not in checkpoint["state_dict"]}
        if frozen and checkpoint.get("weights_sha256", "") != self.weights_sha256():
            raise InputError(
                "--ckpt_path: the checkpoint was trained on other weights of the backbone than --model.weights gives; "
                f"give those with the hash {checkpoint.get('weights_sha256', '')[:12]}"
            )
        checkpoint["state_dict"].update(frozen)
        shapes, own = _shapes(checkpoint["state_dict"]), _shapes(self.state_dict())
        if shapes != own:
            key = min(key for key in {*shapes, *own} if shapes.get(key) != own.get(key))
            raise InputError(
                f"--ckpt_path: the checkpoint is not of this model (they differ in {key}); give its own config.yaml"
            )


def require_share(flag: str, *values: float) -> None:
    """Refuse what is no share.

    Raises:
        InputError: A value is not within 0 and 1.
    """
    for value in values:
        if not 0 <= value <= 1:
            raise InputError(f"--model.{flag} {value}: give a number from 0 to 1")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}
