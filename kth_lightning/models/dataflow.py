"""The row of modules that a network runs its images through, seen by looking on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Step:
    """Hold one call of a module.

    Attributes:
        name: The module's, in the network.
        module: It.
        first: The tensor that it was given first; None where that was something else.
        taken: The one tensor that it was given; None where it was given several, or settings beside it.
        given: What it returned.
        begin: When it was called, in the order of all beginnings and ends.
        end: When it returned.
    """

    name: str
    module: nn.Module
    first: Tensor | None
    taken: Tensor | None
    given: Any
    begin: int
    end: int


def record(network: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> tuple[list[Step], Tensor]:
    """Run a network and note every call of a module inside it.

    Args:
        network: In evaluation mode.
        run: One of its methods.
        images: What to run it on; with a gradient, what depends on them has one too.

    Returns:
        The calls, in the order of their ends, and what came of them. All tensors in between are kept as long.
    """
    steps: list[Step] = []
    begun: list[int] = []
    clock = iter(range(2**62))

    def begin(module: nn.Module, args: Any) -> None:
        begun.append(next(clock))

    def note(name: str) -> Callable[..., None]:
        def end(module: nn.Module, args: Any, kwargs: Any, given: Any) -> None:
            first = args[0] if args and isinstance(args[0], Tensor) else None
            plain = len(args) == 1 and all(value is None or value is False for value in kwargs.values())
            steps.append(Step(name, module, first, first if plain else None, given, begun.pop(), next(clock)))

        return end

    hooks = []
    for name, module in network.named_modules():
        if name:
            hooks.append(module.register_forward_pre_hook(begin))
            hooks.append(module.register_forward_hook(note(name), with_kwargs=True))
    try:
        with torch.set_grad_enabled(images.requires_grad):
            output = run(images)
    finally:
        for hook in hooks:
            hook.remove()
    return steps, output


def row_before(output: Any, steps: Sequence[Step]) -> list[Step]:
    """Follow the data back from an output, as long as each module took exactly what the one before it gave.

    Args:
        output: The tensor to begin at.
        steps: Calls, of which the outermost are taken.

    Returns:
        In the order of the data. The row is whole where its first call took what the network was given.
    """
    row: list[Step] = []
    wanted, before = output, float("inf")
    while True:
        step = max(
            (item for item in steps if item.given is wanted and item.end < before),
            key=lambda item: item.end,
            default=None,
        )
        if step is None or step.taken is None:
            return row[::-1]
        row.append(step)
        wanted, before = step.taken, step.begin


def row_inside(step: Step, steps: Sequence[Step]) -> list[Step]:
    """Return the calls that a call consists of, where they are a plain row, else the call itself."""
    inner = [item for item in steps if step.begin < item.begin and item.end < step.end]
    row = row_before(step.given, inner)
    return row if row and row[0].taken is step.taken else [step]
