import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kth_lightning.cli.main import main
from kth_lightning.io.run_folder import RunFolder

BROKEN = """
from lightning.pytorch.loggers import CSVLogger


class Broken(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if metrics.get("epoch") == 1:
            raise ConnectionError("the server\\nwent away")
        super().log_metrics(metrics, step)


class Closed(CSVLogger):
    @property
    def experiment(self):
        raise PermissionError("who are you?")
"""


def config(file: Path, class_path: str, **settings: Any) -> Path:
    logger = {"class_path": class_path, "init_args": settings}
    file.write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    return file


def columns(file: Path, *names: str) -> list[list[float]]:
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    return [[float(row[name]) for row in rows if row[name]] for name in names]


def test_a_csv_logger_gets_figures_and_settings_beside_tensorboard(
    images: Path, tmp_path: Path, tiny_fit: Callable
) -> None:
    file = config(tmp_path / "logger.yaml", "CSVLogger", save_dir=str(tmp_path / "logs"))
    run = RunFolder(tmp_path / "run")
    main(tiny_fit(run.path, "--data.root", images, "--config", file))
    history, metrics = run.read_history(), run.read_metrics()
    logs = tmp_path / "logs/lightning_logs/version_0"
    for name in ("train/loss", "val/loss", "val/kappa"):
        assert columns(logs / "metrics.csv", name) == [pytest.approx([row[name] for row in history], nan_ok=True)]
    (rates, tested, best) = columns(logs / "metrics.csv", "train/lr", "test/acc", "val_best/loss")
    assert rates == [row["lr"] for row in history]
    assert tested == [pytest.approx(metrics["test"]["acc"]["value"])]
    assert best == [pytest.approx(metrics["val"]["loss"])]
    settings = yaml.safe_load((logs / "hparams.yaml").read_text())
    assert settings["model"] == "BenchmarkCNN"
    assert settings["image_size"] == 32
    assert len(list(run.path.glob("events.out.tfevents*"))) == 1


@pytest.mark.slow
def test_a_logger_that_raises_in_mid_run_costs_one_line(
    images: Path, tmp_path: Path, mine: Callable, tiny_fit: Callable, capsys: pytest.CaptureFixture
) -> None:
    mine(BROKEN)
    file = config(tmp_path / "logger.yaml", "mine.Broken", save_dir=str(tmp_path / "logs"))
    run = RunFolder(tmp_path / "run")
    main(tiny_fit(run.path, "--data.root", images, "--config", file))
    said = [line for line in capsys.readouterr().err.splitlines() if "Broken" in line]
    assert [line.rpartition("warning: ")[2] for line in said] == [
        "Broken failed and gets nothing more of this run, which goes on (ConnectionError: the server went away)"
    ]
    assert run.finished
    assert len(columns(tmp_path / "logs/lightning_logs/version_0/metrics.csv", "val/loss")[0]) == 1


def test_a_logger_that_cannot_be_opened_is_one_sentence(
    images: Path, tmp_path: Path, mine: Callable, tiny_fit: Callable, refusal: Callable
) -> None:
    mine(BROKEN)
    file = config(tmp_path / "logger.yaml", "mine.Closed", save_dir=str(tmp_path / "logs"))
    line = refusal(*tiny_fit(tmp_path / "run", "--data.root", images, "--config", file))
    assert "--trainer.logger: Closed cannot be opened (PermissionError: who are you?)" in line
    assert not (tmp_path / "run").exists()


def test_no_logger_leaves_no_events(images: Path, tmp_path: Path, tiny_fit: Callable) -> None:
    main(tiny_fit(tmp_path / "run", "--data.root", images, "--trainer.logger", "false"))
    assert RunFolder(tmp_path / "run").finished
    assert not list((tmp_path / "run").glob("events.out.tfevents*"))


@pytest.mark.slow
def test_mlflow_gets_figures_settings_and_pictures(images: Path, tmp_path: Path, tiny_fit: Callable) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = {"experiment_name": "animals", "tracking_uri": store, "artifact_location": str(tmp_path / "artifacts")}
    file = config(tmp_path / "logger.yaml", "MLFlowLogger", **settings)
    run = RunFolder(tmp_path / "run")
    main(tiny_fit(run.path, "--data.root", images, "--config", file))
    client = mlflow.tracking.MlflowClient(store)
    (logged,) = client.search_runs([client.get_experiment_by_name("animals").experiment_id])
    assert logged.data.params["model"] == "BenchmarkCNN"
    losses = [item.value for item in client.get_metric_history(logged.info.run_id, "val/loss")]
    assert losses == pytest.approx([row["val/loss"] for row in run.read_history()])
    assert logged.data.metrics["test/acc"] == pytest.approx(run.read_metrics()["test"]["acc"]["value"])
    pictures = {file.parent.name for file in (tmp_path / "artifacts").rglob("*.png")}
    assert pictures == {"examples", "activation_maps", "confusion"}


@pytest.mark.slow
def test_wandb_offline_gets_pictures(images: Path, tmp_path: Path, tiny_fit: Callable) -> None:
    wandb = pytest.importorskip("wandb")
    file = config(tmp_path / "logger.yaml", "WandbLogger", offline=True, save_dir=str(tmp_path), project="animals")
    try:
        main(tiny_fit(tmp_path / "run", "--data.root", images, "--config", file))
        assert wandb.run.summary["val_best/loss"] == pytest.approx(
            RunFolder(tmp_path / "run").read_metrics()["val"]["loss"]
        )
    finally:
        wandb.finish()
    names = {file.name.split("_")[0] for file in tmp_path.rglob("media/images/*/*.png")}
    assert names == {"examples", "activation", "confusion"}
