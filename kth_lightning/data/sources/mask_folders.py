"""Folders of masks beside classes, or in them: what they hold is no image of a class, and may belong to one."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kth_lightning.data.sources.folder_names import means_images, means_masks
from kth_lightning.data.sources.layout import Layout
from kth_lightning.data.sources.source import Candidate
from kth_lightning.io.image_kinds import is_image, is_image_name
from kth_lightning.io.walk import walk


def without_masks(class_folder: Path, files: Sequence[Path]) -> tuple[Sequence[Path], set[Path]]:
    """Part the files of a class from the images in its folders of masks, and name those folders."""
    masks: dict[Path, Path] = {}
    for folder in {file.parent for file in files}:
        parts = folder.relative_to(class_folder).parts
        if (at := next((at for at, part in enumerate(parts) if means_masks(part)), None)) is not None:
            masks[folder] = class_folder.joinpath(*parts[: at + 1])
    passed_over = {file for file in files if file.parent in masks and is_image(file)} if masks else set()
    return [file for file in files if file not in passed_over], {masks[file.parent] for file in passed_over}


def with_masks(candidates: Sequence[Candidate], folders: Collection[Path]) -> tuple[list[Candidate], int]:
    """Give images their masks, and count those that have one.

    A mask has its image's name but for the suffix, and lies in its folder as the image does in that folder's parent, or
    in a folder of images there: cat/masks/1.png is the mask of cat/1.jpg, and of cat/images/1.jpg.

    Args:
        candidates: The images.
        folders: Those of masks.
    """
    masks: dict[Path, Path] = {}
    for folder in sorted(folders):
        for file in filter(is_image_name, walk(folder)):
            masks.setdefault(folder.parent / file.relative_to(folder).with_suffix(""), file)
    paired = [
        replace(one, mask=next((masks[place] for place in _places(one.file) if place in masks), None))
        for one in (candidates if masks else ())
    ]
    return paired or [*candidates], sum(one.mask is not None for one in paired)


def _places(file: Path) -> Iterator[Path]:
    """Yield an image's path without its suffix, then without each folder that means images."""
    place = file.with_suffix("")
    yield place
    for at, part in enumerate(place.parts[:-1]):
        if means_images(part):
            yield Path(*place.parts[:at], *place.parts[at + 1 :])


def masks_remarks(masks: Collection[Path], layout: Layout, masked: int) -> Iterator[str]:
    """Say which folders were taken for masks, and how they would be classes.

    Args:
        masks: The folders.
        layout: Where the classes are.
        masked: How many images have a mask in them.
    """
    holding = sorted(folder for folder in masks if any(map(is_image, walk(folder))))
    for folder in sorted({*masks}.difference(holding)):
        yield f"{folder.relative_to(layout.root)} has no images and was passed over"
    if not holding:
        return
    used = f"; {masked} image{'s have their' if masked > 1 else ' has its'} mask there" if masked else ""
    beside = any(folder.parent == class_folder.path.parent for folder in holding for class_folder in layout.classes)
    level = len(holding[0].relative_to(layout.root).parts)
    way = f"; give --data.class_level {level} if it is a class" if beside and level in (1, 2) else ""
    if len(holding) == 1:
        yield f"{holding[0].relative_to(layout.root)} was taken for masks and passed over{used}{way}"
    else:
        names = ", ".join(sorted({folder.name for folder in holding}))
        yield f"{len(holding)} folders called {names} were taken for masks and passed over{used}{way}"
