"""Take part in the benchmark with fastai's Learner and timm."""

import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD, RMSProp
from fastai.torch_core import default_device
from fastai.vision.augment import Resize, ResizeMethod, aug_transforms
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageDataLoaders, Normalize, get_image_files
from torch.utils.data import TensorDataset
from torch_networks import build
from turns import Turns, read_task

FOREVER = 10**6


class TakeTurns(Callback):
    """Call the clock after every step or epoch.

    Args:
        task: What the benchmark wants measured.
        turns: The clock.
    """

    order = 1000  # the last

    def __init__(self, task: dict[str, Any], turns: Turns) -> None:
        self.task = task
        self.turns = turns

    def after_batch(self) -> None:
        """Count a step."""
        if self.task["unit"] == "batch":
            self.turns.step(len(self.xb[0]))

    def before_validate(self) -> None:
        """Leave validation out where steps of training are what is measured."""
        if self.task["unit"] == "batch" and self.task["case"] != "extraction":
            raise CancelValidException

    def before_epoch(self) -> None:
        """Count the epoch that has ended, with its validation."""
        if self.task["unit"] == "epoch" and self.epoch:
            self.turns.step(self.task["train"])


def main() -> None:
    """Train until the benchmark has seen enough."""
    task = read_task()
    on_gpu = torch.cuda.is_available()
    turns = Turns(torch.cuda.synchronize if on_gpu else lambda: None)
    model = build(task["case"], task["classes"])
    parameters = sum(item.numel() for item in model.parameters() if item.requires_grad)
    loaders = load_vectors(task) if task["case"] == "head" else load_images(task)
    optimiser, lr = partial(RMSProp, sqr_mom=0.9, eps=1e-7), 1e-3
    if task["case"] == "finetune":
        optimiser, lr = partial(SGD, mom=0.9), 1e-4
    learner = Learner(loaders, model, CrossEntropyLossFlat(), opt_func=optimiser, metrics=accuracy)
    turns.ready(parameters, torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} cpu")
    with learner.no_logging():
        if task["case"] == "extraction":
            clean = loaders.test_dl(get_image_files(Path(task["images"]) / "train"))
            while True:
                learner.get_preds(dl=clean, cbs=TakeTurns(task, turns))
        learner.fit(FOREVER, lr, cbs=TakeTurns(task, turns))


def load_images(task: dict[str, Any]) -> DataLoaders:
    """Read the images from their files in every epoch, and augment them in batches, without changes of light."""
    drawn = aug_transforms(max_rotate=10, min_zoom=0.8, max_zoom=1.2, max_lighting=0)
    return ImageDataLoaders.from_folder(
        task["images"],
        item_tfms=Resize(task["image_size"], method=ResizeMethod.Squish),
        batch_tfms=[*drawn, Normalize.from_stats(*imagenet_stats)],
        bs=task["batch_size"],
        num_workers=2,
    )


def load_vectors(task: dict[str, Any]) -> DataLoaders:
    """Draw features and labels: their values make no difference to the time."""
    sets = [
        TensorDataset(torch.rand(number, 512), torch.randint(task["classes"], (number,)))
        for number in (task["train"], task["val"])
    ]
    loaders = [DataLoader(item, bs=task["batch_size"], shuffle=item is sets[0]) for item in sets]
    return DataLoaders(*loaders, device=default_device())


if __name__ == "__main__":
    main()
