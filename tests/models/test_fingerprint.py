import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from textwrap import dedent
from threading import Lock
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from torch import nn

from kth_lightning.models.fingerprint import fingerprint
from kth_lightning.models.layers import spare_single_values
from kth_lightning.stores.value_hash import UntoldError

LAYER = "from torch import nn\n\n\nclass Scale(nn.Module):\n    def __init__(self, by):\n        super().__init__()\n"
LAYER += "        self.by = by\n\n    def forward(self, x):\n        return x {} self.by\n"


@pytest.fixture
def scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """Write somebody's layer that is printed like any other of its name, and make one."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(by: float, sign: str = "*") -> nn.Module:
        (tmp_path / "somebodys.py").write_text(LAYER.format(sign))
        sys.modules.pop("somebodys", None)
        import somebodys

        return somebodys.Scale(by)

    yield make
    sys.modules.pop("somebodys", None)


def test_networks_of_the_same_layers_settings_and_weights_are_the_same(scale: Callable[..., nn.Module]) -> None:
    def network(seed: int = 0, eps: float = 1e-5, by: float = 2.0, sign: str = "*") -> bytes:
        torch.manual_seed(seed)
        return fingerprint(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), scale(by, sign)).eval())

    assert network() == network()
    others = [network(seed=1), network(eps=1e-3), network(by=3.0), network(sign="+")]
    assert len({network(), *others}) == 5


class Holds(nn.Module):
    """Somebody's layer with any attribute."""

    def __init__(self, part: object) -> None:
        super().__init__()
        self.part = part


def double(images: torch.Tensor) -> torch.Tensor:
    return images * 2


def buffered(value: float) -> nn.Module:
    layer = nn.Sequential()
    layer.register_buffer("shift", torch.tensor(value), persistent=False)
    return layer


def hooked(hook: Callable[..., None]) -> nn.Module:
    layer = nn.Conv2d(3, 4, 3).requires_grad_(False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.register_forward_hook(hook)
    return layer


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


PAIRS: dict[str, list[Callable[[], nn.Module]]] = {
    "lists": [lambda: Holds([0.5, 0.5]), lambda: Holds([0.5, 0.0])],
    "dicts": [lambda: Holds({"mean": 0.5}), lambda: Holds({"mean": 0.0})],
    "sets": [lambda: Holds({"blue", "red"}), lambda: Holds({"blue", "green"})],
    "tensors": [lambda: Holds(torch.zeros(3)), lambda: Holds(torch.ones(3)), lambda: Holds(torch.zeros(3, 1))],
    "arrays": [lambda: Holds(np.zeros(3)), lambda: Holds(np.ones(3))],
    "functions": [lambda: Holds(torch.relu), lambda: Holds(torch.tanh), lambda: Holds(double)],
    "partials": [lambda: Holds(partial(double, n=1)), lambda: Holds(partial(double, n=2))],
    "layers in a list": [lambda: drawn(lambda: Holds([nn.Linear(2, 2)])), lambda: Holds([nn.Linear(2, 2)])],
    "buffers that no checkpoint has": [lambda: buffered(1.0), lambda: buffered(2.0)],
    "hooks": [lambda: hooked(print), lambda: hooked(double)],
    "heads": [
        lambda: drawn(lambda: nn.TransformerEncoderLayer(8, 2, 16)),
        lambda: drawn(lambda: nn.TransformerEncoderLayer(8, 4, 16)),
        lambda: drawn(lambda: nn.TransformerEncoderLayer(8, 2, 16, norm_first=True)),
    ],
    "heads of timm's": [
        lambda: drawn(lambda: timm.create_model("vit_tiny_patch16_224", depth=1)),
        lambda: drawn(lambda: timm.create_model("vit_tiny_patch16_224", depth=1, num_heads=4)),
    ],
}


@pytest.mark.parametrize("kind", PAIRS)
def test_whatever_layers_hold_tells_them_apart(kind: str) -> None:
    assert all(fingerprint(make().eval()) == fingerprint(make().train()) for make in PAIRS[kind][:1])
    assert len({fingerprint(make().eval()) for make in PAIRS[kind]}) == len(PAIRS[kind])


FILES = {
    "theirs/__init__.py": "",
    "theirs/net.py": """
        from .base import Base
        from theirs import helpers

        class Net(Base):
            def forward(self, images):
                from theirs.late import shift
                return shift(helpers.scale(images))
    """,
    "theirs/base.py": "from torch import nn\n\nclass Base(nn.Module):\n    factor = 1\n",
    "theirs/helpers.py": "from theirs.constants import SCALE\n\ndef scale(images):\n    return images * SCALE * 1\n",
    "theirs/constants.py": "SCALE = 1\n",
    "theirs/late.py": "def shift(images):\n    return images + 1\n",
    "theirs/other.py": "A = 1\n",
}


def test_code_of_ones_own_in_other_files_tells_layers_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def write(edited: str = "") -> bytes:
        for name, code in FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(dedent(code).replace("1", "12" if name == edited else "1"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        return fingerprint(importlib.import_module("theirs.net").Net())

    edited = [f"theirs/{name}.py" for name in ("base", "helpers", "constants", "late")]
    first = write()
    assert write() == write("theirs/other.py") == first
    assert len({first, *map(write, edited)}) == 1 + len(edited)
    assert "theirs.late" not in sys.modules


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (lambda images: images, r"it holds a .*<lambda>; put a plain value, a tensor, or a class"),
        (Lock(), r"it holds a _thread\.lock; put"),
        (torch.zeros(2).to_sparse(), r"it holds a torch\.Tensor; put"),
    ],
)
def test_what_has_no_value_to_be_told_by_is_refused(part: object, named: str) -> None:
    with pytest.raises(UntoldError, match=named):
        fingerprint(Holds(part))


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_a_class_of_a_notebook_is_refused(file: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("__main__")
    if file:
        notebook.__file__ = file
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    exec("from torch import nn\nclass Scale(nn.Module):\n    pass", vars(notebook))
    with pytest.raises(
        UntoldError, match=r"the code of __main__ is in no file; write it into a module, and import that"
    ):
        fingerprint(nn.Sequential(notebook.Scale()))


def test_what_training_hooks_into_layers_does_not_tell_them_apart() -> None:
    norm = nn.BatchNorm2d(3)
    before = fingerprint(norm)
    spare_single_values(norm)
    assert fingerprint(norm) == before


def test_networks_of_timms_names_have_the_keys_that_they_had_in_earlier_versions() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    for item in network.parameters():
        nn.init.constant_(item, 0.5)
    assert (
        fingerprint(network, built_by_name=True).hex()
        == "f16e38ba9978b873f010ae066b41788d5dc0167cb4b40c1ba9d6b7eda6e60bab"
    )
    network.append(Holds([1.0]))
    other = nn.Sequential(*network[:2], Holds([2.0]))
    assert fingerprint(network, built_by_name=True) != fingerprint(other, built_by_name=True)


@pytest.mark.slow
def test_the_hash_is_the_same_in_another_process() -> None:
    code = """
import torch
from torch import nn
from kth_lightning.models import FeatureHead
from kth_lightning.models.fingerprint import fingerprint
torch.manual_seed(0)
networks = [FeatureHead(3, backbone=name, weights="none", image_size=224).trunk for name in ("resnet10t", "levit_128s")]
networks[0].names = {"a", "b", "c", "d"}
networks[0].register_forward_hook(print)
found = [fingerprint(network).hex() for network in networks]
"""
    nn.ReLU().register_forward_hook(print)
    here: dict[str, list[str]] = {}
    exec(code, here)
    command = [sys.executable, "-c", f"{code}print(found)"]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert there.splitlines()[-1] == str(here["found"])
