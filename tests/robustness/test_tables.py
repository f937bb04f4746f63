import csv
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus import snapshot, tiny_fit
from hypothesis import given, settings
from hypothesis import strategies as st

from kth_lightning.cli.main import main
from kth_lightning.data.catalogue import Catalogue, ImageRecord, read_catalogue, write_catalogue
from kth_lightning.data.split import Split, make_split
from kth_lightning.data.split_table import match_split, split_rows
from kth_lightning.errors import InputError
from kth_lightning.io.split_file import read_split, write_split

Refusal = Callable[..., str]
IMAGES = tuple(
    ImageRecord(f"{label}/{number}.png", label, "", 40, 30, f"{100 * position + number:064x}", 6 * position + number)
    for position, label in enumerate(("cat", "dog"))
    for number in range(6)
)
CATALOGUE = Catalogue(Path("/images"), IMAGES)


def written(write: Callable[[Path], object]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "table.csv"))
        return Path(folder, "table.csv").read_bytes().decode()


TABLE = written(lambda file: write_catalogue(IMAGES, file))
SPLITS = written(lambda file: write_split(split_rows(CATALOGUE, make_split(CATALOGUE, 2, 2, 0)), file))
DAMAGES: dict[str, Callable[[str], bytes]] = {
    "empty": lambda text: b"",
    "header alone": lambda text: text.splitlines()[0].encode(),
    "zeros": lambda text: bytes(len(text)),
    "cut in a row": lambda text: text[: len(text) // 2 + 5].encode(),
    "other bytes": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "no header": lambda text: text.split("\n", 1)[1].encode(),
    "a column less": lambda text: "\n".join(row.partition(",")[2] for row in text.splitlines()).encode(),
    "a column more": lambda text: text.replace("cat/1.png", "cat/1.png,1").encode(),
    "a torn hash": lambda text: text.replace("0000000001,", "zz,", 1).encode(),
    "a field without an end": lambda text: text.replace("cat/1.png", '"cat/1.png', 1).encode(),
    "a field of a megabyte": lambda text: text.replace("cat/1.png", "x" * 1_000_000, 1).encode(),
    "json": lambda text: b'{"images": []}',
}


KEPT = [("catalogue.csv", name) for name in DAMAGES] + [
    ("catalogue.csv", "gone"),
    ("catalogue.csv", "cut between rows"),
]
KEPT += [("audit.csv", "empty"), ("summary.txt", "zeros"), ("summary.txt", "gone"), ("tables.sha256", "gone")]


@pytest.mark.parametrize(("name", "damage"), KEPT)
def test_damaged_tables_are_noticed_and_made_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture, name: str, damage: str
) -> None:
    command = ["prepare", "--data.root", str(root), "--data.cache_dir", str(tmp_path / "cache")]
    main(command)
    before, said = snapshot(tmp_path), capsys.readouterr().out
    (table,) = (tmp_path / "cache/catalogues").glob(f"*/{name}")
    whole = table.read_text(encoding="utf-8")
    if damage == "gone":
        table.unlink()
    elif damage == "cut between rows":
        table.write_text(whole[: whole.index("dog/1.png")], encoding="utf-8")
    else:
        table.write_bytes(DAMAGES[damage](re.sub("[0-9a-f]{10}(?=[0-9a-f]{54},)", "0000000001,", whole, count=1)))
    with pytest.warns(UserWarning, match=f"the tables in {table.parent} are damaged and are written again"):
        main(command)
    assert capsys.readouterr().out == said
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_table_that_is_no_catalogue_is_refused(tmp_path: Path, damage: Callable[[str], bytes]) -> None:
    (tmp_path / "catalogue.csv").write_bytes(damage(TABLE))
    with pytest.raises(InputError, match=r"catalogue\.csv is not a catalogue .*delete the folder") as refused:
        read_catalogue(tmp_path / "catalogue.csv", tmp_path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_split_is_refused_by_its_flag(tmp_path: Path, damage: Callable[[str], bytes]) -> None:
    (tmp_path / "splits.csv").write_bytes(damage(SPLITS))
    with pytest.raises(InputError, match=rf"--data\.splits {tmp_path}/splits\.csv: ") as refused:
        read_and_match(tmp_path / "splits.csv")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 700


def read_and_match(file: Path) -> Split:
    return match_split(CATALOGUE, read_split(file), f"--data.splits {file}")[1]


WRONG = {
    "unknown part": (lambda text: text.replace(",train", ",trian"), "unknown part 'trian'; parts are train, val, test"),
    "part in capitals": (lambda text: text.replace(",test", ",Test"), "unknown part 'Test'"),
    "all for training": (lambda text: text.replace(",val", ",train"), "no image is left for validation; give a run"),
    "an image twice": (lambda text: text + text.splitlines()[1] + "\n", "'cat/0.png' is listed more than once"),
    "an image missing": (lambda text: text.replace(text.splitlines()[1] + "\n", ""), "1 is new ('cat/0.png')"),
    "an image that is gone": (lambda text: text + "emu/0.png,emu,ab,train\n", "1 is gone ('emu/0.png')"),
    "an image that has changed": (
        lambda text: text.replace("0000000001,", "0000000009,", 1),
        "1 is changed ('cat/1.png')",
    ),
    "another class": (lambda text: text.replace(",cat,", ",lion,", 1), "1 is relabelled ('cat/0.png')"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_a_split_that_does_not_fit_the_images_is_refused(
    tmp_path: Path, change: Callable[[str], str], sentence: str
) -> None:
    (tmp_path / "splits.csv").write_text(change(SPLITS.replace("\r\n", "\n")), encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_and_match(tmp_path / "splits.csv")
    assert sentence in str(refused.value)


def test_a_split_that_a_spreadsheet_saved_is_the_same_split(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text(SPLITS, encoding="utf-8")
    rows = [row.split(",") for row in SPLITS.splitlines()]
    excel = "\r\n".join(";".join(row) for row in rows)
    (tmp_path / "excel.csv").write_text(excel, encoding="utf-8-sig", newline="")
    assert read_split(tmp_path / "excel.csv") == read_split(tmp_path / "splits.csv")


@pytest.mark.parametrize("kind", ["missing", "folder", "image"])
def test_training_with_what_is_no_split_is_refused_before_it_starts(
    refusal: Refusal, root: Path, tmp_path: Path, kind: str
) -> None:
    splits = {"missing": tmp_path / "none.csv", "folder": root, "image": root / "cat/0.png"}[kind]
    kept = snapshot(tmp_path)
    line = refusal(*tiny_fit(root), "--run_dir", tmp_path / "run", "--data.splits", splits)
    assert line.startswith(f"error: --data.splits {splits}: ")
    assert snapshot(tmp_path) == kept


mutations = st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([*b'",\r\n\0xZ9-', 0xFF, 0xC3])), max_size=6)


def mutated(text: str, changes: list[tuple[int, int]], cut: int) -> bytes:
    content = bytearray(text.encode())
    for position, value in changes:
        content[position % len(content)] = value
    return bytes(content[: len(content) - cut % len(content)])


def outcome(read: Callable[[Path], object], content: bytes) -> object:
    """Read a table of these bytes; give what was read, or the sentence of an `InputError`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "table.csv").write_bytes(content)
        try:
            return read(Path(folder, "table.csv"))
        except InputError as error:
            return str(error)


def catalogue_is_sound(content: bytes) -> bool:
    found = outcome(lambda file: read_catalogue(file, Path("/images")), content)
    if not isinstance(found, Catalogue):
        return "table.csv is not a catalogue (" in str(found)
    return bool(found.images) and all(len(bytes.fromhex(item.sha256)) == 32 for item in found.images)


def split_is_sound(content: bytes) -> bool:
    found = outcome(read_and_match, content)
    known = {row["path"]: row["part"] for row in csv.DictReader(SPLITS.splitlines())}
    return isinstance(found, str) or len(found.parts) == len(known)  # type: ignore[attr-defined]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations, cut=st.integers(0, 10_000))
def test_any_damage_to_a_catalogue_is_refused_or_leaves_it_usable(changes: list[tuple[int, int]], cut: int) -> None:
    assert catalogue_is_sound(mutated(TABLE, changes, cut))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(changes=mutations, cut=st.integers(0, 10_000))
def test_any_damage_to_a_split_is_refused_or_leaves_it_usable(changes: list[tuple[int, int]], cut: int) -> None:
    assert split_is_sound(mutated(SPLITS, changes, cut))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(header=st.booleans(), content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_no_catalogue(header: bool, content: bytes) -> None:
    assert catalogue_is_sound(TABLE.splitlines()[0].encode() * header + b"\n" + content)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(header=st.booleans(), content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_no_split(header: bool, content: bytes) -> None:
    assert split_is_sound(SPLITS.splitlines()[0].encode() * header + b"\n" + content)
