"""Work done ahead by other threads, in order and in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def bounded_map(
    submit: Callable[[_Item], Future[_Result]], items: Iterable[_Item], ahead: int
) -> Generator[_Result, None, None]:
    """Yield the results of items in their order, while at most `ahead` of them are under way or wait to be taken.

    `Executor.map` starts them all: where results are taken more slowly than they come, all of them pile up.
    """
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
