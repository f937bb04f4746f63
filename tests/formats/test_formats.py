"""Every version opens what 0.2.0 and the versions since have written."""

import csv
import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from kth_lightning.cli.main import main

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("runs-*.tar.xz"))
MODELS = ("benchmark", "head", "finetune")


def _keep_format() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keep_format", HERE.parents[1] / "scripts" / "keep_format.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=ARCHIVES, ids=[file.name for file in ARCHIVES])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("formats")
    with tarfile.open(request.param) as packed:
        packed.extractall(folder, filter="data")
    _keep_format().draw_images(folder / "images")
    return folder


def test_there_are_archives_and_they_are_small() -> None:
    assert ARCHIVES
    assert all(file.stat().st_size < 600_000 for file in ARCHIVES)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_run_of_an_earlier_version_is_reported_predicted_with_and_explained(
    runs: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["report", str(runs / name)])
    assert (runs / name / "report.html").exists()
    checkpoint = str(runs / name / "checkpoints" / "best.ckpt")
    table = tmp_path / "predictions.csv"
    main(["predict", str(runs / "images"), "--ckpt_path", checkpoint, "--output", str(table), "--accelerator", "cpu"])
    with table.open(encoding="utf-8-sig", newline="") as stream:
        found = {Path(row["path"]).relative_to(runs / "images").as_posix(): row for row in csv.DictReader(stream)}
    with (runs / name / "predictions.csv").open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            assert found[row["path"]]["label"] == row["prediction"]
            assert float(found[row["path"]]["probability"]) == pytest.approx(float(row["confidence"]), abs=1e-4)
    image = str(runs / "images" / "class0" / "000.png")
    main(["explain", image, "--ckpt_path", checkpoint, "--output", str(tmp_path / "maps"), "--accelerator", "cpu"])
    assert list((tmp_path / "maps").rglob("*.*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_of_an_earlier_version_is_exported(runs: Path, name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    image = str(runs / "images" / "class0" / "000.png")
    checkpoint = str(runs / name / "checkpoints" / "best.ckpt")
    main(["export", "--check", image, "--ckpt_path", checkpoint, "--output", str(tmp_path / "model.pt2")])
    assert (tmp_path / "model.pt2").exists()
