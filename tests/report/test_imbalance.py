import json
from pathlib import Path

import numpy as np
import pytest
from test_page import NAMES, Page, finished_run

from kth_lightning.evaluation.class_figures import class_figures
from kth_lightning.evaluation.statistics import accuracy_interval, macro_recall, summarise
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.split_file import SplitRow, write_split
from kth_lightning.report.page import write_report
from kth_lightning.report.table import Part, write_table

LABELS = np.array([0] * 20 + [1] * 6 + [2] * 4)
PATHS = [f"{NAMES[label]}/{row}.jpg" for row, label in enumerate(LABELS)]


def uneven_run(folder: Path, right: list[int], trained: list[int], model: str = "FeatureHead") -> RunFolder:
    """Write a run that gets so many of 20 cats, 6 dogs and 4 emus right, and was trained on so many images of each."""
    run = finished_run(folder, model=model)
    predictions = LABELS.copy()
    for label, count in enumerate(right):
        predictions[np.flatnonzero(label == LABELS)[count:]] = (label + 1) % 3
    probabilities = np.eye(3)[predictions] * 0.7 + 0.1
    run.write_predictions(PATHS, LABELS, NAMES, probabilities)
    metrics = run.read_metrics()
    run.write_metrics(metrics | {"test": metrics["test"] | summarise(LABELS, probabilities)})
    rows = [SplitRow(path, path.split("/")[0], f"{row:064x}", "test") for row, path in enumerate(PATHS)]
    for label, count in enumerate(trained):
        rows += [SplitRow(f"t{label}-{row}.jpg", NAMES[label], f"{label}{row:063x}", "train") for row in range(count)]
    write_split(rows, run.splits)
    return run


def test_macro_recall_and_classes_lead_where_classes_are_uneven(tmp_path: Path) -> None:
    run = uneven_run(tmp_path / "run", [20, 3, 2], [51, 30, 10])
    page = Page(write_report(run.path))
    heading = "The head on VGG19 classifies an average of 66.7 % of each class's test images correctly"
    assert page.html.count(f"<h1>{heading.replace(chr(39), '&#39;')}</h1>") == 1
    recall = run.read_metrics()["test"]["recall"]
    interval = f"{100 * recall['low']:.1f} to {100 * recall['high']:.1f} %"
    for sentence in (
        "counts every class alike, since the classes are uneven: 10 (emu) to 51 (cat) training images a class.",
        f"The 95 % interval of its macro recall on images like these is {interval}.",
        "In all it classifies 83.3 % of the test images correctly (95 % interval 66.4 to 92.7 %).",
    ):
        assert sentence in page.text
    assert page.row("model", "macro recall (95 % CI)", "accuracy (95 % CI)")
    assert page.row("head")[1] == f"66.7 % ({100 * recall['low']:.1f}–{100 * recall['high']:.1f})"
    bounds = ((50, *accuracy_interval(2, 4)), (40, *accuracy_interval(2, 5)))
    shares = [f"{share} % ({100 * low:.0f}–{100 * high:.0f})" for share, low, high in bounds]
    assert page.row("emu", "44 %")[2:] == [*shares, "4", "10", ""]
    assert page.html.index('-classes"') < page.html.index('-mistakes"')


def test_accuracy_leads_where_the_largest_class_has_five_times_the_smallest(tmp_path: Path) -> None:
    page = Page(write_report(uneven_run(tmp_path / "run", [20, 3, 2], [50, 30, 10]).path))
    assert "classifies 25 of 30 test images correctly" in page.text
    assert "macro recall" not in page.text
    assert page.html.index('-mistakes"') < page.html.index('-classes"')


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "best"), [([60, 30, 10], "Fine-tuned VGG19"), ([30, 30, 10], "The head on VGG19")])
def test_the_best_model_is_that_of_the_figure_that_leads(tmp_path: Path, trained: list[int], best: str) -> None:
    uneven_run(tmp_path / "head", [20, 4, 2], trained)
    uneven_run(tmp_path / "finetune", [16, 5, 4], trained, model="FineTuned")
    assert f"{best} does best and classifies" in Page(write_report(tmp_path)).text


def test_the_table_of_folds_has_the_figures_of_every_class(tmp_path: Path) -> None:
    runs = []
    for fold in range(2):
        runs.append(uneven_run(tmp_path / f"fold-{fold}" / "head", [20, 3 + fold, 2], [51, 30, 10]))
        rows = [SplitRow(path, path.split("/")[0], f"{fold}{row:063x}", "test") for row, path in enumerate(PATHS)]
        write_split(rows, runs[-1].splits)
    write_table([Part("head", runs)], tmp_path, reference=False)
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    predictions = [run.read_predictions() for run in runs]
    labels = np.concatenate([item.labels for item in predictions])
    named = np.concatenate([item.probabilities.argmax(axis=1) for item in predictions])
    assert entry["classes"] == class_figures(labels, named, NAMES, [""] * 60)
    assert entry["recall"]["low"] < macro_recall(labels, named) < entry["recall"]["high"]
