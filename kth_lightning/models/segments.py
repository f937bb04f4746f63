"""A network parted where one tensor passes, and run in parts by its own code."""

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kth_lightning.models.dataflow import Step, record
from kth_lightning.models.stages import has_matrix, stage_beginnings


def find_places(network: nn.Module, run: Callable[[Tensor], Any], images: Tensor) -> list[Step]:
    """Find the first call in each stage that nothing of the images passes by.

    Args:
        network: In evaluation mode.
        run: One of its methods.
        images: One image of a size that it takes.

    Returns:
        The calls, in the order of the data. Their first tensor, a row for each image, is all that comes of the images
        up to there.
    """
    with _followed(network, images.expand(2, -1, -1, -1)) as followed:
        steps, _ = record(network, run, followed)
        calls = Counter(step.module for step in steps)
        units, positions = stage_beginnings(network, [step for step in steps if _depends(step.first)])
        alone = [unit for unit in units if calls[unit.module] == 1 and _rows(unit.first) == 2]
        passed_by = _passed_by(run, followed, [unit.module for unit in alone])
    fit = {unit for number, unit in enumerate(alone) if number not in passed_by}
    places: list[Step] = []
    end = len(units)
    for begin in reversed(positions):
        position = next((number for number in range(begin, end) if units[number] in fit), end)
        if all(has_matrix(unit.module for unit in part) for part in (units[:position], units[position:end])):
            places.insert(0, units[position])
            end = position
    return places


def part_at(network: nn.Module, method: str, places: Sequence[Step], image_size: int) -> list[nn.Module]:
    """Part a network before some calls of its modules.

    Args:
        network: In evaluation mode.
        method: Name of its method that maps images to what is wanted of it.
        places: From `find_places`.
        image_size: Side of the images that it will be given.

    Returns:
        Modules that one after the other do what the method does; none where they do not, such as where what a module
        is given beside its first tensor is no matter of the images' size alone.
    """
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        parts, output = _make_parts(network, method, [place.name for place in places], images)
    except Exception:  # whatever a network stumbles over that was not written to be run in parts
        return []
    with torch.no_grad():
        same = torch.allclose(output, getattr(network, method)(images), rtol=1e-3, atol=1e-5)
    return parts if same else []


def _make_parts(
    network: nn.Module, method: str, names: Sequence[str], images: Tensor
) -> tuple[list[nn.Module], Tensor]:
    """Make the parts, and return what comes of images in them too."""
    with _followed(network, torch.zeros_like(images)) as followed:
        steps, _ = record(network, getattr(network, method), followed)
    bounds = [None, *sorted((step for step in steps if step.name in names), key=lambda step: step.begin), None]
    data, parts = images, list[nn.Module]()
    for enter, leave in pairwise(bounds):
        part = _Part(_reduce(network, steps, enter, leave), method, enter, leave, images.shape[-1])
        data = _use_only_what_counts(part, data)
        parts.append(part)
    return parts, data


class _Part(nn.Module):
    """Run a network's own code from the call of one module to that of another.

    Args:
        network: With nothing but zeros from the modules before and behind.
        method: Name of the network's method.
        enter: The call whose first tensor is given; None for the images.
        leave: The call whose first tensor is returned; None for what the method returns.
        image_size: Side of the images.
    """

    def __init__(
        self, network: nn.Module, method: str, enter: Step | None, leave: Step | None, image_size: int
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.image_size = image_size
        self.enters = enter is not None
        self.leaves = leave is not None
        self.data: Tensor | None = None
        if enter is not None:
            network.get_submodule(enter.name).register_forward_pre_hook(self._enter)
        if leave is not None:
            network.get_submodule(leave.name).register_forward_pre_hook(self._leave)

    def forward(self, data: Tensor) -> Tensor:
        """Map what the first module is given to what the last one is."""
        images = data
        if self.enters:
            images = data.new_zeros(1, 1, 1, 1).expand(data.shape[0], 3, self.image_size, self.image_size)
        self.data = data
        output = getattr(self.network, self.method)(images)
        output, self.data = (self.data if self.leaves else output), None
        return output

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.data, *args[1:])

    def _leave(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.data = args[0]  # the network's own code goes on behind, with zeros


@dataclass(frozen=True)
class _Shape:
    """Stand for a tensor of this shape; a plain one may be what a module returns beside its data."""

    sizes: tuple[int, ...]


class _Zeros(nn.Module):
    """Return zeros of the shape that a module's data had, for as many images as come, and have its plain attributes.

    Args:
        step: The module's call.
    """

    def __init__(self, step: Step) -> None:
        super().__init__()
        assert step.first is not None
        self.rows = len(step.first)
        for name, value in vars(step.module).items():  # such as the size of a grid, which the network's code asks for
            if not hasattr(self, name):
                setattr(self, name, value)
        self.given = _map_tensors(step.given, lambda tensor: _Shape(tuple(tensor.shape)))

    def forward(self, data: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Make the zeros."""

        def zeros(given: Any) -> Any:
            if isinstance(given, _Shape):
                return data.new_zeros(given.sizes[0] * data.shape[0] // self.rows, *given.sizes[1:])
            return type(given)(map(zeros, given)) if isinstance(given, list | tuple) else given

        return zeros(self.given)


def _reduce(network: nn.Module, steps: Sequence[Step], enter: Step | None, leave: Step | None) -> nn.Module:
    """Copy a network without the modules that only work on images before or behind a part of it."""
    calls: dict[nn.Module, list[Step]] = defaultdict(list)
    for step in steps:
        calls[step.module].append(step)
    memo: dict[int, Any] = {}
    for module, its in calls.items():
        step = its[0]
        outside = (enter and step.end < enter.begin) or (leave and step.begin >= leave.begin)
        if outside and len(its) == 1 and _depends(step.first):
            memo[id(module)] = _Zeros(step)
    return copy.deepcopy(network, memo)


def _use_only_what_counts(part: nn.Module, data: Tensor) -> Tensor:
    """Run a part, and have it neither train nor save a parameter that what it returns does not depend on."""
    named = {name: item for name, item in part.named_parameters() if item.requires_grad}
    with torch.enable_grad():
        output = part(data)
        gradients = torch.autograd.grad(output.sum(), list(named.values()), allow_unused=True)
    for (name, item), gradient in zip(named.items(), gradients, strict=True):
        if gradient is None:
            owner, _, attribute = name.rpartition(".")
            module = part.get_submodule(owner)
            delattr(module, attribute)
            module.register_buffer(attribute, item.detach(), persistent=False)
    return output.detach()


@contextmanager
def _followed(network: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Give images such that tensors have a gradient which depend on them, and no others."""
    trained = [item for item in network.parameters() if item.requires_grad]
    network.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield images.clone().requires_grad_() + 0
    finally:
        for item in trained:
            item.requires_grad_()


def _passed_by(run: Callable[[Tensor], Any], images: Tensor, modules: Sequence[nn.Module]) -> set[int]:
    """Return the numbers of the modules, in the order of their calls, that something of the images passes by."""
    given, renewed = [], [images]

    def renew(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        given.append(args[0])
        renewed.append(args[0].detach().requires_grad_())
        return (renewed[-1] + 0, *args[1:])  # in place nothing may be done to what has no history

    hooks = [module.register_forward_pre_hook(renew) for module in modules]
    try:
        output: list[Tensor] = []
        _map_tensors(run(images), output.append)
    finally:
        for hook in hooks:
            hook.remove()
    passed: set[int] = set()
    for number, reached in enumerate([*given, sum(tensor.sum() for tensor in output)]):
        gradients = torch.autograd.grad(reached.sum(), renewed[: number + 1], allow_unused=True, retain_graph=True)
        passed.update(*(range(origin, number) for origin, one in enumerate(gradients) if one is not None))
    return passed


def _rows(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.ndim == 0 else tensor.shape[0]


def _depends(value: Any) -> bool:
    tensors: list[Tensor] = []
    _map_tensors(value, tensors.append)
    return any(tensor.requires_grad for tensor in tensors)


def _map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(item, change) for item in value)
    return value
