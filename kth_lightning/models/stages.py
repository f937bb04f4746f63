"""Where timm says that a network's stages end, and the network parted there."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn

from kth_lightning.models.dataflow import Step, row_inside


def part_network(network: Any, row: Sequence[Step], plain: bool, steps: Sequence[Step]) -> list[nn.Module]:
    """Part a network into its stages.

    A stage ends where timm's `feature_info` names a module, or where one of its coarse parameter groups ends. What has
    no weights behind that, such as a pooling, still belongs to the stage, and a normalisation alone is no stage. Where
    a network does more than call one module after the other, all up to there is the first stage.

    Args:
        network: Its modules that become stages are taken out of it.
        row: The calls that its maps came through, the outermost ones.
        plain: Whether the row begins at the images.
        steps: All calls of its modules.

    Returns:
        Modules that one after the other map images to maps.
    """
    ends = [info["module"] for info in getattr(network, "feature_info", [])]
    groups = _coarse_groups(network)
    units = [unit for unit in _split(row, steps, ends, groups) if not isinstance(unit.module, nn.Identity)]
    cuts = {position for position in range(1, len(units)) if _is_cut(units, position, ends, groups)}
    bounds = sorted({0, *(_behind_weightless(units, position) for position in cuts), len(units)})
    stages = [[unit.module for unit in units[begin:end]] for begin, end in pairwise(bounds)]
    for unit in units:
        network.set_submodule(unit.name, Passed())
    if not plain:
        stages.insert(0, [Beginning(network)])
    return [stage[0] if len(stage) == 1 else nn.Sequential(*stage) for stage in _with_matrices(stages)]


def stage_beginnings(network: Any, steps: Sequence[Step]) -> tuple[list[Step], list[int]]:
    """Find where stages begin in a network that is no row of modules, by what `part_network` goes by.

    Args:
        network: As timm made it.
        steps: Those calls of its modules that its maps come through.

    Returns:
        Calls that no stage begins inside of, in the order of the data, and the positions of those that one begins with.
    """
    ends = [info["module"] for info in getattr(network, "feature_info", [])]
    groups = _coarse_groups(network)
    units: list[Step] = []
    for step in sorted(steps, key=lambda item: item.begin):
        covered = bool(units) and step.begin < units[-1].end
        if not covered and not isinstance(step.module, nn.Identity) and not _is_split(step, ends, groups):
            units.append(step)
    cuts = {position for position in range(1, len(units)) if _is_cut(units, position, ends, groups)}
    return units, sorted({_behind_weightless(units, position) for position in cuts} - {len(units)})


class Passed(nn.Module):
    """Stand where a network's module was taken out, and do nothing."""

    def forward(self, data: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what comes."""
        return data


class Beginning(nn.Module):
    """Run a network's own code up to the modules that were taken out of it.

    Args:
        network: Without these modules, and without those behind its maps.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, 3, H, W] to what the first module taken out was given."""
        return self.network.forward_features(images)


class Ending(nn.Module):
    """Run a network's own code behind its maps.

    Args:
        network: Without the modules before.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor) -> Tensor:
        """Pool maps to vectors [B, D]."""
        return self.network.forward_head(maps, pre_logits=True)


def _coarse_groups(network: Any) -> dict[str, int]:
    """Return the number of each parameter's coarse group by its name; none where timm names only finer places."""
    try:
        coarse, fine = network.group_matcher(coarse=True), network.group_matcher(coarse=False)
    except (AssertionError, AttributeError, NotImplementedError, TypeError):
        return {}
    modules = dict(network.named_modules())
    named = any(info["module"] in modules for info in getattr(network, "feature_info", []))
    return {} if named and coarse == fine else group_parameters(network, coarse, reverse=True)


def _split(row: Sequence[Step], steps: Sequence[Step], ends: Sequence[str], groups: dict[str, int]) -> list[Step]:
    """Take the modules of a row apart that stages end in, as far as they are plain rows themselves."""
    units: list[Step] = []
    for step in row:
        parts = row_inside(step, steps) if _is_split(step, ends, groups) else [step]
        units += [step] if parts == [step] else _split(parts, steps, ends, groups)
    return units


def _is_split(step: Step, ends: Sequence[str], groups: dict[str, int]) -> bool:
    """Tell whether a stage ends inside a module."""
    return any(end.startswith(f"{step.name}.") for end in ends) or len(_groups_of(step, groups)) > 1


def _groups_of(step: Step, groups: dict[str, int]) -> set[int]:
    names = (f"{step.name}.{name}" for name, _ in step.module.named_parameters())
    return {groups[name] for name in names if name in groups}


def _is_cut(units: Sequence[Step], position: int, ends: Sequence[str], groups: dict[str, int]) -> bool:
    """Tell whether a stage begins at a position in the row, which is not its first."""
    before, here = f"{units[position - 1].name}.", f"{units[position].name}."
    if any(before.startswith(f"{end}.") and not here.startswith(f"{end}.") for end in ends):
        return True
    earlier = next((named for unit in units[position - 1 :: -1] if (named := _groups_of(unit, groups))), set())
    mine = _groups_of(units[position], groups)
    return bool(earlier and mine and not earlier & mine)


def _behind_weightless(units: Sequence[Step], position: int) -> int:
    """Move a cut behind what has no weights."""
    while position < len(units) and not any(True for _ in units[position].module.parameters()):
        position += 1
    return position


def _with_matrices(stages: list[list[nn.Module]]) -> list[list[nn.Module]]:
    """Join a stage that has but scales and shifts to its neighbour."""
    joined: list[list[nn.Module]] = []
    for stage in stages:
        if joined and not (has_matrix(stage) and has_matrix(joined[-1])):
            joined[-1] += stage
        else:
            joined.append(list(stage))
    return joined


def has_matrix(stage: Iterable[nn.Module]) -> bool:
    """Tell whether modules have more weights than scales and shifts."""
    return any(item.ndim > 1 for module in stage for item in module.parameters())
