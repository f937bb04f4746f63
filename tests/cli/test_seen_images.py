"""`test` on images among which are some that the checkpoint has seen, or was tested on by its own run."""

import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.evaluation.statistics import accuracy_interval
from kth_lightning.io.run_folder import RunFolder

FURTHER, TRAINED, CHOSEN, TESTED = 12, 42, 9, 9


def evaluate(command: str, run: RunFolder, folder: Path, *flags: object) -> RunFolder:
    checkpoint = ["--ckpt_path", str(run.best_checkpoint), "--trainer.accelerator", "cpu"]
    main([command, *checkpoint, "--run_dir", str(folder), *map(str, flags)])
    return RunFolder(folder)


def told(evaluation: RunFolder) -> Any:
    return evaluation.read_metrics()["evaluation"]


def words(file: Path) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", file.read_text(), flags=re.S)))


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw images whose colours are those of the next class, so that a good classifier is wrong."""
    root, rng = tmp_path_factory.mktemp("further") / "images", np.random.default_rng(7)
    for number in range(3):
        (root / f"class{number}").mkdir(parents=True)
        for image in range(FURTHER // 3):
            pixels = rng.random((64, 64, 3)) * 130 + np.eye(3)[(number + 1) % 3] * 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class{number}" / f"later{image}.png")
    return root


@pytest.fixture(scope="module")
def grown(tiny_run: RunFolder, images: Path, further: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Test on the run's own folder after further images have come into it."""
    root = tmp_path_factory.mktemp("grown")
    shutil.copytree(images, root / "images")
    shutil.copytree(further, root / "images", dirs_exist_ok=True)
    return evaluate("test", tiny_run, root / "evaluation", "--data.root", root / "images")


def test_a_folder_that_has_grown_is_compared_by_its_further_images_alone(
    tiny_run: RunFolder, grown: RunFolder, further: Path, tmp_path: Path
) -> None:
    alone = evaluate("test", tiny_run, tmp_path / "alone", "--data.root", further)
    own = told(grown)["own_test"]
    assert own == told(alone)["own_test"]
    assert own["compared"] == {"n": FURTHER, "acc": alone.read_metrics()["test"]["acc"]}
    assert own["difference"]["value"] == own["compared"]["acc"]["value"] - own["acc"]["value"]
    assert own["difference"]["high"] < 0


def test_the_images_of_the_runs_own_test_are_counted_and_named(grown: RunFolder) -> None:
    seen = told(grown)["seen"]
    assert [seen[name] for name in ("trained", "chosen", "tested")] == [TRAINED, CHOSEN, TESTED]
    assert seen["new"]["n"] == TESTED + FURTHER
    assert f"{TESTED} of these are in the run's own test" in words(grown.report)
    assert f"{TESTED} of the {TESTED + FURTHER} unseen ones are in its run's own test." in words(grown.report)


def test_the_report_begins_with_the_unseen_images_and_warns_of_the_others(grown: RunFolder) -> None:
    page, number = words(grown.report), TRAINED + CHOSEN + TESTED + FURTHER
    acc = told(grown)["seen"]["new"]["acc"]
    right = round(acc["value"] * (TESTED + FURTHER))
    low, high = accuracy_interval(right, TESTED + FURTHER)
    title = f"The benchmark CNN classifies {right} of {TESTED + FURTHER} unseen images correctly"
    assert page.count(title) == 2
    lead = page.split(title)[2].split("Result")[0]
    assert f"It was trained on {TRAINED} of the {number} images here, and its epoch was chosen by {CHOSEN}:" in lead
    assert f"on images like the unseen ones is {100 * low:.1f} to {100 * high:.1f} %." in lead
    of_all = f"Of all {number} images here, {TRAINED + CHOSEN} of which were seen in training."
    assert page.count(of_all) == 4  # mistakes, confusions, classes, calibration
    assert f"The tables are of the {TESTED + FURTHER} unseen images; the curve and its area are of all" in page
    assert f"benchmark, {TESTED + FURTHER} unseen {100 * acc['value']:.1f} %" in page


def test_where_no_image_is_new_there_is_nothing_to_compare_with(
    tiny_run: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = evaluate("test", tiny_run, tmp_path / "test", "--data.root", images)
    assert f"the report begins with the {TESTED} others" in capsys.readouterr().err
    validated = evaluate("validate", tiny_run, tmp_path / "validate")
    for evaluation in (own, validated):
        assert told(evaluation)["own_test"].startswith("there is nothing to compare with the run's own test")
    printed = capsys.readouterr().out
    assert f"images: {CHOSEN}, all of which were used to choose the epoch" in printed
    assert "higher" not in printed
    assert f"of {CHOSEN} images correctly, all of which were used to choose" in words(validated.report)


def test_of_one_image_no_plural_and_no_promise_is_told(
    tiny_run: RunFolder, further: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source in (("wrong", "class1"), ("right", "class0")):
        (tmp_path / name / "class1").mkdir(parents=True)
        shutil.copy(further / source / "later0.png", tmp_path / name / "class1")
        one = evaluate("test", tiny_run, tmp_path / f"{name}-test", "--data.root", tmp_path / name)
        page = words(one.report)
        assert "% of 1 image (95 % interval" in capsys.readouterr().out
        assert "of 1 test image correctly" in page
        assert "1 images" not in page
        assert "1 test images" not in page
        assert one.read_metrics()["trust"]["sets"][0]["verdict"] == "open"
        assert "cannot be told" in page
