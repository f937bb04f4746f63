"""Make the pictures of README and docs/ from the drawn sample: pages, activation maps, accuracy, TensorBoard.

    python scripts/pictures.py [WORK_FOLDER]

It runs `compare`, `fit`, `explain` and `explore` as anybody would, unless the work folder has them already, and
photographs their pages in Chromium, which must be on PATH; the extras `sample`, `offline-weights` and `dev` must be
installed.
"""

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from kth_lightning import ImageData

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "images"
LARGEST = 250_000  # bytes
SCHEMES = ("light", "dark")
EXPLAINED = ("elephant", "giraffe", "penguin", "zebra")


def main() -> None:
    """Make all pictures."""
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("error: the pictures need Chromium; install it, so that `chromium` is on PATH")
    work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).resolve()
    sample, best, maps = work / "sample", work / "best", work / "maps"
    _run("compare", "--run_dir", str(sample))
    _run("fit", "--run_dir", str(best))
    if not maps.exists():
        checkpoint = str(best / "checkpoints" / "best.ckpt")
        _run("explain", "--test_set", "true", "--ckpt_path", checkpoint, "--output", str(maps))
    explored = work / "explore"
    if not explored.exists():
        _run("explore", "--output", str(explored))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    _save(_side_by_side(maps), "maps")
    with sync_playwright() as started, _tensorboard(sample) as address:
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for scheme in SCHEMES:
            page = chromium.new_page(viewport={"width": 1100, "height": 620}, color_scheme=scheme)
            page.goto((sample / "report.html").as_uri())
            _photograph(page, f"report-{scheme}")
            page.goto((explored / "explore.html").as_uri())
            _photograph(page, f"explore-{scheme}")
            page.set_viewport_size({"width": 1240, "height": 610})
            shown = f"darkMode={str(scheme == 'dark').lower()}&smoothing=0&tagFilter=^val/(acc$|activation_maps)"
            page.goto(f"{address}/?{shown}#timeseries")
            page.get_by_text("val/acc", exact=False).first.wait_for(timeout=60_000)
            page.get_by_role("button", name="Settings").last.click()  # which closes them
            page.wait_for_timeout(5_000)  # until curves and images are drawn
            _photograph(page, f"tensorboard-{scheme}")
            page.close()
        with _demo(best / "checkpoints" / "best.ckpt") as address:
            _photograph_demo(chromium, address, _test_images(best, ("elephant", "giraffe", "zebra")))
        chromium.close()
    _save(Image.open(sample / "figures" / "accuracy_time.png"), "accuracy-time")


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "kth_lightning", *words], check=True)


def _side_by_side(maps: Path) -> Image.Image:
    """Lay out one explained test image of each of a few classes, those of the lowest name."""
    with (maps / "explain.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["overlay"]]
    files = [next(row["overlay"] for row in rows if f"/{name}/" in row["path"]) for name in EXPLAINED]
    images = [Image.open(maps / file).convert("RGB") for file in files]
    height, gap = min(image.height for image in images), 12
    images = [image.resize((round(image.width * height / image.height), height)) for image in images]
    sheet = Image.new("RGB", (sum(image.width + gap for image in images) + gap, height + 2 * gap), "white")
    left = gap
    for image in images:
        sheet.paste(image, (left, gap))
        left += image.width + gap
    return sheet


def _test_images(run: Path, names: tuple[str, ...]) -> list[Path]:
    """Name the first test image of each of a few classes of a run's."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    data = ImageData(sample_size=540)
    return [data.prepared.catalogue.root / next(path for path in paths if f"{name}/" in path) for name in names]


def _photograph_demo(chromium: Any, address: str, files: list[Path]) -> None:
    page = chromium.new_page(viewport={"width": 1100, "height": 900})
    page.goto(address)
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])
    page.locator(".answers article").nth(len(files) - 1).wait_for(timeout=60_000)
    page.wait_for_timeout(1_000)  # until the bar of the upload is gone
    _photograph(page, "demo")
    page.close()


def _tensorboard(folder: Path) -> AbstractContextManager[str]:
    return _served("tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0")


def _demo(checkpoint: Path) -> AbstractContextManager[str]:
    return _served("kth_lightning", "demo", "--ckpt_path", str(checkpoint))


@contextmanager
def _served(*words: str) -> Iterator[str]:
    """Start a server; give the address that it names."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            said = (re.search(r"http://[\w.:]+", line) for line in server.stdout)
            yield next(found[0] for found in said if found).rstrip("/")
        finally:
            server.terminate()


def _photograph(page: Any, name: str) -> None:
    file = OUTPUT / f"{name}.png"
    page.screenshot(path=file)
    _save(Image.open(file), name)


def _save(image: Image.Image, name: str) -> None:
    """Write a PNG file of few colours, which is a third as large and looks the same."""
    file = OUTPUT / f"{name}.png"
    few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        sys.exit(f"error: {file} has {file.stat().st_size:,} bytes, more than {LARGEST:,}; photograph less")
    print(f"{file}: {image.width} x {image.height}, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
