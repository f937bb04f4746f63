import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import summarise
from kth_lightning.io.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "head-1")


def row(epoch: int, **figures: float) -> dict[str, float]:
    return {"epoch": epoch, "seconds": 1.25, "lr": 1e-3, "train/loss": 1 / 3, "val/kappa": 0.5} | figures


NAMES = ['goat, "Bighorn"', "p:anda", "狼"]
PATHS = ["a/1.jpg", "b, c/2.jpg", "d/狼.jpg", "e/4.jpg"]


def write_some_predictions(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = np.array([0, 1, 2, 2])
    probabilities = random.dirichlet([0.05] * 3, size=4).astype(np.float32)
    run.write_predictions(PATHS, labels, NAMES, probabilities)
    return labels, probabilities


def test_predictions_come_back_as_they_were(run: RunFolder):
    labels, probabilities = write_some_predictions(run)
    found = run.read_predictions()
    assert (found.paths, found.class_names) == (PATHS, NAMES)
    assert (found.labels == labels).all()
    assert (found.probabilities.astype(np.float32) == probabilities).all()
    expected = summarise(labels, probabilities)["loss"]["value"]
    assert summarise(found.labels, found.probabilities)["loss"]["value"] == pytest.approx(expected, abs=1e-6)


def test_predictions_name_class_prediction_and_confidence(run: RunFolder):
    run.write_predictions(["x.jpg", "y.jpg"], np.array([0, 0]), ["cat", "dog"], np.array([[0.75, 0.25], [0.5, 0.5625]]))
    with run.predictions.open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first == {
        **{"path": "x.jpg", "label": "cat", "prediction": "cat", "correct": "1", "confidence": "0.75"},
        **{"p:cat": "0.75", "p:dog": "0.25"},
    }
    assert (second["prediction"], second["correct"], second["confidence"]) == ("dog", "0", "0.5625")


@pytest.mark.parametrize(
    "text",
    ["", "path,label,p:cat\n", "path,p:cat\nx,1\n", "path,label,p:cat\nx,dog,1\n", "path,label,p:cat\nx,cat\n", "\0"],
)
def test_damaged_predictions_are_reported_by_name(run: RunFolder, text: str):
    write_some_predictions(run)
    run.predictions.write_text(text)
    with pytest.raises(InputError, match=r"predictions\.csv is damaged"):
        run.read_predictions()


def test_missing_predictions_are_reported_by_name(run: RunFolder):
    with pytest.raises(InputError, match=r"predictions\.csv is missing"):
        run.read_predictions()


def test_confusion_has_true_classes_down_and_predictions_across(run: RunFolder):
    run.write_confusion(np.array([[5, 1], [0, 7]]), ["cat", "dog"])
    assert run.confusion.read_text() == "true class,cat,dog\ncat,5,1\ndog,0,7\n"


def test_metrics_come_back_with_null_for_nan(run: RunFolder):
    run.write_metrics({"val": {"loss": math.nan, "acc": 0.5}, "list": [math.inf, 1], "epochs": 3, "device": "cpu"})
    assert run.read_metrics() == {
        "format": 1,
        "val": {"loss": None, "acc": 0.5},
        "list": [None, 1],
        "epochs": 3,
        "device": "cpu",
    }


def test_run_is_finished_once_its_metrics_are_whole(run: RunFolder):
    assert not run.finished
    run.write_metrics({"epochs": 3})
    assert run.finished
    run.metrics.write_text(run.metrics.read_text()[:-3])
    assert not run.finished
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        run.read_metrics()


def test_failed_write_keeps_the_old_file_and_leaves_no_other(run: RunFolder):
    run.write_metrics({"epochs": 3})
    with pytest.raises(UnicodeEncodeError):
        run.write_metrics({"name": "\ud800"})
    assert run.read_metrics()["epochs"] == 3
    assert [file.name for file in run.path.iterdir()] == ["metrics.json"]


def test_history_grows_by_one_row_an_epoch_and_comes_back_exactly(run: RunFolder):
    assert run.read_history() == []
    run.append_history(row(0))
    run.append_history(row(1, **{"train/loss": 0.1 + 0.2}))
    assert run.read_history() == [row(0), row(1, **{"train/loss": 0.1 + 0.2})]
    assert run.history.read_text().splitlines()[0] == "epoch,seconds,lr,train/loss,val/kappa"


def test_undefined_figures_become_empty_cells_and_nan_when_read(run: RunFolder):
    run.append_history(row(0, **{"val/kappa": math.nan}))
    assert run.history.read_text().endswith(",\n")
    assert math.isnan(run.read_history()[0]["val/kappa"])


def test_resuming_drops_the_epochs_that_are_done_again(run: RunFolder):
    run.truncate_history(0)
    for epoch in range(4):
        run.append_history(row(epoch))
    run.truncate_history(2)
    assert [item["epoch"] for item in run.read_history()] == [0, 1]
    run.truncate_history(0)
    assert run.read_history() == []
    run.append_history(row(0))
    assert run.read_history() == [row(0)]


def test_torn_last_line_of_the_history_is_left_out_and_overwritten(run: RunFolder):
    for epoch in range(3):
        run.append_history(row(epoch))
    run.history.write_text(run.history.read_text()[:-4])
    assert [item["epoch"] for item in run.read_history()] == [0, 1]
    run.append_history(row(2))
    assert run.read_history() == [row(0), row(1), row(2)]


@pytest.mark.parametrize(
    "text", ["epoch,lr\n0,x\n", "epoch,lr\n0\n", "epoch,lr\n0,1,2\n", "lr\n1\n", "epoch\nnan\n", "epoch,lr\n\0\n"]
)
def test_damaged_history_is_reported_by_name(run: RunFolder, text: str):
    run.append_history(row(0))
    run.history.write_text(text)
    with pytest.raises(InputError, match=r"history\.csv is damaged"):
        run.read_history()


def test_metrics_are_plain_json_for_other_programs(run: RunFolder):
    run.write_metrics(summarise(np.array([0]), np.array([[1.0, 0.0]])))
    assert json.loads(run.metrics.read_text(), parse_constant=pytest.fail)["n"] == 1
