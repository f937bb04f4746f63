"""Load a trained classifier from its completed checkpoint alone."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

import kth_lightning.models
from kth_lightning.errors import InputError
from kth_lightning.models import Classifier


def load_classifier(path: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """Build the classifier that a run's best.ckpt holds, in evaluation mode.

    Neither its data nor its pretrained weights are needed: the file carries the trunk, the class names, the size of the
    pictures and the temperature. Nothing in it is executed.

    Args:
        path: A completed `checkpoints/best.ckpt`.
        device: Where to put the classifier.

    Raises:
        InputError: The file is missing, no checkpoint of ours, cut short, or of a run that has not ended.
    """
    checkpoint = read_checkpoint(path)
    if not checkpoint.get("complete"):
        raise InputError(
            f"--ckpt_path: {path} holds the trained part alone; give checkpoints/best.ckpt of a run that has finished"
        )
    settings = dict(checkpoint["hyper_parameters"])
    kind = getattr(kth_lightning.models, str(checkpoint["class_path"]).rpartition(".")[2], None)
    if not (isinstance(kind, type) and issubclass(kind, Classifier)):
        raise InputError(f"--ckpt_path: {path} was made by a newer kth_lightning ({checkpoint['class_path']}); update")
    # The weights are in the file; those that training began with may be gone.
    own = {"weights": "none", "weights_sha256": None, "init_head_from": None}
    try:
        model = kind(**settings | {name: value for name, value in own.items() if name in settings})
        model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--ckpt_path: {path} does not fit this version of kth_lightning ({reason})") from None
    return model.eval().requires_grad_(False).to(device)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU, without running anything in it.

    Raises:
        InputError: The file is missing, cut short, or another program's.
    """
    if not Path(path).is_file():
        raise InputError(f"--ckpt_path: there is no file {path}; give a run's checkpoints/best.ckpt")
    try:
        checkpoint = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError):
        checkpoint = None
    if not isinstance(checkpoint, dict) or "weights_sha256" not in checkpoint:
        raise InputError(f"--ckpt_path: {path} is no checkpoint of kth_lightning, or was cut short")
    return checkpoint
