"""Groups from the flag to the report: `fit`, `compare` beside a random split, and `test` on further places."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.evaluation.clusters import clustered_accuracy_interval
from kth_lightning.evaluation.selective import risk_coverage
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

SITES = 6
PLACES = ["--data.class_level", "1", "--data.group_by", "parent:1"]
RECIPE = {
    "model": {"class_path": "BenchmarkCNN", "init_args": {"filters": [4, 8], "block_dropout": [0, 0]}},
    "data": {"image_size": 32, "class_level": 1, "group_by": "parent:1"},
    "trainer": {"max_epochs": 2},
}


def draw(root: Path, sites: range) -> Path:
    rng = np.random.default_rng(sites.start)
    for site in sites:
        for number in range(8):
            file = root / ("red", "green")[number % 2] / f"site{site}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.random((40, 40, 3)) * 160 + np.eye(3)[number % 2] * 60
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("groups") / "images", range(SITES))


@pytest.fixture(scope="module")
def comparison(root: Path) -> Path:
    folder = root.parent
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    flags = ["--models", str(folder / "tiny.yaml"), "--data.root", str(root), *PLACES]
    flags += [
        "--trainer.accelerator",
        "cpu",
        "--data.test_size",
        "0.34",
        "--data.val_size",
        "0.34",
        "--also_random_split",
        "true",
    ]
    main(["compare", *flags, "--run_dir", str(folder / "comparison")])
    return folder / "comparison"


def sites(run: RunFolder) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with run.splits.open() as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["path"].split("/")[1], set()).add(row["part"])
    return found


def test_places_are_whole_in_the_split_and_parted_in_the_random_one(comparison: Path) -> None:
    assert all(len(parts) == 1 for parts in sites(RunFolder(comparison / "tiny")).values())
    assert any(len(parts) > 1 for parts in sites(RunFolder(comparison / "random-split/tiny")).values())


def test_intervals_are_over_places_and_the_worst_is_named(comparison: Path) -> None:
    run = RunFolder(comparison / "tiny")
    test, predictions = run.read_metrics()["test"], run.read_predictions()
    places = [path.split("/")[1] for path in predictions.paths]
    assert predictions.groups == places
    right = predictions.probabilities.argmax(1) == predictions.labels
    numbers = np.unique(places, return_inverse=True)[1]
    assert (test["acc"]["low"], test["acc"]["high"]) == clustered_accuracy_interval(right, numbers)
    assert test["groups"]["n"] == len({*places})
    assert {row["group"]: row["correct"] for row in test["groups"]["figures"]} == {
        place: int(right[np.array(places) == place].sum()) for place in places
    }
    page = run.report.read_text()
    assert "Figures by group, the worst first" in page
    assert f"images of further groups like these {len({*places})}" in page
    random = RunFolder(comparison / "random-split/tiny")
    assert "groups" not in random.read_metrics()["test"]
    assert "group" not in random.predictions.read_text().splitlines()[0].split(",")


def test_what_is_decided_and_covered_has_intervals_over_places(comparison: Path) -> None:
    run = RunFolder(comparison / "tiny")
    metrics, predictions = run.read_metrics(), run.read_predictions()
    places = len({*predictions.groups})
    covered = metrics["trust"]["sets"][0]
    assert sum(times for *_, times in covered["groups"]) == places
    assert sum(hits * times for _, hits, times in covered["groups"]) == covered["hits"]
    low, high = (covered["coverage"][bound] for bound in ("low", "high"))
    wilsons = accuracy_interval(covered["hits"], covered["n"])
    assert low < wilsons[0]
    assert f"({100 * low:.1f}–{100 * high:.1f})" in run.report.read_text()
    random = RunFolder(comparison / "random-split/tiny").read_metrics()["trust"]["sets"][0]
    assert random["groups"] is None
    assert random["coverage"]["low"] == accuracy_interval(random["hits"], random["n"])[0]
    curve = metrics["test"]["aurc"]
    alone = risk_coverage(predictions.probabilities.max(1), predictions.probabilities.argmax(1) == predictions.labels)
    assert curve["value"] == pytest.approx(alone.area["value"])
    assert (curve["low"], curve["high"]) != (alone.area["low"], alone.area["high"])


def test_what_a_random_split_would_have_said_stands_in_a_line(comparison: Path) -> None:
    (row,) = json.loads((comparison / "random_split.json").read_text())
    accuracies = [RunFolder(comparison / part).read_metrics()["test"]["acc"] for part in ("tiny", "random-split/tiny")]
    assert [row["acc"], row["acc_random_split"]] == accuracies
    said = f"accuracy on a random split {100 * accuracies[1]['value']:.1f} % ("
    assert said in (comparison / "report.html").read_text()


def test_further_places_are_tested_with_groups_too(
    comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    new = draw(tmp_path / "new", range(20, 23))
    checkpoint = comparison / "tiny/checkpoints/best.ckpt"
    flags = ["--data.root", str(new), *PLACES, "--trainer.accelerator", "cpu"]
    main(["test", "--ckpt_path", str(checkpoint), *flags, "--run_dir", str(tmp_path / "folder")])
    assert "groups: 3 (the interval is over groups); the worst is site2" in capsys.readouterr().out
    metrics = RunFolder(tmp_path / "folder").read_metrics()
    assert len(metrics["test"]["groups"]["figures"]) == 3


def test_a_comparison_with_a_random_split_needs_groups(
    images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    line = refusal("compare", "--data.root", images, "--also_random_split", "true", "--run_dir", tmp_path / "run")
    assert "the images have no groups" in line
    assert not (tmp_path / "run").exists()
