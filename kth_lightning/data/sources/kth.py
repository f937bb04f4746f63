"""The KTH-ANIMALS data set, from its published archive."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from kth_lightning.data.sources.archive import download, is_url, unpack
from kth_lightning.data.sources.source import Candidate, Listing, Source
from kth_lightning.errors import InputError
from kth_lightning.io.image_kinds import is_image_name

KTH_URL = "https://www.csc.kth.se/~heydarma/datasets/animal_database.tar.gz"

_TOP = "animal_database"
_SPELLING = {"penquin": "penguin"}
_NOTE = (
    "KTH-ANIMALS: Afkham, Targhi, Eklundh and Pronobis, Joint visual vocabulary for animal classification, ICPR 2008. "
    "No licence is stated: for research only."
)


class KthSource(Source):
    """Fetch and list KTH-ANIMALS: 19 classes of about 90 images, each with a segmentation mask.

    Args:
        archive: Path or URL of `animal_database.tar.gz`; without it the published URL.
    """

    def __init__(self, archive: str | None = None) -> None:
        self.archive = archive or KTH_URL

    def list(self, cache_dir: Path) -> Listing:
        """List the images, after downloading and unpacking the archive once below `cache_dir`.

        Raises:
            InputError: The archive cannot be had or is not KTH-ANIMALS.
            OSError: `cache_dir` cannot be written.
        """
        folder = cache_dir.resolve() / "archives" / self._key()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                self._unpack_to(folder)
        return _list_classes(folder / _TOP)

    def _key(self) -> str:
        identity = self.archive
        if not is_url(self.archive):
            file = Path(self.archive).expanduser().resolve()
            if not file.exists():
                raise InputError(f"--data.archive: there is no file {file}; check the path")
            stat = file.stat()
            identity = f"{file}|{stat.st_size}|{stat.st_mtime_ns}"
        return hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:16]

    def _unpack_to(self, folder: Path) -> None:
        downloaded = folder.with_suffix(".tar.gz") if is_url(self.archive) else None
        if downloaded and not downloaded.exists():
            download(self.archive, downloaded)
        with TemporaryDirectory(dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            try:
                unpack(downloaded or Path(self.archive).expanduser().resolve(), new)
                if not any(new.glob(f"{_TOP}/*/original/")):
                    raise InputError(
                        f"--data.archive: {self.archive} has no {_TOP}/<class>/original folders, so it is not "
                        "KTH-ANIMALS; unpack it and give its folder with --data.root"
                    )
            except InputError:
                if downloaded:
                    downloaded.unlink()
                raise
            new.rename(folder)
        if downloaded:
            downloaded.unlink()


def _list_classes(root: Path) -> Listing:
    listing = Listing(root, candidates=[], notes=[_NOTE], mask_background="highest")
    for original in sorted(root.glob("*/original/")):
        label = _SPELLING.get(original.parent.name, original.parent.name)
        masks = {file.stem: file for file in sorted(original.parent.glob("segment/*.png"))}
        for file in sorted(original.iterdir()):
            if is_image_name(file):
                listing.candidates.append(Candidate(file, label, masks.pop(file.stem, None)))
            else:
                listing.problems.append((file, "no image: its name has no image suffix"))
        listing.problems.extend((mask, "mask without an image") for mask in masks.values())
    return listing
