"""What a run started from: another run's checkpoint, known by its content."""

import hashlib
from pathlib import Path

from kth_lightning.models.checkpoint import read_checkpoint


def origin_digest(file: str | Path) -> str:
    """Return a hash of the head in a checkpoint, the same wherever the file lies.

    Raises:
        InputError: The file is missing or no checkpoint of ours.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(read_checkpoint(file)["state_dict"].items()):
        if name.startswith("head."):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
