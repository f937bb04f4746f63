import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus import snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.models import BenchmarkCNN
from kth_lightning.models.checkpoint import load_classifier

NO_CHECKPOINT = "is not a checkpoint of kth_lightning, or is damaged; give another"
OTHER_VERSION = "does not fit this version of kth_lightning ({}"
NO_NUMBERS = "has weights that are not finite numbers, so its training failed; train again with a smaller learning rate"

Content = dict[str, Any]


class Hostile:
    """Make a file, as a stand-in for worse, when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


class Called:
    """Call a function by its name, from the pickle's text."""

    def __reduce__(self) -> tuple:
        return eval, ("open('ran', 'w').close()",)


@pytest.fixture
def refused(
    tiny_run: RunFolder,
    images: Path,
    tmp_path: Path,
    refusal: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[bytes], str]:
    """Have predictions refused for a checkpoint's bytes; nothing else may come of it."""
    monkeypatch.chdir(tmp_path)

    def refuse(content: bytes) -> str:
        file = tmp_path / "bad.ckpt"
        file.write_bytes(content)
        before = snapshot(tmp_path) | snapshot(images)
        line = refusal("predict", images, "--ckpt_path", file, "--output", tmp_path / "out.csv")
        assert line.startswith(f"error: --ckpt_path: {file} ")
        assert snapshot(tmp_path) | snapshot(images) == before
        assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]
        return line

    return refuse


@pytest.fixture
def whole(tiny_run: RunFolder) -> bytes:
    return tiny_run.best_checkpoint.read_bytes()


@pytest.fixture
def content(tiny_run: RunFolder) -> Content:
    return torch.load(tiny_run.best_checkpoint, weights_only=True)


def saved(content: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_bare_pickle_is_not_run(refused: Callable, tmp_path: Path, content: Content, protocol: int) -> None:
    hostile = pickle.dumps({**content, "state_dict": {}, "more": Hostile(tmp_path / "ran")}, protocol=protocol)
    assert NO_CHECKPOINT in refused(hostile)


@pytest.mark.parametrize("position", ["state_dict", "hyper_parameters", "class_path", "images", "more"])
@pytest.mark.parametrize("kind", ["a method", "eval"])
def test_code_in_a_checkpoint_is_not_run_wherever_it_stands(
    refused: Callable, tmp_path: Path, content: Content, position: str, kind: str
) -> None:
    content[position] = Hostile(tmp_path / "ran") if kind == "a method" else Called()
    assert NO_CHECKPOINT in refused(saved(content))


def test_code_in_the_format_of_old_is_not_run(refused: Callable, tmp_path: Path, content: Content) -> None:
    content["more"] = Hostile(tmp_path / "ran")
    assert NO_CHECKPOINT in refused(saved(content, _use_new_zipfile_serialization=False))


def test_code_in_the_pickle_of_a_whole_checkpoint_is_not_run(refused: Callable, tmp_path: Path, whole: bytes) -> None:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            hostile = name.endswith("/data.pkl")
            new.writestr(name, pickle.dumps(Hostile(tmp_path / "ran"), protocol=2) if hostile else old.read(name))
    assert NO_CHECKPOINT in refused(changed.getvalue())


def test_numbers_that_numpy_would_unpickle_are_refused(refused: Callable, content: Content) -> None:
    content["state_dict"] = {"head.weight": np.array([Hostile(Path("ran"))], dtype=object)}
    assert NO_CHECKPOINT in refused(saved(content))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda whole: b"",
    "a few bytes": lambda whole: whole[:10],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but the end": lambda whole: whole[:-30],
    "zeros": lambda whole: bytes(len(whole)),
    "zeros from the middle on": lambda whole: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "zeros in the weights": lambda whole: whole[:8000] + bytes(64) + whole[8064:],
    "text": lambda whole: b"not a checkpoint",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused(refused: Callable, whole: bytes, name: str) -> None:
    assert NO_CHECKPOINT in refused(DAMAGES[name](whole))


def test_no_wrong_bit_of_a_checkpoint_gives_other_probabilities(
    refused: Callable, whole: bytes, content: Content
) -> None:
    for name in ("blocks.0.0.weight", "blocks.1.0.weight", "head.1.weight"):
        position = whole.index(bytes(content["state_dict"][name].untyped_storage().tolist()))
        changed = bytearray(whole)
        changed[position] ^= 1
        assert NO_CHECKPOINT in refused(bytes(changed))


@pytest.fixture(scope="session")
def state(tiny_run: RunFolder) -> dict[str, torch.Tensor]:
    return load_classifier(tiny_run.best_checkpoint).state_dict()


Changes = list[tuple[int, int]]
changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)


def _changed(content: bytes, changes: Changes) -> bytes:
    changed = bytearray(content)
    for position, value in changes:
        changed[position % len(content)] = value
    return bytes(changed)


def _is_refused_or_the_same(file: Path, content: bytes, state: dict[str, torch.Tensor]) -> bool:
    file.write_bytes(content)
    try:
        model = load_classifier(file)
    except InputError as error:
        return str(error).startswith(f"--ckpt_path: {file} ")
    return all(value.equal(state[name]) for name, value in model.state_dict().items())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=changes)
def test_any_damage_is_refused_or_changes_no_weight(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_run: RunFolder,
    state: dict[str, torch.Tensor],
    changes: Changes,
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    assert _is_refused_or_the_same(file, _changed(tiny_run.best_checkpoint.read_bytes(), changes), state)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=changes)
def test_any_pickle_with_a_right_checksum_is_refused_or_gives_a_classifier(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: RunFolder, changes: Changes
) -> None:
    file, stream = tmp_path_factory.getbasetemp() / "forged.ckpt", io.BytesIO()
    with zipfile.ZipFile(tiny_run.best_checkpoint) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, _changed(part, changes) if name.endswith("/data.pkl") else part)
    file.write_bytes(stream.getvalue())
    try:
        assert isinstance(load_classifier(file), BenchmarkCNN)
    except InputError as error:
        assert f"{file} " in str(error)  # noqa: PT017


def _zipped(compression: int, *parts: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, part in parts:
            file.writestr(name, part)
    return stream.getvalue()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "a list": lambda: saved([1, 2]),
    "a tensor": lambda: saved(torch.zeros(3)),
    "weights alone": lambda: saved({"state_dict": {"head.weight": torch.zeros(3)}}),
    "a ZIP file": lambda: _zipped(zipfile.ZIP_STORED, ("a.txt", b"hi")),
    "a ZIP file without anything": lambda: _zipped(zipfile.ZIP_STORED),
    "a bomb": lambda: _zipped(zipfile.ZIP_DEFLATED, ("a/data.pkl", bytes(1 << 28)), ("a/version", b"3")),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_programs_file_is_refused(refused: Callable, name: str) -> None:
    assert NO_CHECKPOINT in refused(FOREIGN[name]())


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("weights_sha256", NO_CHECKPOINT),
        ("format", NO_CHECKPOINT),
        ("class_path", NO_CHECKPOINT),
        ("hyper_parameters", NO_CHECKPOINT),
        ("state_dict", NO_CHECKPOINT),
        ("pytorch-lightning_version", NO_CHECKPOINT),
        ("loops", NO_CHECKPOINT),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(
    refused: Callable, content: Content, missing: str, sentence: str
) -> None:
    del content[missing]
    assert sentence in refused(saved(content))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("os.system", "holds a os.system, a class from outside kth_lightning; if you trust its code, say so with"),
        ("corpus.snapshot", "say so with --model_class corpus.snapshot (in Python: model_class=snapshot)"),
        ("kth_lightning.models.Novelty", "was made by a newer kth_lightning (kth_lightning.models.Novelty); update"),
        ("kth_lightning.models.base.torch", "was made by a newer kth_lightning"),
        ("", NO_CHECKPOINT),
        (None, NO_CHECKPOINT),
        ("a.b; rm", NO_CHECKPOINT),
    ],
)
def test_only_our_own_classes_are_built(refused: Callable, content: Content, name: object, sentence: str) -> None:
    content["class_path"] = name
    assert sentence in refused(saved(content))


@pytest.mark.parametrize("version", [3, 10**9])
def test_a_later_format_is_refused_by_its_number(refused: Callable, content: Content, version: int) -> None:
    content |= {"format": version, "state_dict": "of another kind"}
    assert f"was written by a newer kth_lightning (its format is {version}, and this one knows 2)" in refused(
        saved(content)
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("novelty", 1, "unexpected keyword argument 'novelty'"),
        ("class_names", ["a"], "3 classes have the names ['a']"),
        ("class_names", ["a", "a", "b"], "3 classes have the names ['a', 'a', 'b']"),
        ("num_classes", "3", "Expected argument `num_classes` to be an integer"),
        ("num_classes", -1, "Expected argument `num_classes` to be an integer"),
        ("num_classes", 10**12, "Storage size calculation overflowed"),
        ("image_size", 0, "an image_size of 0"),
        ("image_size", -64, "an image_size of -64"),
        ("image_size", 64.5, "an image_size of 64.5"),
        ("image_size", None, "an image_size of None"),
        ("interpolation", "magic", "an interpolation magic"),
        ("resize", "magic", "a resize magic"),
        ("temperature", 0.0, "--model.temperature 0.0"),
        ("temperature", -1.0, "--model.temperature -1.0"),
        ("temperature", float("nan"), "--model.temperature nan"),
        ("temperature", "hot", "not supported between instances"),
        ("filters", (), "--model.block_dropout"),
        ("filters", (10**9, 4), "can't allocate memory"),
        ("block_dropout", (7.0, 7.0), "--model.block_dropout 7.0"),
        ("optimizer", "os.system", "'str' object is not callable"),
        ("mixup", None, "not supported between instances"),
    ],
    ids=str,
)
def test_settings_that_make_no_classifier_are_named(
    refused: Callable, content: Content, name: str, value: object, reason: str
) -> None:
    content["hyper_parameters"][name] = value
    line = refused(saved(content))
    assert OTHER_VERSION.format("") in line
    assert reason in line
    assert line.endswith("); use the one that wrote it, or another checkpoint")


KINDS: dict[str, tuple[str, object]] = {
    "settings that are nothing": ("hyper_parameters", None),
    "settings that are text": ("hyper_parameters", "text"),
    "settings that are a list": ("hyper_parameters", [1, 2]),
    "class names that are numbers": ("hyper_parameters", {"class_names": [1, 2, 3]}),
    "class names that are text": ("hyper_parameters", {"class_names": "abc"}),
    "a range of text": ("hyper_parameters", {"value_range": ["a", "b"]}),
    "a range without an end": ("hyper_parameters", {"value_range": [0.0, float("inf")]}),
    "weights that are a list": ("state_dict", [1]),
    "weights that are text": ("state_dict", {"head.1.weight": "text"}),
    "weights without a name": ("state_dict", {1: torch.zeros(3)}),
    "weights without values": ("state_dict", {"head.1.weight": torch.zeros(3, 8, device="meta")}),
    "sparse weights": ("state_dict", {"head.1.weight": torch.eye(3).to_sparse()}),
    "files that are complex": ("files", dict.fromkeys(("train", "val"), torch.zeros(3, dtype=torch.complex64))),
    "images that are text": ("images", "text"),
    "images of no part": ("images", {}),
    "loops that are text": ("loops", "text"),
    "callbacks that are text": ("callbacks", "text"),
    "a version that is a number": ("pytorch-lightning_version", 5),
    "a version that is none": ("pytorch-lightning_version", "x.y"),
}


@pytest.mark.parametrize("name", KINDS)
def test_parts_of_another_kind_are_refused(refused: Callable, content: Content, name: str) -> None:
    part, value = KINDS[name]
    content[part] = value
    assert NO_CHECKPOINT in refused(saved(content))


@pytest.mark.parametrize("name", KINDS)
def test_parts_of_another_kind_are_refused_for_testing_too(
    tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str], content: Content, name: str
) -> None:
    part, value = KINDS[name]
    content[part] = value
    torch.save(content, tmp_path / "bad.ckpt")
    line = refusal("test", "--config", tiny_run.config, "--ckpt_path", tmp_path / "bad.ckpt")
    assert line == f"error: --ckpt_path: {tmp_path / 'bad.ckpt'} {NO_CHECKPOINT}"


def test_weights_of_another_shape_are_refused(refused: Callable, content: Content) -> None:
    content["state_dict"] = {name: value[None] for name, value in content["state_dict"].items()}
    assert OTHER_VERSION.format("--ckpt_path: the checkpoint is not of this model") in refused(saved(content))


def test_complex_weights_in_place_of_real_ones_are_refused(refused: Callable, content: Content) -> None:
    content["state_dict"]["head.1.weight"] = content["state_dict"]["head.1.weight"].to(torch.complex64)
    reason = "--ckpt_path: the checkpoint is not of this model (they differ in head.1.weight)"
    assert OTHER_VERSION.format(reason) in refused(saved(content))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_give_no_probabilities(refused: Callable, content: Content, value: float) -> None:
    content["state_dict"]["head.1.weight"][0, 0] = value
    assert NO_NUMBERS in refused(saved(content))


def test_weights_that_are_no_numbers_give_no_figures(
    tiny_run: RunFolder, tmp_path: Path, refusal: Callable[..., str], content: Content
) -> None:
    content["state_dict"]["head.1.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "bad.ckpt")
    for command in ("validate", "test"):
        assert NO_NUMBERS in refusal(command, "--config", tiny_run.config, "--ckpt_path", tmp_path / "bad.ckpt")
