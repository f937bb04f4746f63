import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kth_lightning import Predictor
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.predict.doubt import Doubt


def probability_logits(values: np.ndarray) -> torch.Tensor:
    """Return logits [N, 3] whose softmax gives the first class these probabilities and the others equal ones."""
    return torch.from_numpy(np.stack([np.log(values), *[np.log((1 - values) / 2)] * 2], axis=1)).float()


@pytest.fixture(scope="module")
def middle(tiny_run: RunFolder, images: Path) -> float:
    """Give the probability that half of the predictions reach."""
    found = Predictor(tiny_run.best_checkpoint, "cpu")(sorted(images.rglob("*.png")))
    return float(np.median([prediction.probability for prediction in found]))


@pytest.fixture(scope="module")
def doubtful(tiny_run: RunFolder, middle: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a checkpoint whose validation images were classified correctly above that probability, and wrongly at it."""
    content = torch.load(tiny_run.best_checkpoint, weights_only=True)
    values = np.concatenate([np.linspace(middle, 0.9999, 151)[1:], np.full(50, middle)])
    content["validation"] = {"label": torch.tensor([0] * 150 + [1] * 50), "logits": probability_logits(values)}
    file: Path = tmp_path_factory.mktemp("checkpoints") / "doubtful.ckpt"
    torch.save(content, file)
    return file


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def predict(checkpoint: Path, images: Path, output: Path, *flags: object) -> list[dict[str, str]]:
    where = ["--ckpt_path", str(checkpoint), "--output", str(output), "--accelerator", "cpu"]
    main(["predict", str(images), *where, *map(str, flags)])
    return rows(output)


def test_labels_that_are_not_sure_enough_are_unknown(
    doubtful: Path, middle: float, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plain = predict(doubtful, images, tmp_path / "plain.csv")
    table = predict(doubtful, images, tmp_path / "sure.csv", "--min_accuracy", 0.97)
    printed = capsys.readouterr().out
    assert "150 of the 200 validation images; 150 of these are right" in printed
    unknown = [row["label"] == "unknown" for row in table]
    assert 20 < sum(unknown) < 40
    assert f"60 of 60 images classified, {sum(unknown)} of them unknown" in printed
    for row, other, withheld in zip(table, plain, unknown, strict=True):
        assert withheld == (float(row["probability"]) <= middle * (1 + 1e-5))
        assert (row["most_probable"], row["probability"]) == (other["label"], other["probability"])
        assert withheld or row["label"] == row["most_probable"]
    assert "most_probable" not in plain[0]
    given = predict(doubtful, images, tmp_path / "given.csv", "--min_probability", middle * (1 + 1e-5))
    assert [row["label"] for row in given] == [row["label"] for row in table]
    python = Predictor(doubtful, "cpu", min_accuracy=0.97)(sorted(images.rglob("*.png")))
    assert [prediction.label for prediction in python] == [row["label"] for row in table]
    assert all(prediction.label in ("unknown", prediction.top_k[0][0]) for prediction in python)


def test_sets_hold_the_most_probable_class_and_more_where_it_is_doubtful(
    doubtful: Path, images: Path, tmp_path: Path
) -> None:
    table = predict(doubtful, images, tmp_path / "sets.csv", "--coverage", 0.9)
    sets = [row["set"].split(" | ") for row in table]
    assert [classes[0] for classes in sets] == [row["label"] for row in table]
    assert {len(classes) for classes in sets} > {1}
    where = ["--ckpt_path", str(doubtful), "--output", str(tmp_path / "sets.jsonl"), "--accelerator", "cpu"]
    main(["predict", str(images), *where, "--coverage", "0.9"])
    lines = [json.loads(line) for line in (tmp_path / "sets.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["set"] for line in lines] == sets
    python = Predictor(doubtful, "cpu", coverage=0.9)(sorted(images.rglob("*.png")))
    assert [list(prediction.set or ()) for prediction in python] == sets
    assert Predictor(doubtful, "cpu")(sorted(images.rglob("*.png"))[0]).set is None


def test_a_promise_for_no_class_alone_is_left_out(tiny_run: RunFolder, doubtful: Path) -> None:
    (few,) = Predictor(tiny_run.best_checkpoint, "cpu", coverage=0.9).doubt.notes
    assert few.endswith("9 validation images, on average over draws of these")
    (many,) = Predictor(doubtful, "cpu", coverage=0.9).doubt.notes
    assert many.endswith("for 1 of the 3 classes, which has enough of them, also of the class's images alone")


def test_wishes_that_cannot_be_had_are_refused_with_what_they_need(
    tiny_run: RunFolder, doubtful: Path, images: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    def refused(checkpoint: Path, *flags: object) -> str:
        return refusal("predict", images, "--ckpt_path", checkpoint, "--output", tmp_path / "out.csv", *flags)

    few = refused(tiny_run.best_checkpoint, "--min_accuracy", 0.97)
    assert "takes 99 validation images at least" in few
    assert "the checkpoint has 9" in few
    assert "; train with more of them (--data.val_size)" in few
    assert "takes 19 validation images at least" in refused(tiny_run.best_checkpoint, "--coverage", 0.95)
    assert "give --coverage 0.9 or less" in refused(tiny_run.best_checkpoint, "--coverage", 0.95)
    assert "give a share between 0 and 1" in refused(doubtful, "--min_accuracy", 97)
    assert "do not go together" in refused(doubtful, "--min_accuracy", 0.9, "--min_probability", 0.9)
    content = torch.load(doubtful, weights_only=True)
    content["validation"]["label"] = torch.ones(200, dtype=torch.int64)
    torch.save(content, tmp_path / "wrong.ckpt")
    assert "do not show it at any threshold" in refused(tmp_path / "wrong.ckpt", "--min_accuracy", 0.97)
    content["validation"]["label"] = torch.full((200,), 7)
    torch.save(content, tmp_path / "damaged.ckpt")
    assert "are damaged" in refused(tmp_path / "damaged.ckpt", "--coverage", 0.9)
    del content["validation"]
    torch.save(content, tmp_path / "old.ckpt")
    for flag in ("--min_accuracy", "--coverage"):
        line = refused(tmp_path / "old.ckpt", flag, 0.9)
        assert "train it again with fit --config RUN/config.yaml" in line
    assert Predictor(tmp_path / "old.ckpt", "cpu", min_probability=0.999).doubt.threshold == 0.999
    with pytest.raises(InputError, match="takes 99"):
        Predictor(tiny_run.best_checkpoint, "cpu", min_accuracy=0.97)
    assert not (tmp_path / "out.csv").exists()


def test_a_run_keeps_its_validation_logits_and_measures_its_promises_on_the_test_images(tiny_run: RunFolder) -> None:
    kept = torch.load(tiny_run.best_checkpoint, weights_only=True)["validation"]
    assert kept["label"].shape == (9,)
    assert kept["logits"].shape == (9, 3)
    metrics, predictions = tiny_run.read_metrics(), tiny_run.read_predictions()
    trust = metrics["trust"]
    assert trust["validation_images"] == 9
    assert [row["threshold"] for row in trust["min_accuracy"]] == [None] * 4
    assert [row["needs"] for row in trust["min_accuracy"]] == [59, 99, 149, 299]
    first = trust["sets"][0]
    assert (first["promised"], first["n"]) == (0.9, len(predictions.labels))
    assert first["hits"] >= (predictions.probabilities.argmax(1) == predictions.labels).sum()
    assert trust["sets"][1]["hits"] is None
    assert metrics["test"]["aurc"]["value"] >= 0
    with (tiny_run.figures / "risk_coverage.csv").open(encoding="utf-8", newline="") as stream:
        curve = list(csv.DictReader(stream))
    assert float(curve[-1]["coverage"]) == 1
    assert int(float(curve[-1]["mistakes"])) == (predictions.probabilities.argmax(1) != predictions.labels).sum()
    assert "What it can decide alone" in tiny_run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("flag", ["min_accuracy", "min_probability"])
def test_a_class_that_is_called_unknown_is_refused_by_the_flag_that_was_given(flag: str) -> None:
    given = dict.fromkeys(("min_accuracy", "min_probability", "coverage")) | {flag: 0.9}
    with pytest.raises(InputError, match=f"^--{flag}: the checkpoint has a class 'unknown'"):
        Doubt({}, ["cat", "unknown"], 1.0, **given)
