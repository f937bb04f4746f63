import shutil
from pathlib import Path

import pytest

from kth_lightning import Candidate, FolderSource, Listing, SampleSource, TableSource
from kth_lightning.testing import check_source


def test_built_in_sources_keep_the_promises(images: Path, tmp_path: Path) -> None:
    check_source(FolderSource(images))
    check_source(SampleSource(90))
    table = tmp_path / "t.csv"
    rows = [f"{images}/class{label}/{number:03}.png,{label}" for label in range(3) for number in range(20)]
    table.write_text("path,label\n" + "\n".join(rows))
    check_source(TableSource(str(table)))


class Broken:
    def __init__(self, images: Path, fault: str) -> None:
        self.images = images
        self.fault = fault
        self.calls = 0

    def list(self, cache_dir: Path) -> Listing:
        self.calls += 1
        candidates = [Candidate(file, file.parent.name) for file in sorted(self.images.rglob("*.png"))]
        folder = self.images
        if self.fault == "order":
            candidates = candidates[self.calls :]
        if self.fault == "again":
            folder = cache_dir / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.images, folder, copy_function=shutil.copy)
            candidates = [Candidate(file, file.parent.name) for file in sorted(folder.rglob("*.png"))]
        if self.fault == "missing":
            candidates.append(Candidate(folder / "gone.png", "class0"))
        if self.fault == "mask":
            candidates[0] = Candidate(candidates[0].file, "class0", folder / "gone.png")
        if self.fault == "one class":
            candidates = candidates[:20]
        return Listing(folder, candidates if self.fault != "nothing" else [])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nothing", "lists no image"),
        ("order", "lists other files when it is asked again"),
        ("again", r"writes .*\.png again when it is asked again"),
        ("missing", r"lists .*gone\.png, which does not exist"),
        ("mask", r"lists the mask .*gone\.png, which does not exist"),
        ("one class", "images of one class only"),
    ],
)
def test_a_promise_that_is_not_kept_is_named(images: Path, fault: str, message: str) -> None:
    check_source(Broken(images, ""))
    with pytest.raises(AssertionError, match=message):
        check_source(Broken(images, fault))
    with pytest.raises(AssertionError, match="has no method list"):
        check_source(images)  # type: ignore[arg-type]
