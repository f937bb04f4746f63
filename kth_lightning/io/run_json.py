"""JSON files of a run folder, which know by what format they were written."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kth_lightning.errors import InputError
from kth_lightning.io.atomic_file import write_atomically
from kth_lightning.io.run_text import damaged, read_text

FORMAT = 1
"""Of run folders; it rises when a file of theirs changes its meaning."""


class NewerFormatError(InputError):
    """Refuse a run folder that a later version wrote, which may mean other things by the same words."""

    def __init__(self, file: Path, number: int) -> None:
        super().__init__(
            f"{file} was written by a newer kth_lightning (its format is {number}, and this one knows {FORMAT}); "
            "update kth_lightning, or give another folder"
        )


def write_json(content: Mapping[str, Any], file: Path) -> None:
    """Write plain nested values as JSON, with null in place of NaN and infinity, and the format."""
    text = json.dumps({"format": FORMAT} | _finite(content), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(text + "\n", file)


def read_json(file: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        InputError: The file is missing or damaged.
        NewerFormatError: A later version wrote it.
    """
    try:
        content = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise damaged(file, error) from None
    if not isinstance(content, dict):
        raise damaged(file, "no JSON object")
    number = content.get("format", FORMAT)
    if isinstance(number, int) and number > FORMAT:
        raise NewerFormatError(file, number)
    if number != FORMAT:
        raise damaged(file, f"format {number!r}")
    return content


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
