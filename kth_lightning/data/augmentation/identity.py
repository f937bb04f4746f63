"""By what stored views of augmentations are told apart."""

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.io.class_path import class_path
from kth_lightning.stores.value_hash import UntoldError, value_hash


def augmentation_identity(augmentation: Augmentation) -> str | None:
    """Return a text that two augmentations share only where they draw the same views; None where that cannot be told.

    It is the class with the attribute `identity` where there is one. Otherwise it is made of the object's state and of
    its code, as `value_hash` says: whoever edits a transform gets new views.
    """
    name = class_path(augmentation)
    stated = getattr(augmentation, "identity", None)
    if stated is not None:
        return f"{name} {stated}"
    try:
        return f"{name} {value_hash(augmentation).hex()}"
    except UntoldError:
        return None
