"""Whether a classifier keeps the promises of `Classifier`."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from kth_lightning.errors import InputError
from kth_lightning.explain.cam import activation_maps
from kth_lightning.io.class_path import class_path
from kth_lightning.models import Classifier
from kth_lightning.models.checkpoint import load_classifier

_CLASSES = 3
_IMAGES = 4


def check_classifier(classifier: type[Classifier] | Classifier, image_size: int = 64, **settings: Any) -> None:
    """Check that a classifier can be trained, stored, resumed, explained and used for prediction.

    Args:
        classifier: A subclass of `Classifier`, which is then built for three classes, or a classifier.
        image_size: Side in pixels of the images that a class is tried on.
        **settings: What the class is built with beside the number and names of the classes and the size of the images.

    Raises:
        AssertionError: A promise is not kept; the sentence says which.
    """
    name = class_path(classifier)
    kind = classifier if isinstance(classifier, type) else type(classifier)
    assert issubclass(kind, Classifier), f"{name} is no subclass of kth_lightning.Classifier"
    try:
        if isinstance(classifier, type):
            names = [f"class {number}" for number in range(_CLASSES)]
            model = classifier(_CLASSES, class_names=names, image_size=image_size, **settings)
        else:
            model = copy.deepcopy(classifier)
        with torch.random.fork_rng(devices=[]):
            _check(name, model.cpu())
    except InputError as error:
        raise AssertionError(f"{name}: {error}") from None


def _check(name: str, model: Classifier) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (_IMAGES, 3, model.image_size, model.image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    _check_trunk(name, model, images)
    _check_gradients(name, model, images)
    model.eval()
    with torch.no_grad():
        _check_logits(name, model, images)
        _check_maps(name, model, images)
        _check_checkpoint(name, model, images)


def _check_trunk(name: str, model: Classifier, images: Tensor) -> None:
    model.train()
    if model.trunk is not None:
        assert not any(item.requires_grad for item in model.trunk.parameters()), f"{name} trains a part of its trunk"
        assert not any(item.training for item in model.trunk.modules()), (
            f"{name} has its trunk in training mode, where batch normalisation and dropout make its features depend on "
            "the batch; let train() of Classifier do its work"
        )
    before = {key: value.clone() for key, value in model.frozen_state().items()}
    features = model.features(images)
    assert torch.equal(model.features(images), features), (
        f"{name} makes other features of the same images when it is asked again; trunk and preprocessing draw nothing"
    )
    for row in range(len(images)):
        alone = model.features(images[row : row + 1])[0]
        assert _close(alone, features[row]), f"{name} makes other features of an image when it comes alone"
    assert all(value.equal(before[key]) for key, value in model.frozen_state().items()), (
        f"{name} changes its trunk while it is used"
    )
    assert _close(model.features(images.float()), features), (
        f"{name} makes other features of the same images in float32; they are in 0..255 whatever their dtype"
    )


def _check_gradients(name: str, model: Classifier, images: Tensor) -> None:
    trained = {key: item for key, item in model.named_parameters() if item.requires_grad}
    grouped = [item for group in model.parameter_groups() for item in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, trained.values())), (
        f"{name} does not put every parameter that is trained into one of its parameter_groups"
    )
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()  # which may happen to drop all of few features
    model.zero_grad()
    logits = model.tail(model.features(images)).float()
    assert logits.shape == (len(images), model.num_classes), (
        f"{name} gives logits of shape {list(logits.shape)} for {len(images)} images of {model.num_classes} classes"
    )
    logits.square().sum().backward()
    losses = {f"loss.{key}" for key, _ in model.loss.named_parameters()} if model.loss is not None else set()
    idle = [key for key, item in trained.items() if item.grad is None and key not in losses]
    assert not idle, f"{name} trains {idle[0]}, which its logits do not depend on; several processes then wait for it"
    frozen = [key for key, item in model.named_parameters() if item.grad is not None and key not in trained]
    assert not frozen, f"{name} has a gradient in {frozen[0]}, which is not trained"
    model.zero_grad()


def _check_logits(name: str, model: Classifier, images: Tensor) -> None:
    logits = model(images)
    assert logits.dtype == torch.float32, f"{name} gives logits of {logits.dtype}; they are float32"
    assert bool(logits.isfinite().all()), f"{name} gives logits that are no numbers"
    assert torch.equal(model(images), logits), f"{name} gives other logits for the same images when it is asked again"
    for row in range(len(images)):
        assert _close(model(images[row : row + 1])[0], logits[row]), (
            f"{name} gives other logits for an image when it comes alone"
        )
    stored = model.tail(model.features(images)).float()
    if model.tta_flip:
        stored = (stored + model.tail(model.features(images.flip(3))).float()) / 2
    assert _close(stored, logits), (
        f"{name} gives other logits with stored features than without; tail and trunk are all that forward may do"
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.float32, f"{name} gives logits of less than 32 bits in mixed precision"


def _check_maps(name: str, model: Classifier, images: Tensor) -> None:
    if model.class_activation() is None:
        return
    logits, maps = activation_maps(model, images)
    assert maps.shape[:2] == logits.shape, f"{name} has class_activation of other than one map for each class"
    assert torch.allclose(maps.mean((2, 3)), logits - logits.mean(1, keepdim=True), atol=1e-3, rtol=1e-3), (
        f"{name} says with class_activation that a linear layer follows a global average, and its logits are not that"
    )


def _check_checkpoint(name: str, model: Classifier, images: Tensor) -> None:
    with TemporaryDirectory() as folder, _quiet():
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(file := Path(folder) / "model.ckpt", weights_only=False)
        loaded = load_classifier(file, model_class=type(model))
    assert loaded.class_names == model.class_names, f"{name} does not keep its class_names in a checkpoint"
    assert torch.equal(loaded(images), model(images)), f"{name} gives other logits when it is read from a checkpoint"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning's trainer says of devices to itself."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(level)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4)
