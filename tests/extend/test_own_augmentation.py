import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import torch
from lightning import Trainer
from torchvision.transforms import v2

from kth_lightning import ImageData, TransformAugmentation
from kth_lightning.callbacks.feature_cache import FeatureCache
from kth_lightning.cli.main import main
from kth_lightning.data.augmentation.identity import augmentation_identity
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import FeatureHead

MINE = """
    import torch


    class Darker:
        def __init__(self, least: float = 0.5):
            self.least = least

        def __call__(self, images, keys, views):
            shares = [torch.Generator().manual_seed(int(key) ^ int(view)) for key, view in zip(keys, views)]
            shares = torch.cat([torch.rand(1, generator=generator) for generator in shares]).to(images.device)
            factors = torch.where(views == 0, 1, self.least + (1 - self.least) * shares)
            return (images * factors.view(-1, 1, 1, 1)).to(torch.uint8)


    def upside_down(images, keys, views):
        return torch.where((views % 2 == 1).view(-1, 1, 1, 1), images.flip(2), images)


    class Smaller:
        def __call__(self, images, keys, views):
            return images[:, :, ::2, ::2]


    class Floats:
        def __call__(self, images, keys, views):
            return images / 255


    class Nothing:
        def __init__(self, p: float = 0.5):
            pass
"""
Mine = Callable[[str], None]


def test_an_augmentation_goes_the_whole_way_and_goes_on_with_the_same_views(
    mine: Mine, images: Path, tmp_path: Path, tiny_fit: Callable, whole_way: Callable
) -> None:
    mine(MINE)
    run, straight = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "straight")
    flags = ["--data.root", images, "--data.augmentation", "mine.Darker", "--data.augmentation.least", 0.3]
    whole_way(tiny_fit(run.path, *flags), run)
    main(tiny_fit(straight.path, *flags))
    assert run.predictions.read_bytes() == straight.predictions.read_bytes()
    main(["explore", "--output", str(tmp_path / "explored"), "--data.image_size", "32", *map(str, flags)])
    page = (tmp_path / "explored/explore.html").read_text(encoding="utf-8")
    assert "<code>--data.augmentation mine.Darker</code>" in page


@pytest.mark.slow
def test_a_transform_is_given_by_its_class_path_and_a_function_by_its_path(
    mine: Mine, images: Path, tmp_path: Path, tiny_fit: Callable
) -> None:
    mine(MINE)
    flip = {"class_path": "torchvision.transforms.v2.RandomVerticalFlip", "init_args": {"p": 1.0}}
    wrapped = {"class_path": "kth_lightning.TransformAugmentation", "init_args": {"transform": flip}}
    runs = [RunFolder(tmp_path / str(number)) for number in range(2)]
    for run, augmentation in zip(runs, (json.dumps(wrapped), "mine.upside_down"), strict=True):
        flags = ["--data.root", images, "--data.augmentation", augmentation, "--trainer.max_epochs", 1]
        main(tiny_fit(run.path, *flags))
    assert "class_path: torchvision.transforms.v2.RandomVerticalFlip" in runs[0].config.read_text()
    assert runs[0].predictions.read_bytes() == runs[1].predictions.read_bytes(), "view 1 is upside down by both"


def train(images: Path, cache: Path, augmentation: object) -> ImageData:
    """Have a frozen trunk store what it makes of two views of every image."""
    data = ImageData(root=str(images), image_size=32, views=2, augmentation=augmentation, cache_dir=str(cache))  # type: ignore[arg-type]
    names = data.class_names
    torch.manual_seed(0)
    model = FeatureHead(backbone="resnet18", weights="none", num_classes=3, image_size=32, class_names=names)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, callbacks=[FeatureCache()], use_distributed_sampler=False, **quiet)
    trainer.fit(model, data)
    return data


def stored(cache: Path) -> int:
    return sum(file.stat().st_size for file in cache.glob("features/*/*"))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_stored_views_are_shared_by_what_draws_alike_alone(mine: Mine, images: Path, tmp_path: Path) -> None:
    mine(MINE)
    sizes = []
    for least in (0.3, 0.3, 0.6):
        train(images, tmp_path, importlib.import_module("mine").Darker(least))
        sizes.append(stored(tmp_path))
    assert 0 < sizes[0] == sizes[1] < sizes[2]
    mine(MINE.replace("images.device)", "images.device) ** 2"))
    train(images, tmp_path, importlib.import_module("mine").Darker(0.6))
    assert stored(tmp_path) > sizes[2], "whoever edits the class gets new views"


def test_what_cannot_be_told_apart_is_not_stored(images: Path, tmp_path: Path) -> None:
    flip = TransformAugmentation(v2.Lambda(lambda image: image.flip(2)))
    assert augmentation_identity(flip) is None
    with pytest.warns(UserWarning, match=r"TransformAugmentation cannot be told from others like it") as caught:
        train(images, tmp_path, flip)
    assert sum("cannot be told" in str(warning.message) for warning in caught) == 1
    train_size = stored(tmp_path)
    flip.identity = "left and right"  # type: ignore[attr-defined]
    train(images, tmp_path, flip)
    assert stored(tmp_path) > train_size


def test_an_augmentation_of_a_notebook_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec(dedent(MINE), vars(notebook))
    assert augmentation_identity(notebook.Darker()) is None
    assert augmentation_identity(notebook.upside_down) is None


def test_code_of_ones_own_in_other_files_tells_augmentations_apart(
    mine: Mine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine("""
        import bases

        class Up(bases.Flip):
            def __call__(self, images, keys, views):
                import helpers
                return helpers.flip(images, views, self.axis)
    """)
    files = {
        "bases": "class Flip:\n    axis = 2\n",
        "helpers": "import torch\n\ndef flip(images, views, axis):\n    return images.flip(axis)\n",
    }
    found = []
    for edited in (None, "bases", "helpers", None):
        for name, code in files.items():
            (tmp_path / "somebody" / f"{name}.py").write_text(code + "# edited\n" * (name == edited))
        found.append(augmentation_identity(importlib.import_module("mine").Up()))
    assert len(set(found)) == 3
    assert found[0] == found[3]


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        ("mine.Drker", "the module mine has no 'Drker'; did you mean mine.Darker?"),
        ("mine.Nothing", "mine.Nothing is not an augmentation: it cannot be called with images, keys and views"),
        ("mine.Smaller", "mine.Smaller returns uint8 [20, 3, 16, 16] for uint8 [20, 3, 32, 32]; let it return"),
        ("mine.Floats", "mine.Floats returns float32 [20, 3, 32, 32] for uint8 [20, 3, 32, 32]"),
        ("strnog", "'strnog' is unknown; did you mean strong?"),
    ],
)  # fmt: skip
def test_what_is_no_augmentation_is_one_sentence(
    mine: Mine, augmentation: str, message: str, images: Path, tmp_path: Path, tiny_fit: Callable, refusal: Callable
) -> None:
    mine(MINE)
    assert message in refusal(*tiny_fit(tmp_path / "run", "--data.root", images, "--data.augmentation", augmentation))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.ToDtype(torch.float32, scale=True), r"ToDtype returns float32 \[3, 32, 32\] for uint8 \[3, 32, 32\]"),
        (v2.RandomCrop(16), r"RandomCrop returns uint8 \[3, 16, 16\] .* give sizes as in --data\.image_size"),
        (v2.ToPILImage(), r"ToPILImage returns Image for uint8"),
    ],
)
def test_a_transform_that_scales_or_resizes_is_one_sentence(transform: Callable, message: str) -> None:
    images, keys = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([1, 2])
    with pytest.raises(InputError, match=message):
        TransformAugmentation(transform)(images, keys, torch.tensor([0, 1]))


@pytest.mark.slow
def test_the_identity_is_the_same_in_another_process(mine: Mine, tmp_path: Path) -> None:
    mine(MINE)
    code = """
import mine
from torchvision.transforms import v2
from kth_lightning import TransformAugmentation
from kth_lightning.data.augmentation.identity import augmentation_identity
transform = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.2), v2.RandAugment()])
found = [augmentation_identity(one) for one in (TransformAugmentation(transform), mine.Darker(), mine.upside_down)]
"""
    here: dict[str, list[str]] = {}
    exec(code, here)
    command = [sys.executable, "-c", f"{code}print(found)"]
    there = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "somebody", check=True).stdout
    assert there.strip() == str(here["found"])
    assert "None" not in there
