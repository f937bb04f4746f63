"""Help: a page of what people need first, from a file; all flags, from the parser."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_PAGES = Path(__file__).parent / "help"
_FLAGS = ("-h", "--help")


def help_page(argv: Sequence[str]) -> str | None:
    """Return the page that a command line asks for with --help; None where it does not, or asks for all flags.

    Args:
        argv: The command, then its flags.
    """
    if not set(_FLAGS) & set(argv) or _asks_for_all(argv):
        return None
    return (_PAGES / f"{argv[0]}.txt").read_text(encoding="utf-8").rstrip()


def for_parser(argv: list[str]) -> list[str]:
    """Return what the command's parser is to see: its own --help, which lists all flags, for `--help all`."""
    return [argv[0], "--help"] if _asks_for_all(argv) else argv


def _asks_for_all(argv: Sequence[str]) -> bool:
    return any(word in _FLAGS and following == "all" for word, following in pairwise(argv))
