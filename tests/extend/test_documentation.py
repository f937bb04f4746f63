"""The lines of Python in docs/extend/ are run together: one module of one's own, one training."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from kth_lightning import ImageData
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.testing import check_augmentation

PAGES = Path(__file__).parents[2] / "docs" / "extend"


def block(page: str, language: str = "python") -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def parts(mine: Callable[[str], None]) -> None:
    """Write the classes of all pages into the module that the pages call `mine`."""
    pages = sorted({page.name for page in PAGES.glob("*.md")} - {"index.md", "table.md"})
    mine("\n".join(code for code in map(block, pages) if "\nclass " in code))


def test_the_classes_of_the_pages_keep_their_promises(parts: None, images: Path) -> None:
    exec(block("checking.md").replace("DIR", str(images)), {})


@pytest.mark.slow
def test_the_objects_of_the_pages_are_trained_together(
    parts: None, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = block("python.md")
    for given, small in (("DIR", str(images)), ("max_epochs=30", "max_epochs=1")):
        assert given in lines
        lines = lines.replace(given, small)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    run = RunFolder(tmp_path / "runs/mine")
    assert run.finished
    config = run.config.read_text(encoding="utf-8")
    for part in ("<mine.UpsideDown()>", "<mine.GradientNorm>", "mine.SignDescent", "mine.WarmUp", "mine.Brier"):
        assert part in config
    assert "Focal(gamma=1.5)" in config
    brier = run.read_metrics()["test"]["brier"]["value"]
    assert capsys.readouterr().out.splitlines()[-1] == str(brier)
    assert 0 < brier < 2
    assert run.read_history()[0].keys() >= {"train/brier", "val/brier", "train/gradient_norm"}
    logged = Path("log.txt").read_text(encoding="utf-8")
    for name in ("'model': 'MyNet'", "train/gradient_norm", "val/brier", "test/acc"):
        assert name in logged


def test_the_stages_of_a_backbone_are_trained(capsys: pytest.CaptureFixture) -> None:
    exec(block("backbone.md"), {})
    assert int(capsys.readouterr().out) > 1_000_000


def test_the_configuration_of_the_page_is_taken(images: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageData, "data")
    options = parser.parse_object(yaml.safe_load(block("augmentation.md", "yaml")))
    options.data.root = str(images)
    check_augmentation(parser.instantiate(options).data.augmentation)
