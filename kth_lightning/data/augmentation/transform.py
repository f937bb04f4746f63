"""Transforms of torchvision or Kornia, which draw from global random numbers, as augmentations without a state."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kth_lightning.data.augmentation.augmentation import Augmentation, described
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path


class TransformAugmentation(Augmentation):
    """A transform as an augmentation: before each image torch, NumPy and Python are seeded from key and view.

    Their random numbers are put back afterwards. Images go through the transform one by one.

    Args:
        transform: Of torchvision's `transforms.v2` (it gets uint8 [3, H, W]), of Kornia (float32 [1, 3, H, W] in 0..1),
            or any callable that takes and returns uint8 [3, H, W]. It must not change the size, scale or normalise.
        seed: Another seed gives other views.
    """

    def __init__(self, transform: Callable[[Any], Any], seed: int = 0) -> None:
        self.transform = transform
        self.seed = seed
        self._is_kornia = _is_kornia(transform)

    def __call__(self, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
        """Return one view of each image, as `Augmentation` says.

        Raises:
            InputError: The transform returns another shape or type.
        """
        result = images.clone()
        with torch.no_grad(), _random_numbers_put_back(images.device):
            for row, (key, view) in enumerate(zip(keys.tolist(), views.tolist(), strict=True)):
                if view != 0:
                    _seed(f"{self.seed} {key} {view}", images.device)
                    result[row] = self._transformed(images[row])
        return result

    def _transformed(self, image: Tensor) -> Tensor:
        image = image.contiguous()
        if self._is_kornia:
            view = self.transform(image[None] / 255)
            if isinstance(view, Tensor) and view.is_floating_point():
                view = (view.reshape(view.shape[-3:]) * 255).round().clamp(0, 255).to(torch.uint8)
        else:
            view = self.transform(image)
        if not isinstance(view, Tensor) or (view.shape, view.dtype) != (image.shape, image.dtype):
            raise InputError(
                f"--data.augmentation: the transform {class_path(self.transform)} returns {described(view)} for "
                f"{described(image)}; leave out what scales or normalises, which the model does, and give sizes as in "
                "--data.image_size"
            )
        return view


def _is_kornia(transform: object) -> bool:
    modules = transform.modules() if isinstance(transform, nn.Module) else [transform]
    return any(type(module).__module__.partition(".")[0] == "kornia" for module in modules)


def _seed(text: str, device: torch.device) -> None:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def _random_numbers_put_back(device: torch.device) -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    on_cpu = device.type == "cpu"
    try:
        with torch.random.fork_rng([] if on_cpu else [device], device_type="cuda" if on_cpu else device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
