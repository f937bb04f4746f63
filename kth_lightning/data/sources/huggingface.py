"""Data sets that Hugging Face's `datasets` saved on the disk."""

import hashlib
from pathlib import Path
from typing import Any

from kth_lightning.data.catalogue import Subset
from kth_lightning.data.sources.source import SUBSETS, Listing, Source
from kth_lightning.data.sources.written import Item, folder_state, write_once
from kth_lightning.errors import InputError

_FORMAT = "1"  # raise it when the same data set would give other files


class HuggingFaceSource(Source):
    """A data set that was saved with `save_to_disk`, with a column of images and one of labels.

    Its splits prescribe what its images are for, where it has several. The images are written once below the cache
    folder, byte for byte; they are written anew when its files change.

    Args:
        path: The folder that was saved.
        image: Name of the column of images; may be left out where there is one only.
        label: Name of the column of labels; may be left out where one is a `ClassLabel`, or called label.
    """

    def __init__(self, path: str, image: str | None = None, label: str | None = None) -> None:
        self.path = Path(path).expanduser().absolute()
        self.image = image
        self.label = label

    def list(self, cache_dir: Path) -> Listing:
        """List the images, after writing them below `cache_dir` the first time.

        Raises:
            InputError: The package `datasets` is missing, or there is no such data set or column.
        """
        loaded = _load(self.path)
        parts = loaded if isinstance(loaded, dict) else {"train": loaded}
        listing = Listing(cache_dir.resolve() / "datasets", candidates=[])
        for name, part in parts.items():
            subset = SUBSETS.get(name.lower()) if len(parts) > 1 else ""
            if subset is None:
                raise InputError(
                    f"{self.path} has a split {name!r}, and splits are called train, validation and test; leave it out"
                )
            written = self._written(name, part, subset, cache_dir)
            listing.candidates.extend(written.candidates)
            listing.problems.extend(written.problems)
        return listing

    def _written(self, name: str, part: Any, subset: Subset, cache_dir: Path) -> Listing:
        import datasets

        image, label = self._columns(part.features)
        named = part.features[label]
        rows = part.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))

        def item(number: int) -> Item:
            row = rows[number]
            text = "" if row[label] in (None, -1) and not isinstance(named, datasets.Value) else row[label]
            text = named.int2str(text) if isinstance(named, datasets.ClassLabel) and text != "" else text
            text = "" if text is None else str(text)
            content, file = row[image]["bytes"], row[image]["path"]
            if content is None and file is not None and Path(file).is_absolute():
                content = Path(file)
            problem = "" if text else f"no label: row {number}"
            return Item(content or b"", text, problem if content else f"unreadable: row {number} has no image")

        state = hashlib.sha256(f"{_FORMAT} {name} {image} {label}".encode() + folder_state(self.path)).hexdigest()[:16]
        return write_once(f"huggingface-{state}", len(rows), item, subset, cache_dir)

    def _columns(self, features: Any) -> tuple[str, str]:
        import datasets

        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        if not labels and "label" in features:
            labels = ["label"]
        chosen = []
        for setting, given, candidates in (("image", self.image, images), ("label", self.label, labels)):
            if given is not None and given not in (features if setting == "label" else images):
                raise InputError(f"{self.path} has no column {given!r} of {setting}s, only {', '.join(features)}")
            if given is None and len(candidates) != 1:
                raise InputError(
                    f"{self.path} has {len(candidates)} columns of {setting}s among {', '.join(features)}; name one "
                    f"with --data.source.init_args.{setting}"
                )
            chosen.append(given or candidates[0])
        return chosen[0], chosen[1]


def _load(path: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("a Hugging Face data set needs the package datasets: uv pip install datasets") from None
    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # what a broken folder makes it stumble over
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a data set saved with save_to_disk ({reason}); check the path") from None
