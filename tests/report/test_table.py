import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from kth_lightning.errors import InputError
from kth_lightning.evaluation.statistics import accuracy_interval, summarise
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.report.table import Part, table, write_table

NAMES = ["cat", "dog", "emu"]


def finished_run(folder: Path, paths: list[str], correct: int, **changed: object) -> RunFolder:
    """Write a run that gets the first `correct` of its images right."""
    labels = np.arange(len(paths)) % 3
    predictions = np.where(np.arange(len(paths)) < correct, labels, (labels + 1) % 3)
    probabilities = np.eye(3)[predictions] * 0.7 + 0.1
    run = RunFolder(folder)
    run.write_predictions(paths, labels, NAMES, probabilities)
    costs = {"seconds_per_epoch": 8.9, "best_epoch": 23, "epochs": 29, "parameters_trained": 9747}
    run.write_metrics({"test": summarise(labels, probabilities), **costs, "seconds_total": 259.6} | changed)
    return run


def images(first: int, last: int) -> list[str]:
    return [f"{position}.jpg" for position in range(first, last)]


def cells(markdown: str, title: str) -> list[str]:
    (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {title} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_row_holds_a_runs_figures(tmp_path: Path):
    run = finished_run(tmp_path / "a", images(0, 100), 95)
    markdown = table([Part("head", [run])], reference=False)
    test = run.read_metrics()["test"]
    assert cells(markdown, "head") == [
        *("head", "8.9", f"{test['loss']['value']:.3f}", "95.0 % (88.8–97.8)", f"{test['kappa']['value']:.4f}"),
        *("23", "29", "9,747", "259.6 s"),
    ]
    assert "article" not in markdown


def test_article_stands_below_each_model_with_its_interval(tmp_path: Path):
    names = ("benchmark", "head", "finetune")
    parts = [Part(name, [finished_run(tmp_path / name, images(0, 30), 20)]) for name in names]
    markdown = table(parts, reference=True)
    rows = [line.split("|")[1].strip() for line in markdown.splitlines() if line.startswith("|")][2:]
    assert rows == ["benchmark", "(article)", "head", "(article)", "finetune", "(article)"]
    low, high = accuracy_interval(112, 140)
    assert f" 80 % ({100 * low:.1f}–{100 * high:.1f}) | 0.7890 |         24 |     30 |      9,448,979 |" in markdown
    assert "GPU of 2017" in markdown


def test_folds_are_averaged_and_their_predictions_pooled(tmp_path: Path):
    runs = [
        finished_run(tmp_path / "fold-0", images(0, 30), 30, epochs=10),
        finished_run(tmp_path / "fold-1", images(30, 60), 24, epochs=14),
    ]
    markdown = write_table([Part("head", runs)], tmp_path, reference=False)
    low, high = accuracy_interval(54, 60)
    assert cells(markdown, "head")[3] == f"90.0 % ({100 * low:.1f}–{100 * high:.1f})"
    assert cells(markdown, "head")[6] == "12"
    assert cells(markdown, "± sd (2)")[3] == f"{100 * statistics.stdev([1, 0.8]):.1f} %"
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    assert entry["n"] == 60
    assert entry["kappa"]["low"] < entry["kappa"]["value"] < entry["kappa"]["high"]
    assert "all these runs" in markdown


def test_seeds_make_no_more_images_of_those_that_were_tested(tmp_path: Path):
    runs = [finished_run(tmp_path / f"seed-{seed}", images(0, 60), 49 + seed) for seed in range(3)]
    markdown = write_table([Part("head", runs)], tmp_path, reference=False)
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    assert entry["n"] == 60
    assert entry["acc"]["value"] == pytest.approx(50 / 60)
    of_sixty = accuracy_interval(50, 60)
    assert (entry["acc"]["low"], entry["acc"]["high"]) == pytest.approx(of_sixty, abs=0.02)
    assert cells(markdown, "head")[3].startswith("83.3 % (7")
    assert cells(markdown, "± sd (3)")[3] == "1.7 %"
    assert "folds" not in markdown


def test_one_mistake_that_all_seeds_make_is_one_mistake(tmp_path: Path):
    runs = [finished_run(tmp_path / f"seed-{seed}", images(0, 60), 59) for seed in range(3)]
    write_table([Part("head", runs)], tmp_path, reference=False)
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    low, high = accuracy_interval(59, 60)
    assert entry["acc"]["low"] <= low
    assert entry["acc"]["high"] >= high


def test_table_fits_a_terminal_of_120_columns(tmp_path: Path):
    costs = {"parameters_trained": 143_667_240, "seconds_total": 36_000.0, "seconds_per_epoch": 1234.5, "epochs": 500}
    runs = [finished_run(tmp_path / str(k), images(30 * k, 30 * k + 30), 30, **costs) for k in range(10)]
    markdown = table([Part("benchmark", runs), Part("finetune", runs[:1])], reference=True)
    assert max(len(line) for line in markdown.splitlines()) <= 120
    assert "100.0 % (" in markdown


def test_undefined_figures_are_dashes(tmp_path: Path):
    run = finished_run(tmp_path / "a", images(0, 1), 1, seconds_per_epoch=None)
    row = cells(table([Part("head", [run])], reference=False), "head")
    assert (row[1], row[4]) == ("–", "–")


def test_cross_entropy_after_temperature_scaling_stands_below_the_table(tmp_path: Path):
    def scaled(folder: Path, loss: float) -> RunFolder:
        run = finished_run(folder, images(0, 30), 20)
        metrics = run.read_metrics()
        metrics["test"]["loss_calibrated"] = loss
        run.write_metrics(metrics)
        return run

    parts = [
        Part("benchmark", [finished_run(tmp_path / "benchmark", images(0, 30), 20)]),
        Part("head", [scaled(tmp_path / "a", 0.12)]),
        Part("finetune", [scaled(tmp_path / "b", 0.08), scaled(tmp_path / "c", 0.1)]),
    ]
    below = write_table(parts, tmp_path, reference=False).splitlines()
    assert "cross-entropy after temperature scaling, fitted on validation: head 0.12, finetune 0.09" in below
    entries = json.loads((tmp_path / "table.json").read_text())
    assert entries[0]["loss_calibrated"]["value"] is None
    assert entries[2]["loss_calibrated"] == {
        "value": pytest.approx(0.09),
        "sd": pytest.approx(statistics.stdev([0.08, 0.1])),
    }


def test_files_hold_the_table_and_every_figure(tmp_path: Path):
    run = finished_run(tmp_path / "a", images(0, 100), 95)
    markdown = write_table([Part("head", [run])], tmp_path / "out", reference=True)
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == markdown + "\n"
    (entry,) = json.loads((tmp_path / "out" / "table.json").read_text())
    test = run.read_metrics()["test"]
    assert entry["acc"] == test["acc"] | {"sd": None}
    assert entry["recall"] == test["recall"] | {"sd": None}
    assert entry["parameters_trained"] == {"value": 9747, "sd": None}
    assert (entry["model"], entry["runs"], entry["n"]) == ("head", 1, 100)
    assert entry["article"]["seconds_total"] == 40.83


def test_run_without_figures_is_reported_by_name(tmp_path: Path):
    with pytest.raises(InputError, match=r"metrics\.json is missing"):
        table([Part("head", [RunFolder(tmp_path)])], reference=False)
    RunFolder(tmp_path).write_metrics({"test": None, "epochs": 3})
    with pytest.raises(InputError, match=r"metrics\.json has no seconds_per_epoch, .*test/kappa"):
        table([Part("head", [RunFolder(tmp_path)])], reference=False)


def test_folds_of_different_classes_are_refused(tmp_path: Path):
    runs = [finished_run(tmp_path / "a", images(0, 9), 9), finished_run(tmp_path / "b", images(9, 18), 9)]
    runs[1].write_predictions(["z.jpg"], np.array([0]), ["cat", "yak"], np.array([[0.9, 0.1]]))
    with pytest.raises(InputError, match="other classes"):
        table([Part("head", runs)], reference=False)


def test_models_whose_images_have_masks_are_compared_by_where_they_look(tmp_path: Path):
    def located(folder: Path, pointing: float) -> RunFolder:
        run = finished_run(folder, images(0, 30), 20)
        metrics = run.read_metrics()
        bounds = {"low": pointing - 0.1, "high": pointing + 0.1}
        metrics["test"]["localisation"] = {"n": 25} | {
            name: {"value": value} | bounds
            for name, value in (("pointing", pointing), ("iou_mask", 0.4), ("iou_box", 0.5))
        }
        metrics["test"]["localisation"]["whole_picture"] = {"pointing": 0.25, "iou_mask": 0.25, "iou_box": 0.3}
        run.write_metrics(metrics)
        return run

    parts = [
        Part("benchmark", [finished_run(tmp_path / "benchmark", images(0, 30), 20)]),
        Part("head", [located(tmp_path / "head", 0.8)]),
        Part("finetune", [located(tmp_path / "a", 0.7), located(tmp_path / "b", 0.9)]),
    ]
    below = write_table(parts, tmp_path, reference=False).partition("activation maps")[2]
    assert cells(below, "head") == ["head", "25", "80.0 % (70.0–90.0)", "0.400", "0.500"]
    assert cells(below, "finetune") == ["finetune", "25", "80.0 %", "0.400", "0.500"]
    assert cells(below, "(whole image)") == ["(whole image)", "25", "25.0 %", "0.250", "0.300"]
    assert "benchmark" not in below
    assert max(len(line) for line in below.splitlines()) <= 120
    assert json.loads((tmp_path / "table.json").read_text())[2]["localisation"]["pointing"]["sd"] > 0.1


def test_value_and_interval_of_uneven_folds_are_of_the_same_predictions(tmp_path: Path):
    runs = [
        finished_run(tmp_path / "fold-0", images(0, 10), 5),
        finished_run(tmp_path / "fold-1", images(10, 210), 195),
    ]
    write_table([Part("head", runs)], tmp_path, reference=False)
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    for score in ("acc", "kappa", "recall", "loss"):
        assert entry[score]["low"] <= entry[score]["value"] <= entry[score]["high"]
    assert entry["acc"]["value"] == pytest.approx(200 / 210)
