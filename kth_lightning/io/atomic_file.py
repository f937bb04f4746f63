"""Text files that are the old one or the whole new one, whenever the process ends."""

import os
from pathlib import Path


def write_atomically(text: str, file: Path) -> None:
    """Write text as UTF-8 such that the file is the old one or the whole new one, whenever the process ends.

    Folders above the file are made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
