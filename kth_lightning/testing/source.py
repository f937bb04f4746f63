"""Whether a source of images keeps the promises of `Source`."""

from pathlib import Path
from tempfile import TemporaryDirectory

from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.source import Listing, Source, checked_listing
from kth_lightning.data.split import make_split
from kth_lightning.errors import InputError
from kth_lightning.io.class_path import class_path


def check_source(source: Source, cache_dir: str | Path | None = None) -> None:
    """Check that a source lists images that can be read and trained on.

    Args:
        source: As it is given to `ImageData`.
        cache_dir: Where it may write what it fetches; a temporary folder where left out.

    Raises:
        AssertionError: A promise is not kept; the sentence says which.
    """
    name = class_path(source)
    assert isinstance(source, Source), f"{name} has no method list(cache_dir)"
    with TemporaryDirectory() as temporary:
        folder = Path(cache_dir or temporary).absolute()
        try:
            listing = checked_listing(source, folder)
            written = _changes(folder)
            again = checked_listing(source, folder)
            prepared = prepare(source, folder)
            make_split(prepared.catalogue, 0.2, 0.2, seed=0)
        except InputError as error:
            raise AssertionError(str(error)) from None
        assert _same(listing, again), f"{name} lists other files when it is asked again; sort what has no order"
        found = _changes(folder)
        changed = [file for file, time in written.items() if found.get(file) != time]
        assert not changed, f"{name} writes {changed[0]} again when it is asked again; keep what is there"
        for file in (candidate.file for candidate in listing.candidates):
            assert file.exists(), f"{name} lists {file}, which does not exist"
        missing = [one.mask for one in listing.candidates if one.mask is not None and not one.mask.exists()]
        assert not missing, f"{name} lists the mask {missing[0]}, which does not exist"


def _same(one: Listing, other: Listing) -> bool:
    return (one.root, one.candidates, one.problems) == (other.root, other.candidates, other.problems)


def _changes(folder: Path) -> dict[str, int]:
    # A lock file may be written at every listing: it holds nothing.
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file): file.stat().st_mtime_ns for file in files}
