import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from kth_lightning import ImageData, compare_onnx, quantize_onnx
from kth_lightning.cli.main import main
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder

pytestmark = pytest.mark.slow

Both = tuple[Path, Path]
PAGE = Path(__file__).parents[2] / "docs" / "int8.md"


def run_onnx(file: Path, image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image[None]})


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def moved(tiny_run: RunFolder, images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Copy a run whose images are no longer where they were."""
    folder = tmp_path_factory.mktemp("moved")
    run = RunFolder(shutil.copytree(tiny_run.path, folder / "run"))
    run.config.write_text(run.config.read_text().replace(str(images), str(folder / "gone")))
    return run


@pytest.fixture(scope="module")
def both(tiny_run: RunFolder, moved: RunFolder, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Export a run in float32, and where its images have moved, in int8."""
    one, other = (tmp_path_factory.mktemp("exported") / name for name in ("float.onnx", "int8.onnx"))
    main(["export", "--ckpt_path", str(tiny_run.best_checkpoint), "--output", str(one)])
    flags = ["--quantize", "int8", "--max_loss", "100", "--data.root", str(images)]
    main(["export", "--ckpt_path", str(moved.best_checkpoint), "--output", str(other), *flags])
    return one, other


def test_weights_are_seven_bits_with_a_scale_a_channel_and_all_else_is_left(both: Both) -> None:
    before, after = (onnx.load(file) for file in both)
    onnx.checker.check_model(after)
    assert [item.name for item in after.graph.output] == ["probabilities", "novelty"]
    assert {item.key: item.value for item in after.metadata_props}.items() >= {
        item.key: item.value for item in before.metadata_props
    }.items()
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in after.graph.initializer}
    layers = [value for value in weights.values() if value.dtype == np.int8 and value.ndim == 4]
    assert sorted(len(value) for value in layers) == [8, 16]
    for value in layers:
        assert 60 < np.abs(value.astype(int)).max() <= 64
        assert any(len(scale) == len(value) for scale in weights.values() if scale.shape == (len(value),))
    producer = {name: node for node in after.graph.node for name in node.output}
    for node in after.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert {producer[name].op_type for name in node.input} == {"DequantizeLinear"}


def test_images_are_still_resized_to_the_last_bit(both: Both) -> None:
    for size in ((90, 70), (20, 41)):
        image = noise(*size)
        resized = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
        for given, expected in zip(run_onnx(both[1], image), run_onnx(both[1], resized), strict=True):
            assert np.array_equal(given, expected)


def test_the_comparison_is_what_the_two_files_say_of_the_test_images(
    both: Both, tiny_run: RunFolder, images: Path
) -> None:
    test = tiny_run.read_predictions()
    answers = [
        [run_onnx(file, np.asarray(Image.open(images / path).convert("RGB"))) for path in test.paths] for file in both
    ]
    names = [np.array([item[0][0].argmax() for item in rows]) for rows in answers]
    right = [item == test.labels for item in names]
    found = json.loads(both[1].with_name("int8.onnx.json").read_text())
    assert found["n"] == len(test.paths) == 9
    for key, mine, file in (("first", right[0], both[0]), ("second", right[1], both[1])):
        assert found[key]["acc"]["value"] == pytest.approx(mine.mean())
        assert found[key]["bytes"] == pytest.approx(file.stat().st_size, rel=0.001)
        assert 0 < found[key]["ms_one_thread"] < 10_000
    assert found["only_first_right"] == (right[0] & ~right[1]).sum()
    assert found["both_right"] == (right[0] & right[1]).sum()
    assert found["points_lost"]["value"] == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    assert found["same_label"] == pytest.approx((names[0] == names[1]).mean())
    moved = [abs(one[1][0] - other[1][0]) for one, other in zip(*answers, strict=True)]
    assert found["novelty_difference"] == pytest.approx(np.mean(moved), abs=1e-6)
    assert 0 < found["probability_difference"] < 0.1
    card = both[1].with_name("int8.onnx.md").read_text()
    assert "int8 against float32" in card
    assert "the file computes in int8" in card
    assert "int8 against float32" not in both[0].with_name("float.onnx.md").read_text()


def test_what_costs_too_much_is_refused_with_the_figures_and_leaves_nothing(
    tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    _stretch(run.best_checkpoint)
    output = tmp_path / "out" / "model.onnx"
    command = ["export", "--ckpt_path", run.best_checkpoint, "--output", output, "--quantize", "int8"]
    said = refusal(*command)
    assert "costs more than --max_loss 0.5" in said
    assert "of 9 test images right instead of" in said
    assert "points lost" in said
    assert [*output.parent.iterdir()] == []


def _stretch(checkpoint: Path) -> None:
    """Have one channel give values that are a million times the others', and the next layer take them back."""
    content = torch.load(checkpoint, weights_only=True)
    layers = [name for name, tensor in content["state_dict"].items() if name.endswith("weight") and tensor.ndim == 4]
    first, second = layers
    content["state_dict"][first][0] *= 1e6
    content["state_dict"][first.replace("weight", "bias")][0] *= 1e6
    content["state_dict"][second][:, 0] /= 1e6
    torch.save(content, checkpoint)


def test_images_that_have_moved_are_asked_for(moved: RunFolder, tmp_path: Path, refusal: Callable[..., str]) -> None:
    command = ["export", "--ckpt_path", moved.best_checkpoint, "--output", tmp_path / "m.onnx", "--quantize", "int8"]
    said = refusal(*command)
    assert "--data.root" in said
    assert "gone" in said
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("output", "flags", "part"),
    [
        ("model.pt2", ["--quantize", "int8"], "--quantize writes ONNX alone"),
        ("model.onnx", ["--quantize", "int4"], "--quantize"),
        ("model.onnx", ["--quantize", "int8", "--max_loss", "-1"], "--max_loss -1"),
        ("model.onnx", ["--quantize", "int8", "--max_loss", "nan"], "--max_loss: Expected a float"),
        ("model.onnx", ["--max_loss", "1"], "--max_loss goes with --quantize"),
    ],
)
def test_bad_flags_are_refused_in_a_sentence(
    output: str, flags: Sequence[str], part: str, tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    said = refusal("export", "--ckpt_path", tiny_run.best_checkpoint, "--output", tmp_path / output, *flags)
    assert part in said
    assert [*tmp_path.iterdir()] == []


def test_a_checkpoint_outside_its_run_and_a_missing_package_are_refused(
    tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = shutil.copy(tiny_run.best_checkpoint, tmp_path / "alone.ckpt")
    flags = ["--output", tmp_path / "model.onnx", "--quantize", "int8"]
    assert "of a finished run folder" in refusal("export", "--ckpt_path", alone, *flags)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = refusal("export", "--ckpt_path", tiny_run.best_checkpoint, *flags)
    assert "run uv pip install '.[export]' in the clone" in said


def test_the_lines_of_python_quantise_and_compare_any_exported_file(
    both: Both,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    data = ImageData(root=str(images))
    shown = [np.asarray(Image.open(data.catalogue.file(place)).convert("RGB")) for place in range(8)]
    labels = data.labels[:8].tolist()
    shutil.copy(both[0], tmp_path / "best.onnx")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    said = {"calibration_images": shown, "test_images": shown, "test_labels": labels}
    exec(code, said)
    assert "'value': " in capsys.readouterr().out
    found = said["found"]
    assert found.n == found.both_right + found.only_first_right + found.only_second_right + found.neither_right == 8
    same = compare_onnx(both[0], both[0], zip(shown, labels, strict=True), ["a", "b"] * 4)
    assert same.points_lost == {"value": 0.0, "low": None, "high": None}
    assert same.same_label == 1


def test_a_network_without_layers_to_quantise_is_refused(tmp_path: Path) -> None:
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1, "height", "width", 3])
        for name in ("images", "probabilities")
    ]
    step = onnx.helper.make_node("Identity", ["images"], ["probabilities"])
    graph = onnx.helper.make_graph([step], "empty", values[:1], values[1:])
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "empty.onnx")
    with pytest.raises(InputError, match="no convolution or dense layer"):
        quantize_onnx(tmp_path / "empty.onnx", tmp_path / "none.onnx", [noise(9, 9)])
    assert not (tmp_path / "none.onnx").exists()
