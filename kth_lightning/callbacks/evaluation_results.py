"""The callback that writes what a checkpoint is worth on images that it is evaluated on later."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
import torch

from kth_lightning.callbacks.judgement import environment, write_judgement
from kth_lightning.callbacks.test_explanations import draw_mistakes
from kth_lightning.data.evaluated import EvaluatedImages
from kth_lightning.data.split_table import split_rows
from kth_lightning.drawing.attempt import attempt
from kth_lightning.evaluation.clusters import summarise_groups
from kth_lightning.evaluation.own_test import OwnTest
from kth_lightning.evaluation.seen_images import KnownImages, SeenImages, known_images
from kth_lightning.evaluation.shift import STATISTICS
from kth_lightning.evaluation.trust import trust_of
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import write_split
from kth_lightning.models import Classifier
from kth_lightning.report.page import write_report

_BATCH = 32
_NOT_TRAINED = (
    "seconds_per_epoch", "best_epoch", "epochs", "parameters_trained", "seconds_total"
)  # fmt: skip


class EvaluationResults(L.Callback):
    """Write an evaluation folder: predictions and figures as a run's, and how they differ from the run's own test.

    Args:
        folder: To write into.
        config: Text of config.yaml.
        start: What start.json tells.
        data: What is evaluated on.
        checkpoint: What is evaluated.
        seen: What it has seen in training; None where it does not say.
        own: The test of its run, or why that is not known.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: str,
        start: Mapping[str, Any],
        data: EvaluatedImages,
        checkpoint: Mapping[str, Any],
        seen: SeenImages | None,
        own: OwnTest | str,
    ) -> None:
        self.folder = folder
        self.config = config
        self.start = start
        self.data = data
        self.checkpoint = checkpoint
        self.seen = seen
        self.own = own

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder after `validate`."""
        self._write(trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the folder after `test`."""
        self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        assert isinstance(model, Classifier)
        index, labels, logits = model.predictions(self.data.part)
        if not trainer.is_global_zero:
            return
        write_split(split_rows(self.data.catalogue, self.data.split), self.folder.splits)
        self.folder.write_start(self.start)
        temperature = self.checkpoint["hyper_parameters"].get("temperature", 1.0)
        figures = write_judgement(trainer, self.folder, index, labels, logits, temperature)
        probabilities = logits.double().softmax(1).numpy()
        known = known_images(self.data, index, self.seen, self._tested())
        metrics = {
            "model": type(model).__name__,
            "test": figures,
            "trust": self._measure_trust(index.numpy(), labels.numpy(), probabilities, known.unseen),
            "temperature": temperature,
            **dict.fromkeys(_NOT_TRAINED),
            "leakage": None,
            "evaluation": {
                "checkpoint": dict(self.start["evaluation"]),
                "classes": self._tell_classes(trainer, model),
                "seen": self._tell_seen(index.numpy(), labels.numpy(), probabilities, known),
                "own_test": self._compare(index, labels.numpy(), probabilities, known.new),
            },
        } | environment(trainer, self.folder)
        metrics["hashes"]["weights"] = self.checkpoint["weights_sha256"]
        with (
            attempt(f"{self.folder.mistakes} is not complete"),
            torch.inference_mode(False),  # maps need gradients
            trainer.precision_plugin.forward_context(),
        ):
            draw_mistakes(model, self.data, index.tolist(), labels.numpy(), probabilities, self.folder)
        write_atomically(self.config, self.folder.config)
        self.folder.write_metrics(metrics)
        with attempt("the report is not written"):
            write_report(self.folder.path)

    def _tested(self) -> torch.Tensor:
        """Return numbers of the images that the checkpoint's own run tested it on, and of their files where known."""
        tested = (self.checkpoint.get("images") or {}).get("test", torch.empty(0, dtype=torch.int64))
        return tested if isinstance(self.own, str) else torch.cat([tested, self.own.files])

    def _tell_seen(
        self, index: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, known: KnownImages
    ) -> dict[str, Any] | None:
        """Count the images that the checkpoint was trained on or chosen by, and judge the others alone."""
        if self.seen is None:
            return None
        unseen = known.unseen
        groups = self.data.catalogue.groups(index[unseen].tolist())
        judged = groups and self.seen.complete and not unseen.all()
        return {
            "trained": int(known.trained.sum()),
            "chosen": int(known.chosen.sum()),
            "tested": int(known.tested.sum()),
            "new": summarise_groups(labels[unseen], probabilities[unseen], groups) if judged else None,
        } | ({} if self.seen.complete else {"complete": False})

    def _measure_trust(
        self, index: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, unseen: np.ndarray
    ) -> dict[str, Any] | None:
        """Measure the promises on images that did not set them; None where there is none of these."""
        groups = self.data.catalogue.groups(index[unseen].tolist())
        return trust_of(self.checkpoint, labels[unseen], probabilities[unseen], groups) if unseen.any() else None

    def _compare(
        self, index: torch.Tensor, labels: np.ndarray, probabilities: np.ndarray, new: np.ndarray
    ) -> dict[str, Any] | str:
        """Compare the new images with the run's own test; say why not where that cannot be."""
        if isinstance(self.own, str):
            return self.own
        if torch.equal(self.data.keys[index].sort()[0], self.checkpoint["images"]["test"].sort()[0]):
            return f"these are the test images of {self.own.run.path} itself"
        if not new.any():
            return (
                "there is nothing to compare with the run's own test: every image here was trained on, chose the epoch "
                "or is in that test"
            )
        positions = index[torch.from_numpy(new)].tolist()
        table = self.folder.read_image_statistics()
        images = [self.data.catalogue.images[item].name for item in positions]
        names = [name for name in STATISTICS if name in self.own.statistics]
        now = {name: np.array([table[image][name] for image in images]) for name in names}
        right = probabilities[new].argmax(axis=1) == labels[new]
        return self.own.compare(labels[new], right, now, self.data.catalogue.groups(positions))

    @torch.inference_mode()
    def _tell_classes(self, trainer: L.Trainer, model: Classifier) -> dict[str, Any]:
        """Count what the images lack of the known classes, and what those of other classes were taken for."""
        data, rows = self.data, []
        with trainer.precision_plugin.forward_context():
            for start in range(0, len(data.unknown), _BATCH):
                part = torch.from_numpy(data.unknown[start : start + _BATCH])
                logits = model(data.images(part, torch.zeros_like(part), model.device))
                values, places = logits.cpu().double().softmax(1).max(1)
                for position, value, place in zip(part.tolist(), values.tolist(), places.tolist(), strict=True):
                    image = data.catalogue.images[position]
                    rows.append((image.path, image.label, data.class_names[place], value, image.box_text))
        if rows:
            self.folder.write_unknown_classes(rows)
        taken: dict[str, dict[str, int]] = {}
        for _, label, prediction, *_ in rows:
            of_label = taken.setdefault(label, {})
            of_label[prediction] = of_label.get(prediction, 0) + 1
        return {"missing": data.missing_classes, "unknown": taken}
