import csv
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.source import checked_listing
from kth_lightning.data.sources.table import TableSource
from kth_lightning.errors import InputError
from kth_lightning.io.csv_text import csv_text

ROWS = [("a/1.png", "cat", "train"), ("a/2.png", "dog, wild", "dev"), ("=1.png", "狼", "Testing")]
FOUND = [("=1.png", "狼", "test"), ("a/1.png", "cat", "train"), ("a/2.png", "dog, wild", "val")]


def listed(folder: Path, content: bytes | str) -> list[tuple[str, str, str]]:
    file = folder / "labels.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = checked_listing(TableSource(str(file)), folder / "cache").candidates
    assert not (folder / "cache").exists()
    return [(one.file.relative_to(folder).as_posix(), one.label, one.subset) for one in found]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_csv_in_every_dialect_of_a_spreadsheet(tmp_path: Path, separator: str, start: str, line_end: str) -> None:
    file = tmp_path / "written.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        stream.write(start)
        writer = csv.writer(stream, delimiter=separator, lineterminator=line_end)
        writer.writerows([("Path", " label", "SPLIT", "age"), *((*row, 7) for row in ROWS), ("", "", "", "")])
    assert listed(tmp_path, file.read_bytes()) == FOUND


def test_csv_as_this_package_writes_it(tmp_path: Path) -> None:
    assert listed(tmp_path, csv_text([("path", "label", "split"), *ROWS])) == FOUND


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(("path", "label", "split"), zip(*ROWS, strict=True), strict=True))
    columns |= {"pixels": [b"\x00", b"\x01", b"\x02"], "age": [1, None, 3]}
    parquet.write_table(
        pyarrow.table({name: pyarrow.array(column) for name, column in columns.items()}), tmp_path / "t"
    )
    assert listed(tmp_path, (tmp_path / "t").read_bytes()) == FOUND
    numbers = pyarrow.table({"path": ["a.png", "b.png", "c.png"], "label": [1, 10, None]})
    parquet.write_table(numbers, tmp_path / "t")
    assert listed(tmp_path, (tmp_path / "t").read_bytes()) == [("a.png", "1", ""), ("b.png", "10", "")]
    with pytest.raises(InputError, match="cannot be read as CSV or Parquet"):
        listed(tmp_path, b"PAR1 and no more")


def test_paths_lead_anywhere_masks_and_groups_too(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "w.png").touch()
    table = tmp_path / "in" / "t.csv"
    table.write_text(f"label,path,mask,group\na,../1.png,../m/1.png,p 1\nb,{tmp_path}/2.png,,p 2\nc,deep\\w.png,,\n")
    found = TableSource(str(table)).list(tmp_path).candidates
    assert [one.file for one in found] == [tmp_path / "1.png", tmp_path / "2.png", tmp_path / "in/deep/w.png"]
    assert [one.mask for one in found] == [tmp_path / "m/1.png", None, None]
    assert [one.group for one in found] == ["p 1", "p 2", ""]


def remarks_of(folder: Path, text: str) -> list[str]:
    file = folder / "labels.csv"
    file.write_text(text, encoding="utf-8")
    return [remark.removeprefix(f"--data.table {file}: ") for remark in TableSource(str(file)).list(folder).remarks]


def test_what_programs_write_for_a_missing_cell_is_an_empty_one_and_said(tmp_path: Path) -> None:
    said = remarks_of(tmp_path, "path,label,group,mask,box\n1,a,NA,NaN,null\n2,b,n/a,NA,None\n3,NA,north,m.png,\n")
    listing = TableSource(str(tmp_path / "labels.csv")).list(tmp_path)
    assert [(one.file.name, one.group, one.mask, one.box) for one in listing.candidates] == [
        ("1", "", None, None),
        ("2", "", None, None),
    ]
    reason = "no label: 'NA' in row 4 of the table; give the class another name if NA is one"
    assert listing.problems == [(tmp_path / "3", reason)]
    assert said == [
        "2 of 3 cells of the column group say NA and count as empty",
        "2 of 3 cells of the column mask say NaN and count as empty",
        "2 of 3 cells of the column box say null and count as empty",
    ]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("groups,splits", ["columns that are not used: groups, splits (did you mean group, split?)"]),
        ("Masks,bbox", ["columns that are not used: Masks, bbox (did you mean mask, box?)"]),
        ("group_id,spilt", ["columns that are not used: group_id, spilt (did you mean group, split?)"]),
        ("group,groups", []),
        ("age,body mass,site", []),
    ],
)
def test_columns_that_are_nearly_known_ones_are_said_and_others_are_not(
    tmp_path: Path, columns: str, said: list[str]
) -> None:
    cells = ",".join("1" for _ in columns.split(","))
    assert remarks_of(tmp_path, f"path,label,{columns}\n1.png,a,{cells}\n") == said


def test_lists_of_parquet_are_boxes_or_have_one_entry(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"path": ["a.png", "b.png"], "label": [["fox"], ["hare"]], "box": [[0.1, 0.2, 0.5, 0.4], None]}
    parquet.write_table(pyarrow.table(columns | {"group": [[], ["north"]]}), tmp_path / "t")
    found = TableSource(str(tmp_path / "t")).list(tmp_path).candidates
    assert [(one.label, one.group, str(one.box or "")) for one in found] == [
        ("fox", "", "0.1 0.2 0.5 0.4"),
        ("hare", "north", ""),
    ]
    for several in (["fox", "hare"], ["fox", None]):
        parquet.write_table(pyarrow.table(columns | {"label": [["owl"], several]}), tmp_path / "t")
        with pytest.raises(InputError, match="row 3 has 2 entries in the column 'label'; give each row one"):
            TableSource(str(tmp_path / "t")).list(tmp_path)


def test_labels_of_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    found = listed(tmp_path, "path,label\n1.png,caf\u00e9\n2.png,cafe\u0301\n")
    assert {label for _, label, _ in found} == {"caf\u00e9"}


def test_a_row_twice_or_without_a_label_is_left_out_and_said(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,label\n1.png,a\n./1.png,a\n2.png,\n,b\n3.png,b\n")
    listing = checked_listing(TableSource(str(file)), tmp_path)
    assert [one.file.name for one in listing.candidates] == ["1.png", "3.png"]
    assert [(problem.name, reason) for problem, reason in listing.problems] == [
        ("2.png", "no label: row 4 of the table"),
        ("row 5", "no path: row 5 of the table"),
        ("1.png", "listed twice"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,class\n1.png,a\n", r"has no column 'path', only 'filename', 'class'; name the columns"),
        ("path,class\n1.png,a\n", r"has no column 'label', only 'path', 'class'"),
        ("path,label,Label\n1.png,a,b\n", r"two columns 'label'"),
        ("path,label\n1.png,a\n2.png\n", r"row 3 has 1 cells and the header 2"),
        ("path,label,split\n1.png,a,train\n2.png,b,\n", r"the split of '2\.png' \(row 3\) is ''; write train"),
        ("path,label,split\n1.png,a,extra\n", r"is 'extra'; write train, val or test in every row"),
        ("path,label\n1.png,a\n1.png,b\n", r"1\.png twice, with the label a and b; leave one out"),
        ("path,label,group\n1.png,a,p\n1.png,a,q\n", r"1\.png twice, with the group p and q; leave one out"),
        ("path,label\n1.png,none\n2.png,fox\n", r"the label of '1\.png' \(row 2\) is 'none', which may be a class or"),
        ("path,label,split\n1.png,a,NA\n", r"the split of '1\.png' \(row 2\) is 'NA'; write train"),
        ("path,label\n", r"lists no image"),
        ("", r"it is empty"),
        (b"path,label\n1.png,\xff\xfe\n", r'not UTF-8 text; save it as "CSV UTF-8"'),
        ('path,label\n1.png,"a\n', r"cannot be read as CSV or Parquet"),
    ],
)  # fmt: skip
def test_what_is_no_such_table_is_one_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        listed(tmp_path, text)
    assert "\n" not in str(refused.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"path,label,mask\n{text}".encode()))
def test_whatever_the_file_holds_the_answer_is_a_listing_or_one_sentence(tmp_path: Path, content: bytes) -> None:
    for start in (b"", b"PAR1"):
        with suppress(InputError):
            listed(tmp_path, start + content)
            prepare(TableSource(str(tmp_path / "labels.csv")), tmp_path / "prepared")


def test_a_missing_table_and_a_folder_are_said(tmp_path: Path) -> None:
    for file in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match=r"--data\.table .* cannot be read \(.*\); check the path"):
            TableSource(str(file)).list(tmp_path)


def test_a_missing_file_stands_in_the_audit(tmp_path: Path, images: Path) -> None:
    file = images.parent / "missing.csv"
    rows = [f"animals/class{label}/{number:03}.png,c{label}" for label in range(2) for number in range(18, 22)]
    file.write_text("path,label\n" + "\n".join(rows))
    prepared = prepare(TableSource(str(file)), tmp_path)
    assert "4 of 8 files usable in 2 classes" in prepared.summary
    audit = (prepared.folder / "audit.csv").read_text(encoding="utf-8")
    for name in ("class0/020.png,c0", "class1/021.png,c1"):
        assert f"animals/{name},unreadable: No such file or directory" in audit
