"""From a setting to the augmentation that it means."""

from difflib import get_close_matches

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.data.augmentation.presets import PRESETS, PresetAugmentation
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import import_part

NONE = "none"


def make_augmentation(augmentation: Augmentation | str, seed: int) -> Augmentation | None:
    """Make an augmentation.

    Args:
        augmentation: One that is made already, a key of `PRESETS`, or the import path of a function.
        seed: Of a preset.

    Returns:
        None for "none", which leaves images as they are.

    Raises:
        InputError: There is no such augmentation, or the seed is for another one.
    """
    if isinstance(augmentation, str) and augmentation in PRESETS:
        return None if augmentation == NONE else PresetAugmentation(augmentation, seed)
    if seed:
        raise InputError(
            f"--data.augmentation_seed {seed} goes with {', '.join(PRESETS)}; give other augmentations their own seed"
        )
    made = _function(augmentation) if isinstance(augmentation, str) else augmentation
    if isinstance(made, type) or not callable(made):
        raise InputError(
            f"--data.augmentation {augmentation} is not an augmentation: it cannot be called with images, keys and "
            "views"
        )
    return made


def _function(path: str) -> Augmentation:
    if "." not in path:
        near = get_close_matches(path, PRESETS)
        way = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise InputError(f"--data.augmentation {path!r} is unknown; {way}, or give a class such as mine.MyAugment")
    return import_part(path, "--data.augmentation")
