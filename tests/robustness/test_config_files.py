from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import snapshot, tiny_fit

Refusal = Callable[..., str]
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 10)}]\n" for level in range(8)
)
FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "has no settings; give lines such as 'patience: 5'"),
    "a comment": ("# nothing\n", "has no settings"),
    "a list": ("[1, 2]", "has no settings"),
    "a number": ("5", "has no settings"),
    "a sentence": ("hello there", "has no settings"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0", "is not UTF-8 text; give a YAML file"),
    "Latin-1": ("data:\n  root: café\n".encode("latin-1"), "is not UTF-8 text"),
    "a zero byte": ('data:\n  root: "a\\0b"\n', "is not valid YAML (a zero byte in a value); correct it"),
    "an open bracket": ("data: [\n", "is not valid YAML (while parsing"),
    "a tab": ("data:\n\troot: x\n", "is not valid YAML (while scanning"),
    "code": ("data:\n  root: !!python/object/apply:os.system ['touch ran']\n", "a tag that names Python code"),
    "a bomb of aliases": (BOMB, "expands to more than 100,000 values; give plain values"),
    "itself in itself": ("data: &a\n  root: *a\n", "is nested too deeply or refers to itself"),
    "a deep nest": ("a: " + "[" * 3000 + "]" * 3000, "is nested too deeply or refers to itself"),
    "a number for settings": ("data: 5\n", "data is '5', and not a list of its settings"),
    "nothing for settings": ("trainer:\n", "trainer is '', and not a list of its settings"),
}
SETTINGS = {
    "an unknown setting": (
        "data:\n  rooot: x\n",
        "there is no setting --data.rooot, on the command line or in a config",
    ),
    "an unknown group": ("dota:\n  root: x\n", "there is no setting --dota"),
    "an unknown model": (
        "model:\n  class_path: kth_lightning.models.Nope\n",
        "kth_lightning.models has no 'Nope'",
    ),
    "a model that is a function": (
        "model:\n  class_path: os.system\n",
        "this is not a subclass of Classifier",
    ),
    "a model that is another class": (
        "model:\n  class_path: torch.nn.Linear\n",
        "this is not a subclass of",
    ),
    "a text for a number": ("data:\n  batch_size: many\n", "--data.batch_size: Expected a int"),
    "a list for a number": ("data:\n  batch_size: [1]\n", "--data.batch_size: Expected a int"),
    "a number that is none": ("data:\n  val_size: .nan\n", "--data.val_size nan: give a share between 0 and 1"),
    "an infinite number": ("data:\n  test_size: .inf\n", "--data.test_size inf: give a share between 0 and 1"),
    "a negative number": ("data:\n  batch_size: -1\n", "--data.batch_size -1: give a whole number"),
    "a setting twice": ("data:\n  views: 1\n  views: -1\n", "--data.views -1: give a whole number"),
}


def config(folder: Path, content: str | bytes) -> Path:
    file = folder / "my config.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.mark.parametrize(("content", "sentence"), FILES.values(), ids=FILES)
def test_a_file_that_holds_no_settings_is_refused_by_name(
    refusal: Refusal, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = config(tmp_path, content)
    kept = snapshot(tmp_path)
    line = refusal(*tiny_fit(images), "--config", file)
    assert f"error: --config {file}" in line
    assert sentence in line
    assert snapshot(tmp_path) == kept


def test_a_file_is_looked_at_when_it_is_named_behind_an_equals_sign(refusal: Refusal, tmp_path: Path) -> None:
    assert "has no settings" in refusal("fit", f"--config={config(tmp_path, '')}")


@pytest.mark.parametrize(("content", "sentence"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_in_a_file_that_cannot_be_used_is_named(
    refusal: Refusal, images: Path, tmp_path: Path, content: str, sentence: str
) -> None:
    line = refusal(*tiny_fit(images), "--run_dir", tmp_path / "run", "--config", config(tmp_path, content))
    assert sentence in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_is_no_file_is_said(refusal: Refusal, tmp_path: Path, kind: str) -> None:
    line = refusal("fit", "--config", tmp_path if kind == "folder" else tmp_path / "none.yaml")
    assert line.startswith("error: --config: ")
    assert str(tmp_path) in line
