import json
import os
import signal
import sys
import threading
import time
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
from kth_lightning.data.square import INTERPOLATIONS, RESIZES, Square
from kth_lightning.evaluation.novelty import Novelty
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN, FeatureHead
from kth_lightning.models.checkpoint import load_classifier
from kth_lightning.models.embedding import with_embedding
from kth_lightning.predict.export_graph import ImageClassifier


def run_onnx(file: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images})[0]


def run_pt2(file: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return torch.export.load(file).module()(torch.from_numpy(images)).numpy()


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    """Draw images [B, H, W, 3], each with a colour of its own."""
    rng = np.random.default_rng(shape)
    colours = rng.integers(0, 100, (shape[0], 1, 1, 3))
    return (colours + rng.integers(0, 156, (*shape, 3))).astype(np.uint8)


def probabilities(predictor: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    rows = [dict(prediction.top_k) for prediction in predictor(list(images), top_k=99)]
    return np.array([[row[name] for name in predictor.class_names] for row in rows])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("resize", RESIZES)
def test_images_are_resized_inside_as_pillow_does_to_the_last_bit(resize: str, interpolation: str, size: int) -> None:
    torch.manual_seed(0)
    model = BenchmarkCNN(5, (4,), (0.0,), image_size=size, interpolation=interpolation, resize=resize).eval()
    graph = ImageClassifier(model, temperature=1.0)
    for height, width in [(32, 48), (48, 32), (20, 20), (90, 70), (200, 40), (40, 200), (33, 31), (49, 47), (1, 7)]:
        images = noise(2, height, width)
        resized = [Square(size, interpolation, resize).pixels(Image.fromarray(item)) for item in images]
        with torch.no_grad():
            expected = model(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)).softmax(1)
            assert torch.equal(graph(torch.from_numpy(images)), expected)


def untrained(backbone: str, file: Path) -> Path:
    """Write the checkpoint of a feature head whose random weights tell noise of several colours apart."""
    torch.manual_seed(0)
    model = FeatureHead(3, backbone, "none", class_names=["a", "b", "c"], image_size=32)
    with torch.no_grad():
        model.head[1].weight.mul_(10)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "weights_sha256": ""}
    content |= {"class_path": "kth_lightning.models.head.FeatureHead", "format": 1, "complete": True}
    content |= {"pytorch-lightning_version": "2.6.4", "loops": {}, "callbacks": {}}
    torch.save(content | {"optimizer_states": [], "lr_schedulers": []}, file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("model", ["benchmark", "vgg19", "tf_efficientnet_lite0"])
def test_onnx_gives_pytorchs_probabilities_for_any_size_and_batch(
    model: str, tiny_run: RunFolder, tmp_path: Path
) -> None:
    checkpoint = tiny_run.best_checkpoint if model == "benchmark" else untrained(model, tmp_path / "head.ckpt")
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "model.onnx")])
    predictor = Predictor(checkpoint, "cpu")
    spread = []
    for shape in [(1, 32, 32), (3, 40, 30), (2, 17, 90), (1, 300, 200), (5, 64, 64)]:
        batch = noise(*shape)
        given = run_onnx(tmp_path / "model.onnx", batch)
        assert given.dtype == np.float32
        assert np.abs(given - probabilities(predictor, batch)).max() < 1e-4
        spread.append(given)
    assert np.ptp(np.concatenate(spread), axis=0).max() > 0.02


def beside_every_third(checkpoint: Path, files: list[Path], copy: Path) -> Path:
    """Write a checkpoint's copy whose novelty takes every third image for one that was not trained on."""
    content, model = torch.load(checkpoint, weights_only=True), load_classifier(checkpoint)
    pixels = torch.stack([torch.tensor(model.square.pixels(Image.open(file))) for file in files])
    with torch.no_grad():
        logits, vectors = with_embedding(model, pixels.permute(0, 3, 1, 2))
    known = torch.arange(len(files)) % 3 == 0
    fitted = Novelty.fit(vectors[~known], torch.arange(int((~known).sum())), (vectors[known], logits[known]))
    assert fitted is not None
    assert fitted.scores is not None
    torch.save(content | {"novelty": fitted.summary()}, copy)
    return copy


@pytest.mark.slow
def test_onnx_tells_pytorchs_novelty(
    tiny_run: RunFolder, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files = sorted(images.rglob("*.png"))
    checkpoint = beside_every_third(tiny_run.best_checkpoint, files, tmp_path / "model.ckpt")
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "model.onnx")])
    assert "classes and their novelty" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    batch = np.stack([np.asarray(Image.open(file)) for file in files])
    (given,) = session.run(["novelty"], {"images": batch})
    expected = np.array([item.novelty for item in Predictor(checkpoint, "cpu")(files)])
    assert given.dtype == np.float32
    assert np.abs(given - expected).max() < 0.05
    assert np.ptp(given) > 0.5

    old = torch.load(tiny_run.best_checkpoint, weights_only=True)
    del old["novelty"]
    torch.save(old, tmp_path / "old.ckpt")
    main(["export", "--ckpt_path", str(tmp_path / "old.ckpt"), "--output", str(tmp_path / "old.onnx")])
    assert "no summary of its training images" in capsys.readouterr().out
    assert [item.name for item in onnxruntime.InferenceSession(tmp_path / "old.onnx").get_outputs()] == [
        "probabilities"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_later_command_of_the_process_knows_the_model_by_its_name(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = untrained("tf_efficientnet_lite0", tmp_path / "head.ckpt")
    main(["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / f"model.{kind}")])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--model", "FeatureHead", "--print_config"])
    assert ended.value.code == 0
    assert "kth_lightning.FeatureHead" in capsys.readouterr().out


@pytest.mark.slow
def test_the_files_carry_their_labels_and_may_be_calibrated(
    tiny_run: RunFolder,
    images: Path,
    tmp_path: Path,
    change_checkpoint: Callable[..., Path],
    capsys: pytest.CaptureFixture,
) -> None:
    warm = change_checkpoint(tiny_run.best_checkpoint, tmp_path / "warm.ckpt", temperature=3.0)
    labels, batch = ["class0", "class1", "class2"], noise(2, 50, 40)
    check = ["--check", str(images / "class0"), str(images / "class1" / "00*.png")]
    main(["export", "--ckpt_path", str(warm), "--output", str(tmp_path / "m.onnx"), "--calibrated", "true", *check])
    assert "on 30 images given with --check" in capsys.readouterr().out
    main(["export", "--ckpt_path", str(warm), "--output", str(tmp_path / "new" / "m.pt2")])
    assert "drawn images" in capsys.readouterr().out

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == labels
    assert (metadata["image_size"], metadata["interpolation"], metadata["temperature"]) == ("32", "bicubic", "3.0")
    extra = {"metadata.json": ""}
    torch.export.load(tmp_path / "new" / "m.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["class_names"] == labels

    calibrated, plain = Predictor(warm, "cpu", calibrated=True), Predictor(warm, "cpu")
    assert np.abs(run_onnx(tmp_path / "m.onnx", batch) - probabilities(calibrated, batch)).max() < 1e-4
    for shape in [(2, 50, 40), (1, 90, 20), (4, 31, 33)]:
        given = run_pt2(tmp_path / "new" / "m.pt2", noise(*shape))
        assert np.abs(given - probabilities(plain, noise(*shape))).max() < 1e-5


@pytest.mark.slow
def test_the_test_images_of_the_run_are_what_it_is_checked_on(
    tiny_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["export", "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(tmp_path / "model.pt2")])
    assert "on 9 test images of its run" in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_that_disagrees_with_pytorch_does_not_stay(
    tiny_run: RunFolder, tmp_path: Path, change_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    broken = change_checkpoint(tiny_run.best_checkpoint, tmp_path / "large.ckpt", factor=1e30)
    with pytest.raises(SystemExit):
        main(["export", "--ckpt_path", str(broken), "--output", str(tmp_path / "model.pt2")])
    assert "differ from PyTorch's by nan" in capsys.readouterr().err.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["large.ckpt"]


@pytest.mark.slow
def test_a_command_that_is_told_to_end_leaves_nothing_behind(tiny_run: RunFolder, tmp_path: Path) -> None:
    def end() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.iterdir()):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end).start()
    with pytest.raises(SystemExit, match="130"):
        main(["export", "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(tmp_path / "model.pt2")])
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_bad_settings_are_refused_in_a_sentence(
    tiny_run: RunFolder,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("not a checkpoint")
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    good = str(tiny_run.best_checkpoint)
    for ckpt_path, output, flags, part in [
        (good, "model.tflite", [], ".onnx or .pt2"),
        (good, "file/model.pt2", [], "cannot write"),
        (str(tmp_path / "file"), "model.onnx", [], "not a checkpoint of kth_lightning"),
        (good, "model.pt2", ["--check", str(tmp_path / "nowhere")], "there is no file or folder"),
        (good, "model.pt2", ["--check", str(tmp_path / "*.png")], "none of the images"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(["export", "--ckpt_path", ckpt_path, "--output", str(tmp_path / output), *flags])
        assert stopped.value.code == 2
        assert part in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit):
        main(["export", "--ckpt_path", good, "--output", str(tmp_path / "model.onnx")])
    assert "run uv pip install '.[export]' in the clone" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"file", "text.png", "dot.png"}
