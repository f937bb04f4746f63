"""The one split of a comparison: what its folder began with, and what every part is trained and tested on."""

import itertools
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from jsonargparse import Namespace

from kth_lightning.cli.parser import Parser
from kth_lightning.cli.same_run import has_begun, made_from_others, way_on
from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.kept_groups import other_groups
from kth_lightning.data.module import ImageData
from kth_lightning.data.split import Split
from kth_lightning.data.split_table import compare_images, match_split, split_rows
from kth_lightning.errors import InputError
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.io.run_lock import locked
from kth_lightning.io.split_file import SplitRow, read_split, split_hashes, write_split
from kth_lightning.io.terminal import print_rank_zero

_UNSPLIT = {
    "image_size", "interpolation", "resize", "batch_size", "augmentation", "augmentation_seed", "views", "tta_flip",
    "balance", "balance_beta", "seed", "cache_dir",
}  # fmt: skip
"""Settings of the data that no split depends on."""

_REPLACED = "replaced"
"""Folder of the parts that were trained again."""


@dataclass(frozen=True)
class Planned:
    """Name a part of a comparison.

    Attributes:
        run: Its folder.
        recipe: Its configuration.
        flags: What is given on the command line beside it.
        data_flags: Those of them that are about the data.
    """

    run: RunFolder
    recipe: Path
    flags: list[str]
    data_flags: list[str]


def settle_split(folder: Path, planned: Sequence[Planned], retrain: bool) -> ImageData:
    """Have all parts of a comparison trained and tested on the same images, those that the folder began with.

    Parts that have not begun get their splits.csv, which `fit` then keeps to.

    Args:
        folder: Of the comparison.
        planned: Its parts.
        retrain: Move parts of other images or another split out of the way, to be trained again.

    Returns:
        The data, whose `prepared` has all images that there are.

    Raises:
        InputError: A part that has begun has other images or another split, or the recipes ask for different splits.
    """
    settings = [_settings(part) for part in planned]
    _check_alike(planned, settings)
    begun = begun_runs(folder)
    _check_layout(folder, planned, begun)
    ignore_new = settings[0].ignore_new
    images_of = {part.run.path.parent: _images(item) for part, item in zip(planned, settings, strict=True)}
    whole = next(iter(images_of.values())).prepared
    for data in images_of.values():
        data.prepared = whole  # listed once

    tables: dict[RunFolder, list[SplitRow]] = {}
    stale: dict[RunFolder, str] = {}
    for run in begun:
        try:
            tables[run] = read_split(run.splits, "")
        except InputError as error:
            stale[run] = str(error)
            continue
        positions, difference = compare_images(whole.catalogue, tables[run])
        if difference.only_new:  # other images have other groups of course
            difference.regrouped = _regrouped(run, [whole.catalogue.images[position] for position in positions])
        if ignore_new:
            difference.new = []
        if difference:
            others = made_from_others(run, difference, settings[0].corrections)
            stale[run] = f"{others}; to go on with those, {way_on(difference)}"
    model = next((tables[run] for run in begun if run not in stale), None)
    if ignore_new and model is None and settings[0].splits is None and not stale:
        raise InputError("--data.ignore_new goes with --data.splits, or with a comparison that has begun; leave it out")
    drawn = {parent: _drawn(data, model) for parent, data in images_of.items()}
    for run in begun:
        if run not in stale and (split := drawn.get(run.path.parent)):
            asked = split_hashes(split_rows(*split))
            if asked["split"] != split_hashes(tables[run])["split"]:
                stale[run] = f"{run.path} holds a run on another split than this command asks for"
    if stale and not retrain:
        raise InputError(
            f"{next(iter(stale.values()))}; to compare on what is there now, give another --run_dir, or --retrain true "
            "to train such parts again"
        )
    for run in stale:
        _move_away(run, folder)
    for part in planned:
        if not has_begun(part.run):
            write_split(split_rows(*drawn[part.run.path.parent]), part.run.splits)
    return next(iter(images_of.values()))


def _regrouped(run: RunFolder, images: Sequence[ImageRecord]) -> str:
    """Say how the groups of a part's images differ from those that it began with."""
    try:
        start = run.read_start()
    except InputError:  # of a damaged run, which `fit` refuses
        return ""
    return other_groups(start.get("groups"), images)


def begun_runs(folder: Path) -> list[RunFolder]:
    """List the parts of a comparison that have begun, whole or damaged."""
    patterns = ("*", "fold-*/*", "seed-*/*", "seed-*/fold-*/*")
    return [run for pattern in patterns for run in map(RunFolder, sorted(folder.glob(pattern))) if has_begun(run)]


def _settings(part: Planned) -> Namespace:
    """Read the settings of the data that a part's `fit` will have."""
    parser = Parser()
    parser.add_class_arguments(ImageData, "data")
    recipe = yaml.safe_load(part.recipe.read_text(encoding="utf-8")).get("data") or {}
    parser.set_defaults({f"data.{name}": value for name, value in recipe.items()})
    return parser.parse_args(part.data_flags).data


def _images(settings: Namespace) -> ImageData:
    parser = Parser()
    parser.add_class_arguments(ImageData, "data")
    alone = settings.clone()
    alone.ignore_new = settings.ignore_new and settings.splits is not None
    data: ImageData = parser.instantiate(Namespace(data=alone)).data
    return data


def _check_alike(planned: Sequence[Planned], settings: Sequence[Namespace]) -> None:
    """Refuse recipes that ask for different images or splits."""
    first = settings[0].as_dict()
    for part, others in zip(planned, settings, strict=True):
        for name, value in others.as_dict().items():
            if name not in _UNSPLIT | {"fold"} and value != first.get(name):
                raise InputError(
                    f"--data.{name} is {first.get(name)} in {planned[0].recipe} and {value} in {part.recipe}, and "
                    f"models are compared on one split; give --data.{name} on the command line"
                )


def _check_layout(folder: Path, planned: Sequence[Planned], begun: Sequence[RunFolder]) -> None:
    """Refuse to add parts to a comparison of other folds, or with seeds to one without: they would be mixed."""
    asked = {part.run.path.parent for part in planned}

    def kind(parent: Path) -> list[str]:
        # A further seed trains on the same split, a further fold on another.
        return re.sub(r"seed-\d+", "seed", parent.relative_to(folder).as_posix()).split("/")

    for run in begun:
        parent = run.path.parent
        if parent not in asked and kind(parent) not in [kind(item) for item in asked]:
            raise InputError(
                f"{folder} holds a comparison over other folds or seeds ({run.path.relative_to(folder)}); give the "
                "same --folds, and --seeds where that has some, or another --run_dir"
            )


def _drawn(data: ImageData, model: Sequence[SplitRow] | None) -> tuple[Catalogue, Split]:
    """Draw the split of a fold, in the order and under the names of the images that the comparison began with."""
    if model is None or data.splits is not None:
        return data.catalogue, data.split
    catalogue, _ = match_split(data.prepared.catalogue, model, "", ignore_new=True)
    return catalogue, data.draw(catalogue)


def _move_away(run: RunFolder, folder: Path) -> None:
    """Keep a part beside the comparison, where no table finds it."""
    with locked(run.path):
        pass  # nobody else is at work in it
    targets = (folder / _REPLACED / str(number) / run.path.relative_to(folder) for number in itertools.count(1))
    target = next(target for target in targets if not target.exists())
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(run.path, target)
    print_rank_zero(f"{run.path} is trained again; what it held is in {target}")
