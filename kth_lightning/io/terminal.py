"""What a run tells the person at the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tqdm import tqdm

_hushed: ContextVar[bool] = ContextVar("hushed", default=False)


def is_first_process() -> bool:
    """Tell the first process of a run from the others that were started with it, before they have met."""
    # Lightning's launches number processes on their machine and machines, torchrun and SLURM the processes of all.
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_PROCID"))


def print_rank_zero(text: str) -> None:
    """Print a line on standard error, from the first process of a run alone."""
    if is_first_process() and (text.startswith("warning") or not _hushed.get()):
        tqdm.write(printable(text), file=sys.stderr)  # above a progress bar, where there is one


@contextmanager
def hushed() -> Iterator[None]:
    """Print no lines but warnings inside, where a command does many times what says each time the same."""
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


def printable(text: str) -> str:
    """Escape what steers a terminal, which names of files and classes may have in them; lines stay lines."""
    return "".join(
        item if item == "\n" or item.isprintable() else item.encode("unicode_escape").decode() for item in text
    )
