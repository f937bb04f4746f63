"""Boxes that somebody else found in images: MegaDetector's JSON, or a table of paths and boxes."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from kth_lightning.data.base_folder import base_folders
from kth_lightning.data.box import Box, make_box, read_box
from kth_lightning.errors import InputError
from kth_lightning.io.tables import BadTable, read_table

WithoutBox = Literal["whole", "leave_out"]
"""What becomes of an image in which there is no box."""

MIN_CONFIDENCE = 0.2
"""From which a detection counts: what MegaDetector's authors call typical."""

_ANIMAL = "animal"
_FORM = "give MegaDetector's JSON, or a table with the columns path and box"


@dataclass
class FoundBoxes:
    """The boxes of a file, by the images that they lie in.

    Attributes:
        name: Flag and file, for sentences.
        folder: That of the file, from which paths may start.
        boxes: By each image's path, normalised, none where there is none; None where the detector could not read the
            image.
        others: How many detections of other kinds than animals were passed over.
    """

    name: str
    folder: Path
    boxes: dict[str, list[Box] | None] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def require_some(self, setting: str) -> None:
        """Refuse a file that no box can be trained on: of a card without animals, predictions may well come.

        Args:
            setting: From which confidence on detections count, for the sentence.

        Raises:
            InputError: It has no box.
        """
        if any(self.boxes.values()):
            return
        unread = sum(boxes is None for boxes in self.boxes.values())
        reasons = [f"{count} {name} passed over" for name, count in self.others.most_common()]
        reasons += [f"the detector could not read {_counted(unread)}"] if unread else []
        why = f" ({', '.join(reasons)})" if reasons else ""
        raise InputError(
            f"{self.name}: has no box of an animal in {_counted(len(self.boxes))}, at {setting}{why}; lower that, or "
            "leave the boxes out to take whole images"
        )

    def below(self, folders: Iterable[Path]) -> "ImageBoxes":
        """Look all paths up from one folder, out of some and the file's own.

        Raises:
            InputError: It is not clear from which, or two paths lead to one image.
        """
        relative = [path for path in self.boxes if not os.path.isabs(path)]  # noqa: PTH117
        found: dict[str, list[Box] | None] = {}
        for folder in base_folders(relative, [*folders, self.folder], self.name):
            names: dict[str, str] = {}
            for path, boxes in self.boxes.items():
                file = os.path.normpath(os.path.join(folder, path))  # noqa: PTH118
                if (other := names.setdefault(file, path)) != path:
                    raise InputError(f"{self.name}: {other!r} and {path!r} are the same image; leave one of them out")
                found[file] = boxes
        return ImageBoxes(self, found)


@dataclass
class ImageBoxes:
    """The boxes of image files, and counts of what was asked for.

    Attributes:
        source: Where they come from.
        by_file: By absolute path.
        used: How many boxes were given out.
        images: How many images had one.
        without: Images that the file has and that have none.
        unread: Images that the detector could not read.
        missing: Images that the file does not have.
    """

    source: FoundBoxes
    by_file: Mapping[str, list[Box] | None]
    used: int = 0
    images: int = 0
    without: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)

    def of(self, file: Path) -> list[Box]:
        """Return the boxes of an image, none where there is none, and count it."""
        place = os.path.abspath(file)  # noqa: PTH100  # resolve() would follow links
        boxes = self.by_file.get(place)
        if boxes is None:
            (self.unread if place in self.by_file else self.missing).append(file)
            return []
        if not boxes:
            self.without.append(file)
        self.used += len(boxes)
        self.images += bool(boxes)
        return boxes

    def describe(self, without_box: WithoutBox) -> str:
        """Say what was asked for and found.

        Raises:
            InputError: Not a single image stands in the file.
        """
        asked = self.images + len(self.without) + len(self.unread) + len(self.missing)
        if len(self.missing) == asked:
            theirs = next(iter(self.source.boxes), "no image at all")
            raise InputError(
                f"{self.source.name}: none of the {asked} images is in it: it lists {theirs!r}, and the first image "
                f"is {str(self.missing[0])!r}; its paths are relative to the images' folder or to its own, so move "
                "it to the folder where the detector was started"
            )
        text = f"{self.source.name}: {_counted(self.used, 'box', 'boxes')} of {_counted(self.images)}"
        fate = "taken whole" if without_box == "whole" else "left out"
        for files, one, several in (
            (self.unread, "could not be read by the detector", "could not be read by the detector"),
            (self.without, "has no box", "have no box"),
            (self.missing, "is not listed in it", "are not listed in it"),
        ):
            if len(files) == 1:
                text += f"; 1 image {one} and is {fate}: {files[0].name}"
            elif files:
                text += f"; {len(files)} images {several} and are {fate}, such as {files[0].name}"
        if self.source.others:
            named = ", ".join(f"{count} {name}" for name, count in self.source.others.most_common())
            text += f"; passed over: {named}"
        return text


def read_boxes(file: Path, min_confidence: float, name: str) -> FoundBoxes:
    """Read boxes of images.

    Args:
        file: MegaDetector's JSON, of which the animals count, or a table (CSV, Parquet) with the columns path and box,
            and perhaps conf.
        min_confidence: From which a detection counts, if the file says how sure it is.
        name: Of the flag that the file was given with.

    Raises:
        InputError: The file is neither.
    """
    name = f"{name} {file}"
    found = FoundBoxes(name, file.expanduser().absolute().parent)
    try:
        with file.expanduser().open("rb") as stream:
            start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            if start in (b"{", b"["):
                stream.seek(0)
                _read_detections(json.loads(stream.read().decode("utf-8-sig")), min_confidence, found)
            else:
                _read_rows(file.expanduser(), min_confidence, found)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path") from None
    except BadTable as error:
        raise InputError(f"{name}: is neither JSON nor a table ({error}); {_FORM}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {' '.join(str(error).split())[:200]}; {_FORM}") from None
    return found


def _read_rows(file: Path, min_confidence: float, found: FoundBoxes) -> None:
    names, columns = read_table(file, ("path", "box", "conf"))
    if missing := [column for column in ("path", "box") if column not in columns]:
        raise ValueError(f"has no column {missing[0]!r}, only {', '.join(map(repr, names[:20]))}")
    if "conf" not in columns and min_confidence != MIN_CONFIDENCE:
        raise InputError(
            f"{found.name}: has no column conf, so a lowest confidence ({min_confidence:g}) makes no difference; add "
            "the column, or leave that flag out"
        )
    boxes: dict[str, list[Box]] = defaultdict(list)
    sure = columns.get("conf", ["1"] * len(columns["path"]))
    for row, (path, box, conf) in enumerate(zip(columns["path"], columns["box"], sure, strict=True), start=2):
        try:
            boxes[_normal(path)] += [read_box(box)] if box and _confidence(conf) >= min_confidence else []
        except ValueError as error:
            raise ValueError(f"row {row}: {str(error).partition(';')[0]}") from None
    found.boxes.update(boxes)


def _confidence(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"conf is no number: {text[:40]!r}") from None


def _read_detections(content: Any, min_confidence: float, found: FoundBoxes) -> None:
    if isinstance(content, list):
        raise ValueError("is a list, and MegaDetector's JSON an object with the names images and detection_categories")
    images, categories = content.get("images"), content.get("detection_categories")
    if not isinstance(images, list) or not isinstance(categories, dict):
        lack = "images" if not isinstance(images, list) else "detection_categories"
        raise ValueError(f"has no {lack!r}, so it is not MegaDetector's JSON")
    animals = {key for key, name in categories.items() if str(name).lower() == _ANIMAL}
    if not animals:
        raise ValueError(f"has no detection category {_ANIMAL!r}, only {', '.join(map(str, categories.values()))}")
    for number, image in enumerate(images):
        try:
            path, detections = _normal(image["file"]), image.get("detections")
            sure = [item for item in detections or () if float(item["conf"]) >= min_confidence]
            boxes = [make_box(map(float, item["bbox"])) for item in sure if str(item["category"]) in animals]
            others = (kind for item in sure if (kind := str(item["category"])) not in animals)
            found.others.update(str(categories.get(kind, "unknown")) for kind in others)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise ValueError(f"images[{number}] is not as MegaDetector writes it: {json.dumps(image)[:80]}") from None
        if path in found.boxes:
            raise InputError(
                f"{found.name}: images[{number}] is {path!r} for the second time; leave one of the two out"
            )
        found.boxes[path] = None if detections is None else boxes


def _counted(number: int, one: str = "image", several: str = "images") -> str:
    return f"{number} {one if number == 1 else several}"


def _normal(path: str) -> str:
    return os.path.normpath(PureWindowsPath(path).as_posix() if "\\" in path else path)
