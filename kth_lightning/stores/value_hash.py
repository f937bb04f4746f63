"""By what objects are told apart whose work is stored: what they hold, by value, and their code."""

import hashlib
import io
import pickle
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from kth_lightning.io.class_path import class_path
from kth_lightning.stores.own_code import code_of, is_own


class UntoldError(Exception):
    """Say what keeps an object from being told from others like it, and what to do."""


def value_hash(*objects: object) -> bytes:
    """Return a hash that objects share only where they do the same.

    It is made of all that they hold, by value, and of the files and versions of the modules that classes and functions
    among it come from: whoever edits one gets another hash. Modules of layers are the same in training and in
    evaluation mode, and so are tensors on any device. An object that was used may have another state than before, so
    ask early.

    Raises:
        UntoldError: Something among it has no value that another process finds again (a lambda, an open file, a class
            in a function), or its code is in no file, as that of a notebook.
    """
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    try:
        for one in objects:
            pickler.dump(one)
    except Exception as error:  # whatever it is that cannot be pickled raises
        raise UntoldError(
            f"it holds a {class_path(pickler.last)}; put a plain value, a tensor, or a class or function that has a "
            "name in a module in its place"
        ) from error
    digest = hashlib.sha256(stream.getvalue())
    try:
        for code in code_of(set(_modules(pickler.kinds))):
            digest.update(code)
    except FileNotFoundError as error:
        raise UntoldError(
            f"the code of {error.filename} is in no file; write it into a module, and import that"
        ) from None
    return digest.digest()


class _Pickler(pickle.Pickler):
    """Pickle objects, and note the classes and functions that they are made of."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=4)
        self.kinds: set[type | FunctionType] = set()
        self.last: type | FunctionType = object

    def persistent_id(self, obj: Any) -> object:
        """Note what an object is, and give what has no bytes of its own that stay the same a form that does."""
        self.last = obj if isinstance(obj, type | FunctionType) else type(obj)
        self.kinds.add(self.last)
        if isinstance(obj, Tensor):
            data = obj.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            return "tensor", str(obj.dtype), tuple(obj.shape), hashlib.sha256(data).digest()
        if isinstance(obj, set | frozenset) and len(obj) > 1:  # its order differs between processes
            return "set", sorted(obj, key=repr)
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Leave out of a layer what may differ where it computes the same."""
        if not isinstance(obj, nn.Module):
            return NotImplemented
        parts: Any = obj.__reduce_ex__(4)
        make, args, state, *rest = parts
        return make, args, _settled(state) if isinstance(state, dict) else state, *rest


def _settled(state: dict[str, Any]) -> dict[str, Any]:
    """Say that a layer is in training mode, and number its hooks, which torch numbers through the process, from 0."""
    hooks: dict[str, dict[int, Any]] = {
        name: state[name]
        for name, value in vars(nn.Module()).items()
        if isinstance(value, dict) and state.get(name) and all(isinstance(key, int) for key in state[name])
    }
    others = sorted(
        {key for one in hooks.values() for key, hook in one.items() if callable(hook) and not _is_ours(hook)}
    )
    numbered = {
        name: type(one)((number, one[key]) for number, key in enumerate(others) if key in one)
        for name, one in hooks.items()
    }
    return state | {"training": True} | numbered


def _is_ours(hook: object) -> bool:
    """Tell whether this package hooked itself in, which changes nothing that is stored."""
    return (getattr(hook, "__module__", None) or "").startswith("kth_lightning.")


def _modules(kinds: set[type | FunctionType]) -> Iterator[str]:
    for kind in kinds:
        yield kind.__module__
        for base in kind.__mro__ if isinstance(kind, type) else ():
            if is_own(base.__module__):
                yield base.__module__
