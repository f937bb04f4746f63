"""Whether an augmentation keeps the promises of `Augmentation`."""

import random

import numpy as np
import torch
from torch import Tensor

from kth_lightning.data.augmentation.augmentation import Augmentation, augmented
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path

_IMAGES = 6


def check_augmentation(augmentation: Augmentation, image_size: int = 64, device: str = "cpu") -> None:
    """Check that an augmentation draws views without a state.

    Args:
        augmentation: As it is given to `ImageData`.
        image_size: Side in pixels of the images that it is tried on.
        device: Where they are.

    Raises:
        AssertionError: A promise is not kept; the sentence says which.
    """
    name = class_path(augmentation)
    assert callable(augmentation), f"{name} cannot be called"
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (_IMAGES, image_size, image_size, 3), generator=generator, dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2).to(device)
    keys = torch.randint(0, 2**63 - 1, (_IMAGES,), generator=generator).to(device)
    views = torch.arange(1, _IMAGES + 1, device=device)

    before, state = images.clone(), _random_numbers(device)
    drawn = _call(augmentation, images, keys, views)
    assert torch.equal(images, before), f"{name} changes the images that it is given in place; let it make new ones"
    assert state == _random_numbers(device), (
        f"{name} draws from the random numbers of torch, NumPy or Python, which a run that goes on does not have any "
        "more; draw from key and view, or wrap a transform into kth_lightning.TransformAugmentation"
    )
    torch.rand(1, device=device), torch.rand(1), np.random.rand(), random.random()
    assert torch.equal(_call(augmentation, images, keys, views), drawn), (
        f"{name} returns other views for the same keys and views when it is asked again"
    )
    order = torch.arange(_IMAGES, device=device).flip(0)
    assert torch.equal(_call(augmentation, images[order], keys[order], views[order]), drawn[order]), (
        f"{name} returns other views for the same keys and views in another order"
    )
    for row in range(_IMAGES):
        one = slice(row, row + 1)
        assert torch.equal(_call(augmentation, images[one], keys[one], views[one]), drawn[one]), (
            f"{name} returns another view of an image when it comes alone"
        )
    assert torch.equal(_call(augmentation, images, keys, torch.zeros_like(views)), images), (
        f"{name} changes images in view 0, which is the clean image"
    )
    mixed = torch.where(views % 2 == 0, views, 0)
    expected = torch.where((mixed == 0).view(-1, 1, 1, 1), images, drawn)
    assert torch.equal(_call(augmentation, images, keys, mixed), expected), (
        f"{name} returns other views where some images of the batch are in view 0"
    )


def _call(augmentation: Augmentation, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
    try:
        return augmented(augmentation, images, keys, views)
    except InputError as error:
        raise AssertionError(str(error)) from None


def _random_numbers(device: str) -> tuple[object, ...]:
    numpy = np.random.get_state(legacy=False)
    on_device = [] if device == "cpu" else torch.get_device_module(device).get_rng_state().tolist()
    return random.getstate(), str(numpy), torch.get_rng_state().tolist(), on_device
