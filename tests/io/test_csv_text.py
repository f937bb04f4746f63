import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kth_lightning.io.csv_text import csv_records, csv_rows, csv_text

CELLS = [
    "=1+1",
    "+1",
    "-rf",
    "@home",
    "\tx",
    "\rx",
    "'quoted",
    "'=1",
    "''",
    "a;b;c",
    'say "a, b"',
    "two\nlines",
    "a\rb",
]


@pytest.mark.parametrize("cell", CELLS, ids=ascii)
def test_a_cell_comes_back_as_it_was_and_never_begins_as_a_formula(cell: str) -> None:
    written = csv_text([["path", "label"], [cell, "x"]])
    assert csv_rows(written) == [["path", "label"], [cell, "x"]]
    assert not written.splitlines()[1].lstrip('"').startswith(("=", "+", "-", "@", "\t", "\r"))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(st.text(alphabet="=+-@'\",;\t\r\n aé", max_size=6), min_size=3, max_size=3), max_size=4))
def test_any_cells_come_back(rows: list[list[str]]) -> None:
    assert csv_rows(csv_text([["path", "b", "c"], *rows])) == [["path", "b", "c"], *(row for row in rows if any(row))]


def test_numbers_are_no_formulas() -> None:
    assert csv_text([[-0.5, 3, "-0.5"]]) == "-0.5,3,'-0.5\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_spreadsheet_saved_is_read(separator: str, mark: str, end: str) -> None:
    lines = [["path", "label", "part"], ["cat/a.png", '"a, b; c"', "train"], ["dog/é.png", "dog", "test"], ["", "", ""]]
    text = mark + "".join(separator.join(line) + end for line in lines)
    assert csv_records(text) == [
        {"path": "cat/a.png", "label": "a, b; c", "part": "train"},
        {"path": "dog/é.png", "label": "dog", "part": "test"},
    ]


def test_a_header_of_names_with_semicolons_keeps_its_commas() -> None:
    assert csv_rows('path,p:a;b;c,"p:d;e;f;g"\n1,2,3\n')[0] == ["path", "p:a;b;c", "p:d;e;f;g"]
