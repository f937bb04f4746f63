import csv
import os
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from kth_lightning import __version__
from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
ARCHIVE = os.environ.get("KTH_ANIMALS_ARCHIVE")
needs_archive = pytest.mark.skipif(not ARCHIVE, reason="KTH_ANIMALS_ARCHIVE does not name the archive")


def test_help_names_every_verb(capsys: pytest.CaptureFixture) -> None:
    main([])
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("compare", "prepare", "fit", "validate", "test"))


def test_version(capsys: pytest.CaptureFixture) -> None:
    main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_the_package_brings_a_console_script_and_its_types() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["kth-lightning"].split(":")
    assert getattr(import_module(module), function) is main
    assert (ROOT / "kth_lightning" / "py.typed").is_file()


def test_prepare_prints_the_summary_of_a_folder(images: Path, capsys: pytest.CaptureFixture) -> None:
    main(["prepare", "--data.root", str(images)])
    assert "60 of 60 files usable in 3 classes" in capsys.readouterr().out


@pytest.mark.slow
@needs_archive
def test_prepare_of_the_real_archive_counts_as_published(capsys: pytest.CaptureFixture) -> None:
    main(["prepare", "--data.archive", str(ARCHIVE)])
    assert "1738 of 1739 files usable in 19 classes" in capsys.readouterr().out


@pytest.mark.slow
@needs_archive
def test_a_head_learns_the_real_animals(tmp_path: Path) -> None:
    args = ["fit", "--config", "configs/best.yaml", "--data.archive", str(ARCHIVE), "--data.image_size", "96"]
    main([*args, "--data.tta_flip", "false", "--trainer.max_epochs", "12", "--run_dir", str(tmp_path / "run")])
    run = RunFolder(tmp_path / "run")
    with run.splits.open() as stream:
        parts = [row["part"] for row in csv.DictReader(stream)]
    assert [parts.count(part) for part in ("train", "val", "test")] == [1458, 180, 100]
    assert run.read_metrics()["test"]["acc"]["value"] > 0.85
