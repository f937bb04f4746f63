import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from kth_lightning.models.fingerprint import fingerprint

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
