"""Pictures that may fail and cost a warning alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from kth_lightning.io.terminal import print_rank_zero


@contextmanager
def attempt(loss: str) -> Iterator[None]:
    """Print a warning where what is done here fails, and go on behind it.

    Args:
        loss: What there will not be then, such as "figures/curves.png is not drawn".
    """
    try:
        yield
    except Exception as error:  # whatever it is, the run goes on
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print_rank_zero(f"warning: {loss} ({reason[:300]})")
