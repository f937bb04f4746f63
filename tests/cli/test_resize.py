"""Shapes of images other than the stretched square, from training to the exported file."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from PIL import Image

from kth_lightning import Predictor
from kth_lightning.cli.main import main
from kth_lightning.data.images import read_rgb
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models.checkpoint import load_classifier

pytestmark = pytest.mark.slow

SMALL = ["--model", "BenchmarkCNN", "--model.filters", "[8,16]", "--model.block_dropout", "[0,0]"]
SMALL += ["--model.optimizer.lr", "0.01", "--data.image_size", "32", "--trainer.max_epochs", "2"]
CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32"]
SHAPES = ("letterbox", "crop")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw images of 72x40 pixels whose two classes differ in the middle alone."""
    root, rng = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    for label in (0, 1):
        (root / f"class{label}").mkdir()
        for number in range(20):
            pixels = rng.integers(0, 90, (40, 72, 3))
            pixels[:, 20:52, label] += 140
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"class{label}" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def fitted(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    runs = {}
    for resize in SHAPES:
        folder = tmp_path_factory.mktemp("runs") / resize
        flags = ["--data.root", str(wide), "--data.resize", resize, "--run_dir", str(folder)]
        main(["fit", *SMALL, *CPU, *flags])
        runs[resize] = RunFolder(folder)
    return runs


def by_hand(resize: str, image: Image.Image) -> npt.NDArray[np.uint8]:
    """Make an image of 72x40 pixels a square of 32 with the words of Pillow alone."""
    if resize == "crop":
        return np.asarray(image.crop((16, 0, 56, 40)).resize((32, 32), Image.Resampling.BILINEAR))
    square = Image.new("RGB", (32, 32), (124, 116, 104))
    square.paste(image.resize((32, 18), Image.Resampling.BILINEAR), (0, 7))
    return np.asarray(square)


@pytest.mark.parametrize("resize", SHAPES)
def test_the_checkpoint_alone_repeats_what_the_run_saw(resize: str, fitted: dict[str, RunFolder], wide: Path) -> None:
    run = fitted[resize]
    written, predictor = run.read_predictions(), Predictor(run.best_checkpoint, "cpu")
    assert (predictor.model.resize, predictor.model.square.resize) == (resize, resize)
    files = [wide / path for path in written.paths]
    found = [[dict(item.top_k)[name] for name in written.class_names] for item in predictor(files)]
    np.testing.assert_allclose(found, written.probabilities, atol=1e-6)
    pixels = np.stack([by_hand(resize, read_rgb(file)) for file in files])
    with torch.no_grad():
        expected = predictor.model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).softmax(1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(written.probabilities[:, 0]) > 0.001


@pytest.mark.parametrize("resize", ["letterbox", pytest.param("crop", marks=pytest.mark.slow)])
def test_new_images_are_tested_and_explained_in_the_checkpoints_shape(
    resize: str, fitted: dict[str, RunFolder], wide: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    checkpoint = fitted[resize].best_checkpoint
    test = ["test", "--ckpt_path", str(checkpoint), "--data.root", str(wide), "--run_dir", str(tmp_path / "test"), *CPU]
    main(test)
    written = RunFolder(tmp_path / "test").read_predictions()
    rows = Predictor(checkpoint, "cpu")([wide / path for path in written.paths])
    expected = [[dict(item.top_k)[name] for name in written.class_names] for item in rows]
    np.testing.assert_allclose(written.probabilities, expected, atol=1e-6)
    assert f"trained with {resize}; leave it out" in refusal(*test, "--data.resize", "squash")
    image, folder = str(wide / "class0" / "0.png"), tmp_path / "maps"
    main(["explain", image, "--ckpt_path", str(checkpoint), "--output", str(folder), "--accelerator", "cpu"])
    with (folder / "explain.csv").open(encoding="utf-8-sig", newline="") as stream:
        (row,) = csv.DictReader(stream)
    with Image.open(folder / row["overlay"]) as drawn:
        assert drawn.width == 360
    assert float(row["probability"]) == pytest.approx(Predictor(checkpoint, "cpu")(image).probability, abs=1e-5)


@pytest.mark.parametrize(
    ("resize", "kind"), [("letterbox", "onnx"), pytest.param("crop", "pt2", marks=pytest.mark.slow)]
)
def test_an_exported_file_takes_images_of_any_shape_as_the_run_did(
    resize: str, kind: str, fitted: dict[str, RunFolder], tmp_path: Path
) -> None:
    checkpoint, file = fitted[resize].best_checkpoint, tmp_path / f"model.{kind}"
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(file)])
    if kind == "onnx":
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
    else:
        extra = {"metadata.json": ""}
        program = torch.export.load(file, extra_files=extra).module()
        metadata = json.loads(extra["metadata.json"])
    assert metadata["resize"] == resize
    predictor, rng = Predictor(checkpoint, "cpu"), np.random.default_rng(0)
    for shape in ((40, 72), (72, 40), (33, 33), (400, 17), (18, 300)):
        batch = rng.integers(0, 256, (2, *shape, 3), dtype=np.uint8)
        expected = [[dict(item.top_k)[name] for name in predictor.class_names] for item in predictor(list(batch))]
        given = session.run(["probabilities"], {"images": batch})[0] if kind == "onnx" else program(torch.tensor(batch))
        np.testing.assert_allclose(given, expected, atol=1e-6)


def test_a_run_keeps_its_shape(fitted: dict[str, RunFolder], wide: Path, refusal: Callable[..., str]) -> None:
    run, same = fitted["crop"], ["fit", *SMALL, *CPU, "--data.root", str(wide), "--run_dir", str(fitted["crop"].path)]
    before = run.metrics.read_bytes()
    main([*same, "--data.resize", "crop"])
    assert run.metrics.read_bytes() == before
    assert "data.resize" in refusal(*same, "--data.resize", "letterbox")


def test_a_run_of_before_there_were_shapes_squashed(
    fitted: dict[str, RunFolder], wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = RunFolder(Path(shutil.copytree(fitted["crop"].path, tmp_path / "run")))
    run.config.write_text(run.config.read_text().replace("  resize: crop\n", ""))
    main(["fit", *SMALL, *CPU, "--data.root", str(wide), "--run_dir", str(run.path)])
    assert "is finished" in capsys.readouterr().err


def test_a_checkpoint_without_a_shape_squashes(fitted: dict[str, RunFolder], tmp_path: Path) -> None:
    old = torch.load(fitted["crop"].best_checkpoint, weights_only=True)
    del old["hyper_parameters"]["resize"]
    torch.save(old, tmp_path / "old.ckpt")
    assert load_classifier(tmp_path / "old.ckpt").resize == "squash"
