import numpy as np
import pytest
import torch
from keras_preprocessing.image.affine_transformations import apply_affine_transform
from scipy.stats import kstest
from torch import Tensor

from kth_lightning.data.augmentation.choose import make_augmentation
from kth_lightning.data.augmentation.presets import PRESETS, PresetAugmentation
from kth_lightning.data.stateless_random import uniform
from kth_lightning.errors import InputError


def noise(batch: int, height: int = 40, width: int = 36) -> Tensor:
    pixels = torch.randint(0, 256, (batch, height, width, 3), generator=torch.Generator().manual_seed(0))
    return pixels.to(torch.uint8).permute(0, 3, 1, 2)


def gradients(batch: int, height: int, width: int) -> Tensor:
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack((row * 255 // height, column * 255 // width, (7 * row + 3 * column) % 256), dim=-1)
    return pixels.to(torch.uint8).expand(batch, -1, -1, -1).permute(0, 3, 1, 2)


def keys_of(batch: int) -> Tensor:
    return torch.randint(0, 2**63 - 1, (batch,), generator=torch.Generator().manual_seed(1))


def by_keras(image: np.ndarray, drawn: dict[str, float]) -> np.ndarray:
    view = apply_affine_transform(
        image,
        theta=drawn["rotation"],
        shear=np.rad2deg(drawn["shear"]),
        zx=drawn["zoom_rows"],
        zy=drawn["zoom_columns"],
        row_axis=1,
        col_axis=2,
        channel_axis=0,
        fill_mode="nearest",
        order=0,
    )
    return view[:, :, ::-1] if drawn["flip"] else view


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`")
@pytest.mark.parametrize("images", [noise, gradients])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (57, 57), (61, 48), (2, 3)])
def test_blog_equals_keras_in_every_pixel(images, height: int, width: int) -> None:
    images, keys, views = images(12, height, width), keys_of(12), torch.arange(1, 13)
    augmentation = PresetAugmentation("blog")
    drawn = augmentation.draw(keys, views)
    expected = [
        by_keras(image, {name: values[row].item() for name, values in drawn.items()})
        for row, image in enumerate(images.numpy())
    ]
    np.testing.assert_array_equal(augmentation(images, keys, views).numpy(), np.stack(expected))


def test_blog_draws_from_the_articles_ranges() -> None:
    drawn = PresetAugmentation("blog").draw(keys_of(20_000), torch.ones(20_000, dtype=torch.int64))
    ranges = {"rotation": (-10, 10), "shear": (-0.2, 0.2), "zoom_rows": (0.8, 1.2), "zoom_columns": (0.8, 1.2)}
    for name, (low, high) in ranges.items():
        assert kstest(drawn[name].numpy(), "uniform", (low, high - low)).pvalue > 0.001, name
    assert drawn["flip"].double().mean().item() == pytest.approx(0.5, abs=0.02)
    correlation = np.corrcoef([drawn[name].numpy() for name in (*ranges, "flip")])
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.04


@pytest.mark.parametrize("varied", ["seed", "key", "view", "parameter"])
def test_numbers_are_uniform_and_independent_along_every_counter(varied: str) -> None:
    steps, still = torch.arange(4000), torch.zeros(4000, dtype=torch.int64)
    if varied == "seed":
        numbers = torch.cat([uniform(seed, still[:1]) for seed in range(4000)])
    else:
        counters = [steps if name == varied else still for name in ("key", "view", "parameter")]
        numbers = uniform(0, *counters)
    assert kstest(numbers.numpy(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05
    assert numbers.unique().numel() > 3990


def test_numbers_are_those_of_splitmix64() -> None:
    mask = (1 << 64) - 1

    def mix(state: int) -> int:
        state = (state + 0x9E3779B97F4A7C15) & mask
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
        return state ^ (state >> 31)

    assert mix(0) == 0xE220A8397B1DCDAF  # the generator's published first output for seed 0
    keys = keys_of(50)
    expected = [(mix(mix(mix(5) ^ key) ^ 3) >> 40) / 2**24 for key in keys.tolist()]
    assert uniform(5, keys, torch.tensor(3)).tolist() == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_a_view_does_not_depend_on_its_batch(preset: str) -> None:
    images, keys, views = noise(6), keys_of(6), torch.tensor([1, 2, 0, 7, 1, 3])
    augmentation = PresetAugmentation(preset)
    together = augmentation(images, keys, views)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(augmentation(images[order], keys[order], views[order]), together[order])
    alone = torch.cat([augmentation(images[[row]], keys[[row]], views[[row]]) for row in range(6)])
    assert torch.equal(alone, together)


@pytest.mark.parametrize("preset", ["blog", "standard", "strong"])
def test_another_view_key_or_seed_is_another_image(preset: str) -> None:
    image, key, view = noise(1), torch.tensor([4]), torch.tensor([1])
    images = [
        PresetAugmentation(preset)(image, key, view),
        PresetAugmentation(preset)(image, key, view + 1),
        PresetAugmentation(preset)(image, key + 1, view),
        PresetAugmentation(preset, seed=1)(image, key, view),
        image,
    ]
    assert all(not torch.equal(one, other) for i, one in enumerate(images) for other in images[:i])


@pytest.mark.parametrize("preset", PRESETS)
def test_view_0_is_the_clean_image_beside_augmented_ones(preset: str) -> None:
    images, keys, views = noise(8), keys_of(8), torch.tensor([0, 1, 0, 2, 3, 4, 5, 0])
    batch = PresetAugmentation(preset)(images, keys, views)
    clean = views == 0
    assert torch.equal(batch[clean], images[clean])
    assert torch.equal(batch, images) == (preset == "none")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(40, 36), (33, 51)])
def test_shape_type_and_memory_format_hold(preset: str, size: tuple[int, int]) -> None:
    images = noise(4, *size)
    for form in (images, images.contiguous()):
        batch = PresetAugmentation(preset)(form, keys_of(4), torch.arange(4))
        assert batch.shape == images.shape
        assert batch.dtype == torch.uint8
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_flip_mirrors_half_of_the_images_and_leaves_the_rest() -> None:
    images, keys = noise(200, 8, 7), keys_of(200)
    batch = PresetAugmentation("flip")(images, keys, torch.ones(200, dtype=torch.int64))
    mirrored = (batch == images.flip(3)).flatten(1).all(1)
    assert torch.all(mirrored ^ (batch == images).flatten(1).all(1))
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_standard_interpolates_about_the_true_centre(side: str) -> None:
    ramp = (5 * torch.arange(51, dtype=torch.uint8)).view((-1, 1) if side == "rows" else (1, -1))
    images, keys, views = ramp.expand(200, 3, 51, 51), keys_of(200), torch.ones(200, dtype=torch.int64)
    augmentation = PresetAugmentation("standard")
    drawn, batch = augmentation.draw(keys, views), augmentation(images, keys, views)
    shown = 5 * (25 + 51 * drawn[f"shift_{side}"])
    expected = drawn["brightness"] * (drawn["contrast"] * shown + (1 - drawn["contrast"]) * 125)
    torch.testing.assert_close(batch[:, 0, 25, 25].double(), expected.clamp(0, 255), atol=0.51, rtol=0)


def test_standard_changes_brightness_then_contrast_then_saturation() -> None:
    colour, weights = torch.tensor([60.0, 120.0, 90.0]), torch.tensor([0.299, 0.587, 0.114])
    images, keys, views = torch.empty(200, 3, 5, 5), keys_of(200), torch.ones(200, dtype=torch.int64)
    images = images.copy_(colour.view(3, 1, 1)).to(torch.uint8)
    augmentation = PresetAugmentation("standard")
    drawn = augmentation.draw(keys, views)
    brightness, contrast, saturation = (
        drawn[name].float().unsqueeze(1) for name in ("brightness", "contrast", "saturation")
    )
    bright = colour * brightness
    mean = (bright * weights).sum(1, keepdim=True)
    contrasted = mean + contrast * (bright - mean)
    grey = (contrasted * weights).sum(1, keepdim=True)
    expected = grey + saturation * (contrasted - grey)
    torch.testing.assert_close(augmentation(images, keys, views)[:, :, 2, 2].float(), expected, atol=0.51, rtol=0)
    for factor in (brightness, contrast, saturation):
        assert kstest(factor.flatten().numpy(), "uniform", (0.8, 0.4)).pvalue > 0.001


def test_strong_drops_the_colours_of_a_tenth_and_erases_a_rectangle_in_a_quarter() -> None:
    images, keys, views = noise(300) // 5 + 100, keys_of(300), torch.ones(300, dtype=torch.int64)
    augmentation = PresetAugmentation("strong")
    drawn, batch = augmentation.draw(keys, views), augmentation(images, keys, views)
    grey = (batch == batch[:, :1]).flatten(1).all(1)
    assert torch.equal(grey, drawn["greyscale"])
    assert 10 < grey.sum() < 55
    equal_neighbours = (batch[..., 1:] == batch[..., :-1]).all(1).flatten(1).sum(1)
    assert torch.equal((equal_neighbours >= 10)[~grey], drawn["erase"][~grey])
    assert 45 < drawn["erase"].sum() < 105


def test_strong_sees_a_part_that_lies_within_the_image() -> None:
    drawn = PresetAugmentation("strong").draw(keys_of(5000), torch.ones(5000, dtype=torch.int64))
    area, aspect = drawn["zoom_rows"] * drawn["zoom_columns"], drawn["zoom_columns"] / drawn["zoom_rows"]
    for values, low, high in ((area, 0.35, 1.0), (aspect, 3 / 4, 4 / 3)):
        assert values.min().item() == pytest.approx(low, rel=0.01)
        assert values.max().item() == pytest.approx(high, rel=0.01)
    for side in ("rows", "columns"):
        assert torch.all(drawn[f"shift_{side}"].abs() <= (1 - drawn[f"zoom_{side}"]).clamp(min=0) / 2)


def test_an_unknown_preset_is_an_input_error_with_near_names() -> None:
    with pytest.raises(InputError, match=r"--data.augmentation 'standart'.*standard"):
        make_augmentation("standart", 0)
    with pytest.raises(InputError, match="none, flip, blog, standard, strong"):
        make_augmentation("xyz", 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("preset", PRESETS)
def test_cuda_gives_the_same_views_as_the_cpu(preset: str) -> None:
    images, keys, views = noise(16, 224, 224), keys_of(16), torch.arange(16)
    on_device = [tensor.cuda() for tensor in (images, keys, views)]
    on_cpu = PresetAugmentation(preset)(images, keys, views)
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_cuda = PresetAugmentation(preset)(*on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    difference = (on_cuda.cpu().int() - on_cpu.int()).abs()
    if PRESETS[preset].keras:
        assert not difference.any()
    assert (difference > 1).double().mean() < 1e-4
