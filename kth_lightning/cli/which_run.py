"""Which run a command means, and what that run began with."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from kth_lightning.cli.run_name import default_run_dir, runs_alike
from kth_lightning.cli.same_run import Begun, MakeImages, find_difference
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.terminal import print_rank_zero


def choose_folder(config: Namespace, given: dict[str, Any], recorded: bool, make: MakeImages) -> RunFolder:
    """Return the folder of the run that is asked for.

    Args:
        config: Of the command.
        given: Its settings as they were given, flat.
        recorded: Whether the command fills the folder.
        make: Makes images of data settings.
    """
    if config.run_dir is not None:
        return RunFolder(Path(config.run_dir))
    run = RunFolder(default_run_dir(config.model.class_path, given))
    if recorded and not run.config.exists():
        for other in runs_alike(config.model.class_path, given):
            if other.splits.exists() and not find_difference(other, config.data, make):
                print_rank_zero(f"using {other.path}: the same settings, and the same images in another place")
                return other
    return run


def read_begun(run: RunFolder, continues: bool, held: ExitStack) -> Begun | None:
    """Read what a run folder holds; keep other commands off it until this one ends, unless it is finished.

    Args:
        run: The folder.
        continues: Whether the run begins where another one ended.
        held: Takes the lock.

    Raises:
        InputError: The folder is a file or damaged, or another command is at work in it.
    """
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"--run_dir {run.path} is a file; give a folder")
    if not run.finished:
        held.enter_context(locked(run.path))
    if continues and not run.config.exists():
        return None  # whatever an interrupted command has copied is copied again
    return Begun.read(run)
