"""Locks, so that no two commands write into a run folder or a file at once."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kth_lightning.errors import InputError
from kth_lightning.io.output_folder import make_output_folder
from kth_lightning.io.terminal import is_first_process
from kth_lightning.io.walk import MARK

LOCK = ".lock"
"""Name of the file in the folder; it stays there."""


def hold(file: Path, busy: str) -> FileLock:
    """Hold a lock file, without waiting; the system lets go of it when the process ends, however it ends.

    Args:
        file: Made where it is missing.
        busy: What to say where another command holds it.

    Raises:
        InputError: Another command holds it.
        OSError: The folder cannot be written.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(busy) from None
    except NotImplementedError as error:  # a file system without locks
        raise OSError(errno.ENOLCK, str(error), str(file)) from None
    return lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other commands.

    The processes of one run share the lock, which the first of them holds. The system lets go of it when that process
    ends, however it ends. A folder that has nothing else at the end goes again.

    Args:
        folder: Made where it is missing.

    Raises:
        InputError: Another command holds it, or it is a folder of images.
        OSError: The folder cannot be written.
    """
    if not is_first_process():
        yield
        return
    missing = [item for item in (folder, *folder.parents) if not item.exists()]
    make_output_folder(folder, "--run_dir")
    busy = f"another command is at work in {folder}; wait until it has ended, or stop it, and repeat this one"
    lock = hold(folder / LOCK, busy)
    try:
        yield
    finally:
        if {item.name for item in folder.iterdir()} == {LOCK, MARK}:
            (folder / LOCK).unlink()  # while it is held: who waits for it then sees that it is gone
            (folder / MARK).unlink()
            for item in missing:
                with suppress(OSError):  # somebody else has put something there
                    item.rmdir()
        lock.release()
