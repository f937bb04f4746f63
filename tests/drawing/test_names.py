from pathlib import Path

import pytest

from kth_lightning.drawing.names import class_numbers, isolated, picture_names, write_class_numbers

NAMES = ["panda", "\ue000", "=1+1", "two\nlines", "دب", "$x^$", "caf\udce9"]


def test_a_class_that_no_font_can_draw_is_shown_by_its_index_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert picture_names(NAMES) == ["panda", "#1", "=1+1", "#3", isolated("دب"), "$x^$", "#6"]
    assert picture_names(NAMES)[0] == "panda"
    warning = capsys.readouterr().err
    assert warning.startswith("warning: no font on this machine has all characters of 3 classes, such as '\\ue000';")
    assert warning.count("warning") == 1
    assert class_numbers(NAMES) == {1: "\ue000", 3: "two\nlines", 6: "caf\udce9"}
    write_class_numbers(NAMES[:4], tmp_path)
    assert (tmp_path / "class_numbers.csv").read_text() == 'number,class\n#1,\ue000\n#3,"two\nlines"\n'
    write_class_numbers(NAMES[:1], tmp_path)
    assert not (tmp_path / "class_numbers.csv").exists()
    assert not capsys.readouterr().err
