"""What every augmentation answers: one view of each image, without a state."""

from abc import ABC, abstractmethod
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import Tensor

from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path


class Augmentation(ABC):
    """Draws of images, called views; view 0 is the clean image.

    What is drawn for an image depends on its key and the view alone: not on the batch around it, not on what was drawn
    before, not on torch's, NumPy's or Python's random numbers. So features of a view can be stored, and a run that was
    interrupted goes on with the same views. `kth_lightning.testing.check_augmentation` tells whether this is so.

    Any object that is called like this is an augmentation, and need not be of a subclass. Where it has an attribute
    `identity`, that is a text which changes whenever the views do: stored views are shared by what has the same class
    and identity. Without it they are told apart by the object's class, code and settings.
    """

    @abstractmethod
    def __call__(self, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
        """Return one view of each image.

        Args:
            images: uint8 [B, 3, H, W], in any memory format, on any device.
            keys: int64 [B] on the same device, a number for each image that stays the same.
            views: int64 [B] on the same device; where it is 0 the image comes back unchanged.

        Returns:
            uint8 [B, 3, H, W] on the same device.
        """

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        # So that --data.augmentation takes a class that was written without a look at this one. A function is named in
        # a configuration by its path alone, and goes through `make_augmentation`.
        if cls is not Augmentation or issubclass(other, type | FunctionType | BuiltinFunctionType):
            return NotImplemented
        return any("__call__" in base.__dict__ for base in other.__mro__)


def augmented(augmentation: Augmentation, images: Tensor, keys: Tensor, views: Tensor) -> Tensor:
    """Call an augmentation, and look at what it returns.

    Raises:
        InputError: It returns another shape or type than it was given.
    """
    result = augmentation(images, keys, views)
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (images.shape, images.dtype):
        raise InputError(
            f"the augmentation {class_path(augmentation)} returns {described(result)} for {described(images)}; let it "
            "return the shape and type that it is given, since the model itself scales and normalises"
        )
    return result


def described(images: object) -> str:
    """Write the type and shape of images, such as "uint8 [20, 3, 64, 64]"."""
    if not isinstance(images, Tensor):
        return type(images).__name__
    return f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
