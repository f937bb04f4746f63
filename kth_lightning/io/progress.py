"""How far a command is: a bar at a terminal, a line every few seconds in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 10.0
"""Between two lines of a log file."""

_BAR = "{desc} |{bar:20}| {n_fmt} of {total_fmt} {unit}, {remaining} left{postfix}"
_COUNT = "{desc}: {n_fmt} {unit}, {elapsed}{postfix}"
_TERMINAL_DELAY = 0.5  # seconds; what is done by then shows no bar

_stages: ContextVar[tuple[str, ...]] = ContextVar("stages", default=())


@contextmanager
def stages(*names: str) -> Iterator[None]:
    """Number the stages of a command: inside, the progress of one of them shows its place, such as 3/5.

    Args:
        names: In their order. What an earlier command has left done is passed over.
    """
    token = _stages.set(names)
    try:
        yield
    finally:
        _stages.reset(token)


class Progress(tqdm):
    """Show how far a stage is and how long it will take: as a bar that goes away, or as lines in a log file.

    Args:
        iterable: What is gone through; None where `update` counts.
        name: Of the stage.
        detail: What of it is done, where it has several parts.
        total: Number of things; that of the iterable by default.
        unit: What is counted, in the plural.
        given: What else tqdm takes, such as `initial` and `disable`.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        name: str = "",
        detail: str = "",
        total: int | None = None,
        unit: str = "images",
        **given: Any,
    ) -> None:
        names = _stages.get()
        place = f"{names.index(name) + 1}/{len(names)} " if name in names else ""
        known = total is not None or hasattr(iterable, "__len__")
        self._shown = _BAR if known else _COUNT
        self._in_log = not sys.stderr.isatty()
        self._last_line = self._began = time.monotonic()
        self._lines = 0
        pace = {"miniters": 1} if self._in_log else {"delay": _TERMINAL_DELAY}
        settings: dict[str, Any] = {
            "iterable": iterable,
            "desc": f"{place}{name}{f' ({detail})' if detail else ''}",
            "total": total,
            "unit": unit,
            "leave": False,
            "bar_format": self._shown,
            "dynamic_ncols": True,
            "mininterval": 0.1,
        }
        super().__init__(**settings | pace | given)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:  # type: ignore[override]
        """Show where it stands; in a log file by a new line, where the last one is some seconds old."""
        if not self._in_log:
            return super().display(msg, pos)
        now = time.monotonic()
        if msg is None and now - self._last_line >= LOG_SECONDS:
            state = {**self.format_dict, "bar_format": self._shown.replace(" |{bar:20}|", ":"), "ncols": None}
            self._write(self.format_meter(**state))
            self._last_line = now
        return False

    def clear(self, *given: Any, **named: Any) -> None:
        """Take the bar away for a moment; lines of a log file stay."""
        if not self._in_log:
            super().clear(*given, **named)

    def close(self) -> None:
        """End it; in a log file with a line, where there were lines before."""
        if getattr(self, "disable", True):  # not set yet where Ctrl-C came as tqdm set it up
            return
        super().close()
        if self._lines:
            seconds = time.monotonic() - self._began
            self._write(f"{self.desc}: {self.format_num(self.n)} {self.unit} in {seconds:.0f} s")

    def _write(self, line: str) -> None:
        self._lines += 1
        self.fp.write(f"{line}\n")
        self.fp.flush()
