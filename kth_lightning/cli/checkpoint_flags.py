"""The flags that name a checkpoint, for every command that uses one alone."""

from pathlib import Path

from jsonargparse.typing import register_type

from kth_lightning.cli.parser import Parser
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import import_part
from kth_lightning.models import Classifier


class FilePath(str):
    """Path of a file as typed, the user's folder for a leading ~: no shell does that behind --ckpt_path=."""


# `--help` shows of a function where it lies in memory, of a registered type its name.
register_type(FilePath, str, lambda path: FilePath(Path(path).expanduser()))


def add_checkpoint_flags(parser: Parser) -> None:
    """Add `--ckpt_path` and `--model_class`."""
    parser.add_argument(
        "--ckpt_path",
        type=FilePath,
        required=True,
        help="Checkpoint of a finished run: RUN/checkpoints/best.ckpt.",
    )
    parser.add_argument(
        "--model_class",
        type=str | None,
        default=None,
        help="Class of the checkpoint, such as mine.MyNet, where that is your own: its code is imported and run.",
    )


def add_calibrated_flag(parser: Parser) -> None:
    """Add `--calibrated`, for the commands that give probabilities."""
    parser.add_argument(
        "--calibrated",
        type=bool,
        default=False,
        help="Adjust the probabilities to how often the model is right: divide the logits by the temperature that was "
        "fitted on the validation images.",
    )


def import_model_class(path: str | None) -> type[Classifier] | None:
    """Import the class that `--model_class` names; None where it was left out.

    Raises:
        InputError: There is no such class, or it is no classifier.
    """
    if path is None:
        return None
    kind = import_part(path, "--model_class")
    if not (isinstance(kind, type) and issubclass(kind, Classifier)):
        raise InputError(f"--model_class {path}: this is not a subclass of Classifier; give the checkpoint's class")
    return kind
