from pathlib import Path

import pytest

from kth_lightning.data.catalogue import Catalogue, ImageRecord, read_catalogue, write_catalogue
from kth_lightning.errors import InputError

IMAGES = (
    ImageRecord('cat, wild/1 "a".jpg', "cat, wild", "masks/1.png", 30, 20, "ab" * 32, 0),
    ImageRecord("狼/2.jpg", "狼", "", 16, 16, "cd" * 32, 1, "val"),
    ImageRecord("/elsewhere/3.png", "狼", "", 16, 17, "ef" * 32, 1, "test", "patient =7"),
)


def test_images_come_back_as_they_were(tmp_path: Path) -> None:
    write_catalogue(IMAGES, tmp_path / "catalogue.csv")
    assert read_catalogue(tmp_path / "catalogue.csv", tmp_path / "root").images == IMAGES


def test_classes_are_in_alphabetical_order_and_files_start_from_the_root() -> None:
    catalogue = Catalogue(Path("/images"), IMAGES[::-1])
    assert catalogue.class_names == ["cat, wild", "狼"]
    assert catalogue.file(2) == Path('/images/cat, wild/1 "a".jpg')
    assert catalogue.mask_file(2) == Path("/images/masks/1.png")
    assert catalogue.file(0) == Path("/elsewhere/3.png")
    assert catalogue.mask_file(0) is None


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na,b\n",
        "path,label,mask,width,height,sha256,duplicates,subset,group\na,b,,wide,3,ab,0,,\n",
        "path,label,mask,width,height,sha256,duplicates,subset,group\na,b,,3,3,ab,0,elsewhere,\n",
        "path,label,mask,width,height,sha256,duplicates,subset,group\na,b,,3\n",
    ],
)
def test_a_damaged_table_is_reported_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "catalogue.csv").write_text(text)
    with pytest.raises(InputError, match=r"catalogue\.csv is not a catalogue .*delete the folder"):
        read_catalogue(tmp_path / "catalogue.csv", tmp_path)


def test_a_table_of_other_bytes_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "catalogue.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(InputError, match=r"catalogue\.csv is not a catalogue"):
        read_catalogue(tmp_path / "catalogue.csv", tmp_path)
