import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Give each of several test processes one thread: those of two processes on the same cores wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: at the end, one of them would leave the other processes nothing to do."""
    items.sort(key=lambda item: item.path.parent.name not in ("states", "scripts"))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep archives, stores and drawn samples of all tests in one folder that goes with the session."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KTH_LIGHTNING_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """Draw class folders that a classifier can learn: every class has a colour of its own under noise."""

    def make(folder: Path, classes: int = 3, images: int = 12, size: int = 64) -> Path:
        rng = np.random.default_rng(0)
        for number in range(classes):
            position = folder / f"class{number}"
            position.mkdir(parents=True)
            colour = np.eye(3)[number % 3] * 120
            for image in range(images):
                pixels = (rng.random((size, size, 3)) * 130 + colour).astype(np.uint8)
                Image.fromarray(pixels).save(position / f"{image:03d}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """Give a folder of three classes with 20 images each."""
    return make_folder(tmp_path_factory.mktemp("images") / "animals", images=20)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that torchvision reads as MNIST: 40 digits for training and 20 for testing, the ones brighter."""
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 2
        pixels = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8) + 120 * labels[:, None, None]
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    return root


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command that has to end with status 2 and one line, and return that line."""

    def refuse(*argv: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in argv])
        printed = capsys.readouterr().err
        assert stopped.value.code == 2
        assert "Traceback" not in printed
        (line,) = (item for item in printed.splitlines() if item.startswith("error: "))
        assert printed.endswith(f"{line}\n")
        assert len(line) < 700
        return line

    return refuse


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start the browser, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        # TensorBoard's projector draws with WebGL, here without a graphics card.
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = started.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunFolder:
    """Train a small CNN in float32 that looks at mirror images too, for a second."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    flags = ["--model.filters", "[8,16]", "--model.block_dropout", "[0,0]", "--model.optimizer.lr", "0.01"]
    flags += ["--data.root", str(images), "--data.image_size", "32", "--data.interpolation", "bicubic"]
    flags += ["--data.tta_flip", "true", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
    flags += ["--trainer.precision", "32"]
    main(["fit", "--model", "BenchmarkCNN", "--run_dir", str(run), *flags])
    return RunFolder(run)


@pytest.fixture(scope="session")
def change_checkpoint() -> Callable[..., Path]:
    """Write a checkpoint's copy with another temperature, or with each tensor multiplied."""

    def change(checkpoint: Path, copy: Path, temperature: float = 1.0, factor: float = 1.0) -> Path:
        content = torch.load(checkpoint, weights_only=True)
        content["hyper_parameters"]["temperature"] = temperature
        for name, tensor in content["state_dict"].items():
            if tensor.is_floating_point() and not name.startswith("preprocess"):
                content["state_dict"][name] = tensor * factor
        torch.save(content, copy)
        return copy

    return change
