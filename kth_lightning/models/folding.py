"""A frozen network as it computes fastest: fewer operators, and weights that no step has to convert."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from kth_lightning.models.base import Classifier
from kth_lightning.models.dataflow import Step, record
from kth_lightning.models.fusing import FusedConv2d, fuse


class Folded:
    """Run a frozen network as `fold` makes it.

    Under autocast, the weights are converted once instead of at every call; what comes out is the same to the bit.
    Folding rounds otherwise. The network itself stays as it is.

    Args:
        network: In evaluation mode; on its device, and under the autocast of the calls, when the first call comes. All
            calls are with images of one size.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._folded: nn.Module | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map what the network takes, [B, ...], to what it gives."""
        if self._folded is None:
            with torch.inference_mode(False), torch.no_grad():
                probe = inputs[:1].clone()  # a normal tensor, where the call is in inference mode
                self._folded = _converted(fold(self._network, probe), probe)
        result: Tensor = self._folded(inputs)
        return result


def fold_trunk(model: Classifier) -> Classifier:
    """Return a classifier whose trunk computes the same, apart from rounding, in less time and without gradients."""
    if model.trunk is None or not has_norms(model.trunk):
        return model
    with torch.inference_mode(False), torch.no_grad():
        copy, size = deepcopy(model), (1, 3, model.image_size, model.image_size)
        assert copy.trunk is not None
        image = torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0)).to(model.device)
        folded = fold(model.trunk, model.preprocess(image))
        if folded is model.trunk:
            return model
        for name, module in folded.named_modules():
            # What stays as it is stays the copy's own, which knows it by other names too, such as that of its average.
            if name and _is_changed(module, copy.trunk.get_submodule(name)):
                copy.trunk.set_submodule(name, module)
        with torch.autocast(image.device.type, enabled=False):  # which rounds more than the two may differ by
            return copy if _agree(copy, model, image) else model


def _is_changed(module: nn.Module, before: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return type(module) is not type(before)
    ours, theirs = module.state_dict(), before.state_dict()
    return ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours)


def has_norms(network: nn.Module) -> bool:
    """Tell whether a network has batch normalisation that could be folded."""
    return any(_is_norm(module) for module in network.modules())


def fold(network: nn.Module, probe: Tensor) -> nn.Module:
    """Return a copy whose convolutions do what lies around them.

    That is batch normalisation and, on a CPU, activation and padding. A network without batch normalisation stays as
    it is, and so does what does not surely give the same.

    Args:
        network: In evaluation mode.
        probe: What it takes, [1, ...], of the size of all images; what follows what is seen on it, and so is that the
            copy gives the same.
    """
    numbers = (item for item in network.parameters() if item.is_floating_point())
    if not has_norms(network) or any(item.dtype != torch.float32 for item in numbers):
        return network
    with torch.autocast(probe.device.type, enabled=False), torch.no_grad():
        folded = _changed(network, _without_norms, probe.float())
        if probe.device.type != "cpu":
            return folded
        fused = _changed(folded, fuse, probe.float())
    try:
        fused(probe)  # under the autocast of the calls, whose dtype not every processor's oneDNN has
    except RuntimeError:
        return folded
    return fused


def _changed(network: nn.Module, change: Callable[[nn.Module, Tensor], None], probe: Tensor) -> nn.Module:
    """Return a changed copy, or the network itself where that does not give the same."""
    copy = deepcopy(network)
    noise = torch.randn(probe.shape, generator=torch.Generator().manual_seed(0)).to(probe.device)
    try:
        change(copy, probe)
    except Exception:  # what hooks of a network do with other modules than they know, or torch on another machine
        return network
    return copy if _agree(copy, network, torch.cat([probe, noise, 10 * noise])) else network


def _agree(copy: nn.Module, network: nn.Module, images: Tensor) -> bool:
    """Tell whether two networks give the same for each image, apart from rounding."""
    wanted = network(images)
    try:
        far = (copy(images) - wanted).abs().flatten(1).amax(1)
    except Exception:
        return False
    return bool((far <= 1e-4 * wanted.abs().flatten(1).amax(1)).all())


def _without_norms(network: nn.Module, probe: Tensor) -> None:
    steps, _ = record(network, network, probe)
    for convolution, norm in _pairs(steps):
        assert isinstance(convolution.module, nn.Conv2d)
        assert isinstance(norm.module, nn.BatchNorm2d)
        network.set_submodule(convolution.name, fuse_conv_bn_eval(convolution.module, norm.module))
        network.set_submodule(norm.name, _behind(norm.module))


def _pairs(steps: list[Step]) -> list[tuple[Step, Step]]:
    """Return the convolutions, each called once, whose output a normalisation took, that was called once too."""
    calls = Counter(id(step.module) for step in steps)
    once = [step for step in steps if calls[id(step.module)] == 1]
    made = {id(step.given): step for step in once if isinstance(step.module, nn.Conv2d)}
    pairs = [(made.get(id(step.taken)), step) for step in once if _is_norm(step.module)]
    return [(convolution, norm) for convolution, norm in pairs if convolution]


def _is_norm(module: nn.Module) -> bool:
    return type(module) in (nn.BatchNorm2d, BatchNormAct2d)  # subclasses may do more


def _behind(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a normalisation does behind normalising."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _converted(network: nn.Module, probe: Tensor) -> nn.Module:
    """Return a copy that has its weights in autocast's dtype, or the network where that changes anything."""
    device = probe.device.type
    if not torch.is_autocast_enabled(device):
        return network
    copy = deepcopy(network)
    for module in copy.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | FusedConv2d):
            module.to(torch.get_autocast_dtype(device))
    return copy if torch.equal(copy(probe), network(probe)) else network
