"""By what stored views of augmentations are told apart."""

import hashlib
import io
import pickle
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from kth_lightning.data.augmentation.augmentation import Augmentation
from kth_lightning.io.class_path import class_path


def augmentation_identity(augmentation: Augmentation) -> str | None:
    """Return a text that two augmentations share only where they draw the same views; None where that cannot be told.

    It is the class with the attribute `identity` where there is one. Otherwise it is made of the object's state, and of
    the files and versions of the modules whose classes and functions are in it: whoever edits a transform gets new
    views. An object that was used may have another state than before, so ask early.
    """
    name = class_path(augmentation)
    stated = getattr(augmentation, "identity", None)
    if stated is not None:
        return f"{name} {stated}"
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    try:
        pickler.dump(augmentation)
        digest = hashlib.sha256(stream.getvalue())
        for module in sorted(pickler.modules):
            digest.update(_code(sys.modules[module]))
    except Exception:  # whatever it is that cannot be pickled raises: a lambda, an open file, a class in a function
        return None
    return f"{name} {digest.hexdigest()}"


class _Pickler(pickle.Pickler):
    """Pickle an object, and note the modules that what is in it comes from."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=4)
        self.modules: set[str] = set()

    def persistent_id(self, obj: Any) -> None:
        """Note where an object, or the class or function that it is, was written."""
        self.modules.add((obj if isinstance(obj, type | FunctionType) else type(obj)).__module__)


def _code(module: ModuleType) -> bytes:
    package = sys.modules[module.__name__.partition(".")[0]]
    version = f"{module.__name__} {getattr(package, '__version__', '')}".encode()
    file = getattr(module, "__file__", None)
    return version + (Path(file).read_bytes() if file else b"")
