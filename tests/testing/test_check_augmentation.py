import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from kth_lightning import TransformAugmentation
from kth_lightning.data.augmentation.presets import PRESETS, PresetAugmentation
from kth_lightning.testing import check_augmentation

SIZE = 32


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_the_promises(preset: str) -> None:
    check_augmentation(PresetAugmentation(preset, seed=1), SIZE)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomResizedCrop(SIZE),
        v2.TrivialAugmentWide(),
        v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomErasing()]),
        lambda image: image.roll(random.randrange(9) + np.random.randint(9) + int(torch.randint(9, ())), 2),
    ],
    ids=["crop", "trivial", "composed", "callable"],
)
def test_torchvisions_transforms_keep_them_through_the_adapter(transform: Callable) -> None:
    augmentation = TransformAugmentation(transform)
    check_augmentation(augmentation, SIZE)
    images = torch.arange(3 * SIZE * SIZE).remainder(251).to(torch.uint8).view(1, 3, SIZE, SIZE)
    views = [augmentation(images, torch.tensor([5]), torch.tensor([view])) for view in range(6)]
    assert len({view.numpy().tobytes() for view in views}) > 2
    other = TransformAugmentation(transform, seed=1)
    assert any(
        not torch.equal(other(images, torch.tensor([5]), torch.tensor([view])), views[view]) for view in range(6)
    )


def test_kornias_transforms_keep_them_through_the_adapter() -> None:
    kornia = pytest.importorskip("kornia.augmentation")
    flip = TransformAugmentation(kornia.RandomVerticalFlip(p=1.0))
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    assert torch.equal(flip(images, torch.tensor([1, 2]), torch.tensor([1, 1])), images.flip(2))
    jitter = kornia.AugmentationSequential(kornia.ColorJitter(0.3, 0.3, 0.3, 0.1, p=0.8), kornia.RandomAffine(20.0))
    for transform in (jitter, torch.nn.Sequential(kornia.RandomHorizontalFlip(), kornia.RandomErasing(p=0.5))):
        check_augmentation(TransformAugmentation(transform), SIZE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_too() -> None:
    composed = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4), v2.GaussianNoise(clip=True)])
    noise = lambda image: (image + torch.randint(0, 9, image.shape, device=image.device)).to(torch.uint8)  # noqa: E731
    for augmentation in (PresetAugmentation("strong"), TransformAugmentation(composed), TransformAugmentation(noise)):
        check_augmentation(augmentation, SIZE, "cuda")


class Broken:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
        self.calls += 1
        clean = (views == 0).view(-1, 1, 1, 1)
        shift = ((keys ^ views) % 97).view(-1, 1, 1, 1)
        if self.fault == "in place":
            images += 1
            return images
        if self.fault == "torch":
            shift = torch.randint(0, 99, shift.shape)
        if self.fault == "numpy":
            shift = torch.from_numpy(np.random.randint(0, 99, shift.shape))
        if self.fault == "calls":
            shift = shift + self.calls
        if self.fault == "order":
            shift = shift + torch.arange(len(images)).view(-1, 1, 1, 1)
        if self.fault == "batch":
            shift = shift + len(images)
        if self.fault == "clean":
            clean = torch.zeros_like(clean)
        if self.fault == "mixed" and clean.any() and not clean.all():
            shift = shift + 1
        result = torch.where(clean, images, ((images + shift) % 256).to(torch.uint8))
        return result.float() if self.fault == "type" else result[:1] if self.fault == "shape" else result


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("in place", "changes the images that it is given in place"),
        ("torch", "draws from the random numbers of torch, NumPy or Python"),
        ("numpy", "draws from the random numbers of torch, NumPy or Python"),
        ("calls", "other views for the same keys and views when it is asked again"),
        ("order", "other views for the same keys and views in another order"),
        ("batch", "another view of an image when it comes alone"),
        ("clean", "changes images in view 0"),
        ("mixed", "other views where some images of the batch are in view 0"),
        ("type", r"returns float32 \[6, 3, 32, 32\] for uint8"),
        ("shape", r"returns uint8 \[1, 3, 32, 32\] for uint8 \[6, 3, 32, 32\]"),
    ],
)
def test_a_promise_that_is_not_kept_is_named(fault: str, message: str) -> None:
    check_augmentation(Broken(""), SIZE)
    with pytest.raises(AssertionError, match=message):
        check_augmentation(Broken(fault), SIZE)
