"""What a checkpoint holds of a classifier beside its trained weights, and whether it fits one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kth_lightning.errors import InputError

if TYPE_CHECKING:
    from kth_lightning.models.base import Classifier

FORMAT = 2
"""Of the checkpoints that are written, and the highest that is read."""


def describe(model: "Classifier", checkpoint: dict[str, Any]) -> None:
    """Put what building the classifier again takes into a checkpoint, and leave the trunk out if a file has it.

    Writing it would take longer than many an epoch. A trunk that came from no file is written.
    """
    if model.weights_sha256():
        for key in model.frozen_state():
            del checkpoint["state_dict"][key]
    checkpoint["format"] = FORMAT
    checkpoint["class_path"] = f"{type(model).__module__}.{type(model).__qualname__}"
    checkpoint["hyper_parameters"] = dict(model.settings)
    checkpoint["weights_sha256"] = model.weights_sha256()


def complete(model: "Classifier", checkpoint: dict[str, Any]) -> None:
    """Put the classifier's trunk into a checkpoint that has none.

    Raises:
        InputError: The checkpoint was trained on another trunk, or to tell other classes apart.
    """
    names = checkpoint.get("hyper_parameters", {}).get("class_names")
    if names and model.class_names != names:
        differ = sorted(set(names) ^ set(model.class_names))
        raise InputError(
            f"--ckpt_path: the checkpoint was trained on {len(names)} classes and the data has "
            f"{len(model.class_names)} ({', '.join(differ[:5]) or 'in another order'}); give data with its own classes"
        )
    frozen = {key: value for key, value in model.frozen_state().items() if key not in checkpoint["state_dict"]}
    if frozen and checkpoint.get("weights_sha256", "") != model.weights_sha256():
        raise InputError(
            "--ckpt_path: the checkpoint was trained on other weights of the backbone than --model.weights gives; "
            f"give those with the hash {checkpoint.get('weights_sha256', '')[:12]}"
        )
    checkpoint["state_dict"].update(frozen)
    kinds, own = _kinds(checkpoint["state_dict"]), _kinds(model.state_dict())
    if kinds != own:
        key = min(key for key in {*kinds, *own} if kinds.get(key) != own.get(key))
        raise InputError(
            f"--ckpt_path: the checkpoint is not of this model (they differ in {key}); give its own config.yaml"
        )


def _kinds(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    return {key: (value.shape, value.is_complex()) for key, value in state.items()}
