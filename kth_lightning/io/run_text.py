"""The text of a run folder's files, and the sentences where there is none."""

from pathlib import Path

from kth_lightning.errors import InputError


def read_text(file: Path) -> str:
    """Return a file's text, with its line ends as they are.

    Raises:
        InputError: The file is missing or damaged.
    """
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        raise InputError(f"{file} is missing; its run has not finished, so start that run again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: object) -> InputError:
    """Return the sentence that a file of a run is damaged, and how."""
    return InputError(f"{file} is damaged ({error}); delete it and start its run again")
