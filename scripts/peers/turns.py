"""The conversation of a participant with the benchmark: JSON lines, over what was its standard output.

A participant trains as always and calls `step` after every batch or epoch. Out of its turn it waits inside that call.
Nothing beyond the standard library is needed, since this file is read by the environments of the peers.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("keras", "tensorflow", "torch", "torchvision", "timm", "fastai", "lightning", "numpy", "pillow")


def read_task() -> dict[str, Any]:
    """Return what the benchmark wants measured: the first line of standard input."""
    return json.loads(sys.stdin.readline())


class Turns:
    """Train when it is this participant's turn, and measure how long that takes.

    Args:
        synchronise: Waits for the device to finish, where it works on its own.

    Attributes:
        facts: What the benchmark is told in the end, beside the peak of memory.
    """

    def __init__(self, synchronise: Callable[[], object] = lambda: None) -> None:
        self._synchronise = synchronise
        # What libraries print goes to standard error.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.facts: dict[str, Any] = {}
        self._untimed = self._timed = self._images = 0
        self._seconds = 0.0
        self._started: float | None = None

    def ready(self, parameters: int, device: str) -> None:
        """Say what is about to be trained, and wait for the first turn.

        Args:
            parameters: How many numbers are trained; in a network that extracts features, how many there are.
            device: Name of the device.
        """
        self._answer(parameters=parameters, device=device, versions=_versions())
        self._wait()

    def step(self, images: int) -> None:
        """Count a batch or an epoch, and wait if it was the last of this turn.

        Args:
            images: How many there were in it.
        """
        if self._untimed:
            self._untimed -= 1
            if self._untimed == 0 and self._timed:
                self.resume()
        else:
            self._timed -= 1
            self._images += images
        if self._untimed == self._timed == 0:
            self.pause()
            self._answer(seconds=self._seconds, images=self._images)
            self._wait()

    def pause(self) -> None:
        """Stop the clock, if it runs."""
        self._synchronise()
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = None

    def resume(self) -> None:
        """Let the clock run where the batches that count have begun."""
        if self._untimed == 0 and self._timed and self._started is None:
            self._synchronise()
            self._started = time.perf_counter()

    def _wait(self) -> None:
        order = json.loads(sys.stdin.readline() or "{}")
        if not order:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            self._answer(peak_memory=peak, **self.facts)
            os._exit(0)  # training has no end of its own, and nothing of it is kept
        self._untimed, self._timed = order["untimed"], order["timed"]
        self._images, self._seconds = 0, 0.0

    def _answer(self, **facts: Any) -> None:
        print(json.dumps(facts), file=self._answers, flush=True)


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
