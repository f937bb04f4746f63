"""Boxes that MegaDetector or a table names, joined to the images of a folder or a table."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kth_lightning import ImageData
from kth_lightning.data.found_boxes import read_boxes
from kth_lightning.errors import InputError

ANIMAL, PERSON = "1", "2"


def detection(x: float, conf: float = 0.9, category: str = ANIMAL, **more: Any) -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": [x, 0.1, 0.4, 0.8], **more}


def megadetector(file: Path, images: Any, **more: Any) -> Path:
    content = {"images": images, "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"}}
    content["info"] = {"format_version": "1.4", "detector": "md_v5a.0.0.pt"}  # type: ignore[assignment]
    file.write_text(json.dumps(content | more))
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("fox", "hare"):
        for number in range(4):
            file = tmp_path / "photos" / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(file)
    return tmp_path / "photos"


IMAGES = [
    {"file": "fox/0.png", "detections": [detection(0.1), detection(0.5, 0.6), detection(0.3, 0.1)]},
    {"file": "fox\\1.png", "detections": [detection(0.2, classifications=[["3", 0.9]])], "failure": None},
    {"file": "fox/2.png", "detections": []},
    {"file": "fox/3.png", "failure": "Failure image access", "detections": None},
    {"file": "hare/0.png", "detections": [detection(0.3), detection(0.1, 0.8, PERSON)]},
    {"file": "hare/1.png", "detections": [detection(0.1, 0.95, PERSON)], "max_detection_conf": 0.95},
    {"file": "elsewhere/9.png", "detections": [detection(0.3)]},
]


def data(photos: Path, boxes: Path, **settings: Any) -> ImageData:
    cache = str(photos.parent / "cache")
    return ImageData(root=str(photos), boxes=str(boxes), cache_dir=cache, **settings)


def names(data: ImageData) -> list[str]:
    return [image.name for image in data.catalogue.images]


def test_animals_of_megadetector_are_examples_with_the_label_of_their_folder(photos: Path) -> None:
    found = data(photos, megadetector(photos.parent / "md.json", IMAGES))
    whole = ["fox/2.png", "fox/3.png", "hare/1.png", "hare/2.png", "hare/3.png"]
    boxed = ["fox/0.png [0.1 0.1 0.4 0.8]", "fox/0.png [0.5 0.1 0.4 0.8]", "fox/1.png [0.2 0.1 0.4 0.8]"]
    assert names(found) == sorted([*boxed, "hare/0.png [0.3 0.1 0.4 0.8]", *whole])
    assert [image.label for image in found.catalogue.images[:3]] == ["fox"] * 3
    (remark,) = [line for line in found.prepared.remarks if "--data.boxes" in line]
    assert remark.endswith(
        "md.json: 4 boxes of 3 images; 1 image could not be read by the detector and is taken whole: 3.png; "
        "2 images have no box and are taken whole, such as 2.png; "
        "2 images are not listed in it and are taken whole, such as 2.png; "
        "passed over: 2 person"
    )


def test_images_without_a_box_are_left_out_on_demand_and_counted(photos: Path) -> None:
    boxes = megadetector(photos.parent / "md.json", IMAGES)
    found = data(photos, boxes, without_box="leave_out", min_box_confidence=0.7)
    assert [name.split()[0] for name in names(found)] == ["fox/0.png", "fox/1.png", "hare/0.png"]
    assert found.prepared.left_out["reasons"] == {"no box": 5}
    assert any(line.endswith("left out: hare 3, fox 2") for line in found.prepared.remarks)


@pytest.mark.parametrize("place", ["below the images", "beside the images", "absolute"])
def test_paths_start_from_the_images_or_from_the_file_itself(photos: Path, place: str) -> None:
    starts = {"below the images": "fox/0.png", "beside the images": "photos/fox/0.png"}
    name = starts.get(place, str(photos / "fox" / "0.png"))
    found = data(photos, megadetector(photos.parent / "md.json", [{"file": name, "detections": [detection(0.1)]}]))
    assert "fox/0.png [0.1 0.1 0.4 0.8]" in names(found)


def test_a_table_of_boxes_serves_as_well(photos: Path) -> None:
    table = photos.parent / "boxes.csv"
    table.write_text("path,box\nphotos/fox/0.png,.1 .1 .4 .8\nphotos/fox/0.png,.5 .1 .4 .8\nphotos/hare/0.png,\n")
    assert names(data(photos, table))[:3] == ["fox/0.png [0.1 0.1 0.4 0.8]", "fox/0.png [0.5 0.1 0.4 0.8]", "fox/1.png"]
    boxes = read_boxes(table, 0.2, "--boxes").boxes
    assert {path: len(found) for path, found in boxes.items()} == {"photos/fox/0.png": 2, "photos/hare/0.png": 0}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "Expecting property name"),
        ("[]", "is a list, and MegaDetector's JSON an object with the names images and detection_categories"),
        ('{"annotations": []}', "has no 'images', so it is not MegaDetector's JSON"),
        ('{"images": []}', "has no 'detection_categories'"),
        ('{"images": [], "detection_categories": {"0": "dog"}}', "has no detection category 'animal', only dog"),
        ('{"images": [7], "detection_categories": {"1": "animal"}}', r"images\[0\] is not as MegaDetector writes it"),
        (json.dumps({"images": [{"file": "a", "detections": [{"category": "1", "conf": 0.9, "bbox": [1, 2, 3]}]}],
                     "detection_categories": {"1": "animal"}}), r"images\[0\] is not as MegaDetector writes it"),
        ('{"images": [{"file": "a", "detections": [{"category": "1", "conf": 1' + "0" * 400 + ', "bbox": [0]}]}],'
         '"detection_categories": {"1": "animal"}}', r"images\[0\] is not as MegaDetector writes it"),
        ("", r"is neither JSON nor a table \(it is empty\)"),
        ("path,label\na.png,fox\n", "has no column 'box', only 'path', 'label'"),
        ("path,box\na.png,fox\n", "row 2: box that is none: 'fox'"),
        ("path,box,conf\na.png,0 0 1 1,\n", "row 2: conf is no number: ''"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_boxes_gets_one_sentence(photos: Path, content: str, sentence: str) -> None:
    (photos.parent / "boxes").write_text(content)
    with pytest.raises(InputError, match=sentence) as caught:
        assert data(photos, photos.parent / "boxes").catalogue
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--data.boxes ")
    assert "give MegaDetector's JSON, or a table with the columns path and box" in str(caught.value)


def test_a_file_about_other_images_is_refused_and_so_are_boxes_twice(photos: Path) -> None:
    other = megadetector(photos.parent / "md.json", IMAGES[-1:])
    with pytest.raises(InputError, match=r"none of the 8 images is in it: it lists 'elsewhere/9.png', and the first"):
        assert data(photos, other).catalogue
    table = photos.parent / "table.csv"
    table.write_text("path,label,box\nphotos/fox/0.png,fox,0 0 1 .5\nphotos/hare/0.png,hare,\n")
    boxes = megadetector(photos / "md.json", IMAGES)
    with pytest.raises(InputError, match=r"the images have boxes already, such as 0 0 1 0.5 of 0.png"):
        assert ImageData(table=str(table), boxes=str(boxes), cache_dir=str(photos.parent / "cache")).catalogue
    with pytest.raises(InputError, match=r"--data.min_box_confidence 20: give a number from 0 to 1"):
        data(photos, boxes, min_box_confidence=20)


def test_a_box_outside_the_image_is_a_row_of_the_audit(photos: Path) -> None:
    images = [{"file": "fox/0.png", "detections": [detection(0.9), detection(0.1)]}]
    found = data(photos, megadetector(photos.parent / "md.json", images))
    assert found.prepared.left_out["reasons"] == {"box outside the image": 1}
    assert found.prepared.left_out["classes"]["fox"]["left_out"] == 1


def test_a_category_may_be_a_number(photos: Path) -> None:
    images = [{"file": "fox/0.png", "detections": [detection(0.1, category=1)]}]  # type: ignore[arg-type]
    assert names(data(photos, megadetector(photos.parent / "md.json", images)))[0] == "fox/0.png [0.1 0.1 0.4 0.8]"


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ([{"file": "fox/0.png", "detections": []}], "in 1 image, at --data.min_box_confidence 0.2; lower that"),
        (
            [{"file": "fox/0.png", "detections": [detection(0.1, 0.9, "7"), detection(0.1, 0.1)]}],
            r"at --data.min_box_confidence 0.2 \(1 unknown passed over\)",
        ),
        ([{"file": "fox/0.png", "detections": None}], r"\(the detector could not read 1 image\)"),
        ([], "has no box of an animal in 0 images"),
    ],
)
def test_a_file_without_any_box_is_refused(photos: Path, images: list[Any], why: str) -> None:
    with pytest.raises(InputError, match=f"has no box of an animal.*{why}" if images else why):
        assert data(photos, megadetector(photos.parent / "md.json", images)).catalogue


def test_a_card_without_animals_is_no_fault_of_its_file(photos: Path) -> None:
    file = megadetector(photos.parent / "md.json", [{"file": "photos/fox/0.png", "detections": []}])
    found = read_boxes(file, 0.2, "--boxes").below([photos])
    assert found.of(photos / "fox/0.png") == []
    assert "0 boxes of 0 images; 1 image has no box and is left out: 0.png" in found.describe("leave_out")


def test_a_tables_confidences_are_compared_and_must_be_there_to_be(photos: Path) -> None:
    table, rows = photos.parent / "boxes.csv", "photos/fox/0.png,.1 .1 .4 .8,.3\nphotos/fox/0.png,.5 .1 .4 .8,.01\n"
    table.write_text("path,box,conf\n" + rows + "photos/fox/1.png,,\n")
    assert [name for name in names(data(photos, table)) if "[" in name] == ["fox/0.png [0.1 0.1 0.4 0.8]"]
    assert len([name for name in names(data(photos, table, min_box_confidence=0.005)) if "[" in name]) == 2
    table.write_text("path,box\nphotos/fox/0.png,.1 .1 .4 .8\n")
    with pytest.raises(InputError, match="has no column conf, so a lowest confidence"):
        assert data(photos, table, min_box_confidence=0.9).catalogue


def test_an_empty_cell_of_the_column_box_is_left_out_on_demand(photos: Path) -> None:
    table = photos.parent / "table.csv"
    rows = [f"photos/{label}/{number}.png,{label},{'' if number < 2 else '0 0 .5 1'}\n" for label in ("fox", "hare")
            for number in range(4)]  # fmt: skip
    settings: dict[str, Any] = {"table": str(table), "cache_dir": str(photos.parent / "cache")}
    table.write_text("path,label,box\n" + "".join(rows))
    assert len(ImageData(**settings).catalogue.images) == 8
    found = ImageData(**settings, without_box="leave_out")
    assert [image.box_text for image in found.catalogue.images] == ["0 0 0.5 1"] * 4
    assert found.prepared.left_out["reasons"] == {"no box": 4}
    assert any(line.endswith("4 boxes; 4 images have none; left out: fox 2, hare 2") for line in found.prepared.remarks)


def test_settings_of_boxes_are_refused_where_there_are_none(photos: Path) -> None:
    cache = str(photos.parent / "cache")
    with pytest.raises(InputError, match=r"--data.min_box_confidence 0.9 goes with --data.boxes"):
        ImageData(root=str(photos), min_box_confidence=0.9)
    with pytest.raises(
        InputError, match=r"--data.without_box leave_out: no image has a box; it goes with --data.boxes"
    ):
        assert ImageData(root=str(photos), without_box="leave_out", cache_dir=cache).catalogue


def test_boxes_of_one_folder_are_not_laid_on_images_of_another_with_the_same_names(photos: Path) -> None:
    shutil.copytree(photos, photos / "old")
    boxes = megadetector(photos / "old" / "md.json", [{"file": "fox/0.png", "detections": [detection(0.1)]}])
    rows = [f"{label}/{number}.png,{label}\n" for label in ("fox", "hare") for number in range(4)]
    (photos / "table.csv").write_text("path,label\n" + "".join(rows))
    settings: dict[str, Any] = {"table": str(photos / "table.csv"), "cache_dir": str(photos.parent / "cache")}
    with pytest.raises(InputError) as caught:
        assert ImageData(**settings, boxes=str(boxes)).catalogue
    assert f"'fox/0.png' is in {photos} as well as in {photos / 'old'}; move the file into" in str(caught.value)
    moved = boxes.rename(photos / "md.json")
    assert names(ImageData(**settings, boxes=str(moved)))[0] == "fox/0.png [0.1 0.1 0.4 0.8]"


def test_a_file_has_one_base_which_is_where_most_of_its_images_are(photos: Path) -> None:
    images = [{"file": name, "detections": [detection(0.1)]} for name in ("0.png", "1.png", "old.png", "fox/2.png")]
    boxes = megadetector(photos / "fox" / "md.json", images)
    (photos / "old.png").write_bytes(b"")
    found = read_boxes(boxes, 0.2, "--boxes")
    with pytest.raises(InputError, match=r"2 of its paths are in .*photos and as many others in .*fox; move the file"):
        found.below([photos])
    (photos / "old.png").unlink()
    assert not found.below([photos]).of(photos / "fox" / "2.png")
    assert found.below([photos]).of(photos / "fox" / "0.png")
    (photos.parent / "link").symlink_to(photos / "fox")
    linked = found.below([photos.parent / "link"])
    assert linked.of(photos.parent / "link" / "0.png")
    assert linked.of(photos / "fox" / "0.png")


def test_two_paths_to_one_image_are_refused(photos: Path) -> None:
    images = [{"file": name, "detections": [detection(0.1)]} for name in ("fox/0.png", str(photos / "fox" / "0.png"))]
    with pytest.raises(InputError, match=r"'fox/0.png' and '/.*fox/0.png' are the same image; leave one of them out"):
        assert data(photos, megadetector(photos / "md.json", images)).catalogue


def test_an_image_that_a_detectors_file_has_twice_is_refused(photos: Path) -> None:
    images = [{"file": "fox/0.png", "detections": [detection(0.1)]}, {"file": "fox\\0.png", "detections": []}]
    with pytest.raises(InputError, match=r"images\[1\] is 'fox/0.png' for the second time; leave one of the two out"):
        assert data(photos, megadetector(photos.parent / "md.json", images)).catalogue
