import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kth_lightning import Predictor
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tiny_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Start the command; give its address and the folder in which it keeps what is uploaded."""
    pytest.importorskip("gradio")
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "kth_lightning", "demo", "--ckpt_path", str(tiny_run.best_checkpoint)]
    command += ["--max_mb", "1", "--accelerator", "cpu"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("the demo is at http://127.0.0.1:")
        yield said.split()[4], temporary
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert not list(temporary.glob("kth-lightning-demo-*"))


def drop(page: Any, address: str, *files: Path) -> None:
    page.goto(address)
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])


def test_images_that_are_dropped_get_label_probabilities_and_map(
    demo: tuple[str, Path], chromium: Any, tiny_run: RunFolder, images: Path, tmp_path: Path
) -> None:
    address, temporary = demo
    good = images / "class1" / "000.png"
    bad = tmp_path / "<b>broken.png"
    bad.write_bytes(good.read_bytes()[:200])
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    drop(page, address, good, bad)
    page.locator(".answers article").nth(1).wait_for(timeout=60_000)
    first, second = (page.locator(".answers article").nth(number) for number in (0, 1))
    (expected,) = Predictor(tiny_run.best_checkpoint, "cpu")([good])
    assert first.locator("h3").inner_text() == expected.label
    rows = [row.inner_text().split() for row in first.locator("tr").all()]
    assert [(row[0], float(row[1])) for row in rows] == [
        (label, pytest.approx(100 * value, abs=0.051)) for label, value in expected.top_k
    ]
    assert f"novelty {expected.novelty:.2f}" in first.inner_text()
    assert first.locator("img").first.evaluate("image => image.naturalWidth") > 0
    assert second.locator("h3").inner_text() == "not classified"
    assert "truncated" in second.inner_text()
    assert str(temporary) not in page.content()
    assert not [file for file in temporary.rglob("*.png") if file.is_file()]
    assert not [url for url in asked if "fonts.g" in url or "analytics" in url]
    page.close()


def test_several_people_use_it_at_once(demo: tuple[str, Path], chromium: Any, images: Path) -> None:
    pages = [chromium.new_context().new_page() for _ in range(3)]
    for number, page in enumerate(pages):
        drop(page, demo[0], *sorted((images / f"class{number}").iterdir())[: number + 1])
    for number, page in enumerate(pages):
        page.locator(".answers article").nth(number).wait_for(timeout=60_000)
        assert page.locator(".answers article").count() == number + 1
        assert page.locator("small").first.inner_text() == "000.png"
        page.context.close()


def test_a_phone_shows_all_of_it_and_a_large_file_is_refused(
    demo: tuple[str, Path], chromium: Any, images: Path, tmp_path: Path
) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    drop(page, demo[0], *sorted((images / "class0").iterdir())[:2])
    page.locator(".answers article").nth(1).wait_for(timeout=60_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(card.bounding_box()["width"] > 250 for card in page.locator(".answers article").all())
    if folder := os.environ.get("DEMO_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "phone.png", full_page=True)
        page.set_viewport_size({"width": 1100, "height": 800})
        page.screenshot(path=Path(folder) / "desk.png", full_page=True)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(1_200_000))
    drop(page, demo[0], large)
    page.get_by_text("exceed the maximum allowed size", exact=False).first.wait_for(timeout=30_000)
    assert not page.locator(".answers article").count()
    page.close()


def test_what_cannot_be_used_gets_one_sentence(
    refusal: Callable[..., str], tiny_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["demo", "--ckpt_path", tiny_run.best_checkpoint]
    assert "--max_mb 0: give a number from 1 to 1000" in refusal(*command, "--max_mb", "0")
    assert "--port 70000" in refusal(*command, "--port", "70000")
    assert "--host nowhere.invalid is no address of this machine" in refusal(*command, "--host", "nowhere.invalid")
    assert "--host 192.0.2.1 is no address of this machine" in refusal(*command, "--host", "192.0.2.1")
    monkeypatch.setattr("kth_lightning.cli.demo.find_spec", lambda name: None)
    assert "run uv pip install '.[demo]' in the clone" in refusal(*command)


def test_a_port_that_is_taken_is_refused(
    demo: tuple[str, Path], refusal: Callable[..., str], tiny_run: RunFolder
) -> None:
    port = demo[0].rstrip("/").rpartition(":")[2]
    line = refusal("demo", "--ckpt_path", tiny_run.best_checkpoint, "--port", port)
    assert f"--port {port} cannot be used" in line
