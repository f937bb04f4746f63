import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Give each of several test processes one thread: those of two processes on the same cores wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep archives, stores and drawn samples of all tests in one folder that goes with the session."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KTH_LIGHTNING_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """Draw class folders that a classifier can learn: every class has a colour of its own under noise."""

    def make(folder: Path, classes: int = 3, pictures: int = 12, size: int = 64) -> Path:
        rng = np.random.default_rng(0)
        for number in range(classes):
            place = folder / f"class{number}"
            place.mkdir(parents=True)
            colour = np.eye(3)[number % 3] * 120
            for picture in range(pictures):
                pixels = (rng.random((size, size, 3)) * 130 + colour).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{picture:03d}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """Give a folder of three classes with 20 pictures each."""
    return make_folder(tmp_path_factory.mktemp("pictures") / "animals", pictures=20)


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
