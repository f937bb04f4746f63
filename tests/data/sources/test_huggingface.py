import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kth_lightning import HuggingFaceSource
from kth_lightning.data.sources.source import checked_listing
from kth_lightning.errors import InputError
from kth_lightning.testing import check_source

datasets = pytest.importorskip("datasets")


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def made(count: int, start: int = 0, **others: Any) -> Any:
    images = [{"bytes": jpeg(start + number), "path": None} for number in range(count)]
    columns = {"image": images, "label": [number % 2 for number in range(count)]} | others
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features |= {name: datasets.Value("string") for name in others}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_the_bytes_are_written_once_and_the_splits_kept(tmp_path: Path) -> None:
    parts = {"train": made(20), "validation": made(6, 100), "test": made(6, 200)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    source = HuggingFaceSource(str(tmp_path / "saved"))
    listing = checked_listing(source, tmp_path / "cache")
    assert {one.subset for one in listing.candidates} == {"train", "val", "test"}
    first = next(one for one in listing.candidates if one.subset == "train")
    assert (first.file.read_bytes(), first.label) == (jpeg(0), "cat")
    time = first.file.stat().st_mtime_ns
    assert checked_listing(source, tmp_path / "cache") == listing
    assert first.file.stat().st_mtime_ns == time
    check_source(source)


def test_one_part_alone_prescribes_nothing_and_a_row_without_label_is_left_out(tmp_path: Path) -> None:
    part = made(4)
    part = part.add_column("name", ["a", "b", "a", None])
    part.save_to_disk(str(tmp_path / "saved"))
    listing = HuggingFaceSource(str(tmp_path / "saved"), label="name").list(tmp_path / "cache")
    assert [(one.label, one.subset) for one in listing.candidates] == [("a", ""), ("b", ""), ("a", "")]
    assert [reason for _, reason in listing.problems] == ["no label: row 3"]


def test_files_that_it_points_to_are_listed_where_they_lie(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    rows = {"picture": [{"bytes": None, "path": str(tmp_path / f"{number}.jpg")} for number in range(2)]}
    rows["label"] = [0, 1]  # type: ignore[assignment]
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    listing = HuggingFaceSource(str(tmp_path / "saved")).list(tmp_path / "cache")
    assert [one.label for one in listing.candidates] == ["0", "1"]
    assert [one.file.read_bytes() for one in listing.candidates] == [jpeg(0), jpeg(1)]


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a data set saved with save_to_disk"):
        HuggingFaceSource(str(tmp_path)).list(tmp_path)
    made(4).save_to_disk(str(tmp_path / "one"))
    with pytest.raises(InputError, match=r"has no column 'x' of labels, only image, label"):
        HuggingFaceSource(str(tmp_path / "one"), label="x").list(tmp_path)
    with pytest.raises(InputError, match=r"has no column 'label' of images"):
        HuggingFaceSource(str(tmp_path / "one"), image="label").list(tmp_path)
    made(4).rename_column("image", "a").select_columns(["label"]).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"has 0 columns of images among label; name one with --data\.source\."):
        HuggingFaceSource(str(tmp_path / "none")).list(tmp_path)
    datasets.DatasetDict({"train": made(4), "extra": made(4)}).save_to_disk(str(tmp_path / "extra"))
    with pytest.raises(InputError, match=r"has a split 'extra', and splits are called train, validation and test"):
        HuggingFaceSource(str(tmp_path / "extra")).list(tmp_path)
