import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from kth_lightning.cli.main import COMMANDS, main

ASKED = "import sys; from kth_lightning.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return what parsers print of all flags, each one asked once."""

    @cache
    def ask(*argv: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr(sys.stdout, "write", printed.append)
            patch.setenv("COLUMNS", "400")
            with pytest.raises(SystemExit, match="0"):
                main(list(argv))
        return "".join(printed)

    return ask


def page(command: str, capsys: pytest.CaptureFixture) -> str:
    capsys.readouterr()
    main([command, "--help"])
    return capsys.readouterr().out


def flags(text: str) -> dict[str, str]:
    """Return the flags that a help page lists, and the default that it gives of each, if it gives one."""
    listed: dict[str, str] = {}
    for start in re.finditer(r"^  (?:-\w [A-Z]+, )?--([\w.]+)(.*(?:\n {10,}.*)*)", text, re.MULTILINE):
        default = re.search(r"\bdefault: ([^,)]+)", start[2])
        listed[start[1]] = default[1].strip("'") if default else ""
    return listed


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_is_short_and_says_of_each_flag_what_the_parser_says(
    command: str, full: Callable[..., str], capsys: pytest.CaptureFixture
) -> None:
    text = page(command, capsys)
    assert len(text.splitlines()) < 45
    assert max(map(len, text.splitlines())) <= 120
    every = flags(full(command, "--help", "all"))
    if command == "fit":
        every |= {"model.backbone": ""} if "--model.backbone " in full("fit", "--model.help", "FeatureHead") else {}
    listed = flags(text)
    assert listed.keys() <= every.keys()
    assert {name: default for name, default in listed.items() if default} == {
        name: every[name].lower() for name, default in listed.items() if default
    }
    used = set(re.findall(r"--([\w.]+)", text)) - {"help", "model.help"}
    assert used <= every.keys()
    assert " at 0x" not in full(command, "--help", "all")  # where something of the program lies in memory


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_a_page_name_the_command(command: str, capsys: pytest.CaptureFixture) -> None:
    _, _, examples = page(command, capsys).partition("\nexample")
    lines = [line for line in examples.splitlines() if line.startswith("  ")]
    assert lines
    assert all(line.startswith(f"  python -m kth_lightning {command}") for line in lines)


@pytest.mark.parametrize("argv", [["fit", "--help"], ["predict", "-h"], ["--help"], ["stores"]], ids=" ".join)
def test_what_needs_no_network_does_not_wait_for_torch(argv: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASKED, *argv]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.splitlines()[-1] == "False"


def test_help_wins_over_other_flags_and_works_where_they_are_wrong(capsys: pytest.CaptureFixture) -> None:
    main(["fit", "--data.root", "nowhere", "--help", "--data.rot", "1"])
    assert capsys.readouterr().out == page("fit", capsys)
