"""Trainings side by side, in processes of their own."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.terminal import hushed

_WORKERS = 2  # each holds a model and its images
_WORTH = 4000
"""Images in the trainings together below which processes take longer to start than they save."""


def are_worth_it(accelerator: str, images: int) -> bool:
    """Tell whether trainings go faster side by side: on a CPU with cores to spare, and enough of them.

    Args:
        accelerator: As given to the trainer, "auto" included.
        images: Training images of all trainings together.
    """
    other = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not other)
    return on_cpu and torch.get_num_threads() >= _WORKERS and images >= _WORTH


@contextmanager
def side_by_side() -> Iterator[Executor]:
    """Start the processes, which share this one's threads out; where the work ends early, they end with it.

    Raises:
        InputError: The system has ended one of them.
    """
    threads = max(1, torch.get_num_threads() // _WORKERS)
    context = multiprocessing.get_context("spawn")  # forked threads of torch would not go on
    with ProcessPoolExecutor(_WORKERS, context, _begin, (threads,)) as pool:
        try:
            yield pool
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.kill()  # Lightning would go on to the end of its epoch; what is written is whole
            pool.shutdown(cancel_futures=True)  # waits until they have ended
            if isinstance(error, BrokenProcessPool):
                raise InputError(
                    "a training process was killed by the system, probably for lack of memory; repeat the "
                    "command to continue"
                ) from None
            raise


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its processes
    torch.set_num_threads(threads)


def train_quietly(train: Callable[[RunFolder], object], run: RunFolder) -> None:
    """Train into a folder without the lines that each training prints alike.

    Raises:
        InputError: The training fails; of this class itself, which finds its way between processes.
    """
    try:
        with hushed():
            train(run)
    except InputError as error:
        raise InputError(str(error)) from None
