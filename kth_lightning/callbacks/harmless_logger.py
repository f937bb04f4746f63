"""Loggers whose failure costs a run nothing."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning.pytorch.loggers import Logger

from kth_lightning.io.terminal import print_rank_zero

_CALLED = (
    "log_metrics", "log_hyperparams", "log_graph", "log_image", "save", "finalize", "after_save_checkpoint", "close",
)  # fmt: skip
"""What Lightning and the callbacks call of a logger, where it has it."""


def forgive(logger: Logger) -> Logger:
    """Have a logger that raises be left out from then on, after one warning.

    Args:
        logger: Is changed itself, and keeps its class.

    Returns:
        The logger.
    """
    broken: list[Exception] = []

    def harmless(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def attempt(*args: Any, **kwargs: Any) -> Any:
            if broken:
                return None
            try:
                return call(*args, **kwargs)
            except Exception as error:  # whatever it is, the run goes on
                broken.append(error)
                name, reason = type(logger).__name__, " ".join(f"{type(error).__name__}: {error}".split())[:300]
                print_rank_zero(f"warning: {name} failed and gets nothing more of this run, which goes on ({reason})")
                return None

        return attempt

    for name in _CALLED:
        if hasattr(type(logger), name):
            setattr(logger, name, harmless(getattr(logger, name)))
    return logger


def without_metrics(logger: Logger) -> Logger:
    """Return a logger's twin on the same experiment that passes over the figures which Lightning logs by itself."""
    getattr(logger, "experiment", None)  # made now where it is not yet, so that both share it
    twin = object.__new__(type(logger))  # a copy would open another experiment
    twin.__dict__ = logger.__dict__ | {"log_metrics": lambda *_, **__: None}
    return twin
