import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kth_lightning.data.catalogue import Catalogue, ImageRecord, Subset
from kth_lightning.data.prepare import prepare
from kth_lightning.data.sources.kth import KthSource
from kth_lightning.data.split import Split, make_split
from kth_lightning.data.split_summary import describe_split
from kth_lightning.errors import InputError

Entry = tuple[str, int, Subset]


def catalogue_of(entries: Sequence[Entry]) -> Catalogue:
    """Make a catalogue of (label, group, prescribed part)."""
    images = (
        ImageRecord(f"{label}/{position}.jpg", label, "", 32, 32, f"{position:064x}", group, subset)
        for position, (label, group, subset) in enumerate(entries)
    )
    return Catalogue(Path("root"), tuple(images))


def singles(counts: Sequence[int], subset: Subset = "", start: int = 0) -> list[Entry]:
    """List images of as many classes as there are counts, each a group of its own."""
    labels = [f"c{position:02}" for position, count in enumerate(counts) for _ in range(count)]
    return [(label, start + position, subset) for position, label in enumerate(labels)]


def drawn_entries(rng: np.random.Generator) -> list[Entry]:
    """Draw 2 to 6 classes of 20 to 79 images, a quarter of them in groups of up to 4, a few groups across classes."""
    labels = singles(rng.integers(20, 80, rng.integers(2, 7)).tolist())
    group = np.arange(len(labels))
    by_label = np.array([label for label, _, _ in labels])
    for _ in range(len(labels) // 12):
        among = np.flatnonzero(by_label == rng.choice(by_label)) if rng.random() < 0.8 else np.arange(len(labels))
        members = rng.choice(among, rng.integers(2, 5), replace=False)
        touched = np.isin(group, group[members])
        if touched.sum() <= 6:
            group[touched] = group[members].min()
    return [(label, int(number), "") for (label, _, _), number in zip(labels, group, strict=True)]


def parts_of_groups(catalogue: Catalogue, split: Split) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for image, part in zip(catalogue.images, split.parts, strict=True):
        if part != "unused":
            found.setdefault(image.duplicates, set()).add(part)
    return found


def totals(split: Split) -> Counter[str]:
    return Counter(split.parts)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_each_class_is_shared_out_within_one_image_of_its_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(10, 120, rng.integers(2, 20)).tolist()
    catalogue = catalogue_of(singles(counts))
    total = sum(counts)
    test_size, val_size = (int(rng.integers(total // 9, total // 3)) for _ in range(2))
    split = make_split(catalogue, val_size, test_size, seed)
    assert totals(split) == {"test": test_size, "val": val_size, "train": total - test_size - val_size}
    for label, count in Counter(item.label for item in catalogue.images).items():
        found = split.counts(catalogue)
        assert abs(found["test"][label] - test_size * count / total) < 1
        left = count - found["test"][label]
        assert abs(found["val"][label] - val_size * left / (total - test_size)) < 1


@pytest.mark.parametrize("seed", range(60))
def test_groups_are_whole_and_totals_exact_with_duplicates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue = catalogue_of(drawn_entries(rng))
    total = len(catalogue.images)
    split = make_split(catalogue, 0.15, 0.15, seed)
    share = round(0.15 * total)
    assert totals(split) == {"test": share, "val": share, "train": total - 2 * share}
    assert all(len(parts) == 1 for parts in parts_of_groups(catalogue, split).values())
    assert all(set(split.counts(catalogue)[part]) == set(catalogue.class_names) for part in ("train", "val", "test"))


@pytest.mark.parametrize("seed", range(30))
def test_every_image_is_tested_once_over_the_folds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue = catalogue_of(drawn_entries(rng))
    folds = int(rng.integers(2, 6))
    splits = [make_split(catalogue, 0.15, 100, seed, folds, fold) for fold in range(folds)]
    tested = np.concatenate([split.indices("test") for split in splits])
    assert sorted(tested) == list(range(len(catalogue.images)))
    sizes = [len(split.indices("test")) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for split in splits:
        assert len(split.indices("val")) == round(0.15 * len(catalogue.images))
        assert all(len(parts) == 1 for parts in parts_of_groups(catalogue, split).values())
        assert set(split.counts(catalogue)["val"]) == set(catalogue.class_names)


def test_folds_of_single_images_are_stratified() -> None:
    catalogue = catalogue_of(singles([23, 31, 47]))
    for fold in range(5):
        found = make_split(catalogue, 0.1, 0.1, 0, 5, fold).counts(catalogue)["test"]
        assert all(
            abs(found[label] - count / 5) < 1 for label, count in zip(catalogue.class_names, (23, 31, 47), strict=True)
        )


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    catalogue = catalogue_of(drawn_entries(np.random.default_rng(0)))
    first, again, other = (make_split(catalogue, 0.15, 0.15, seed) for seed in (4, 4, 5))
    assert first == again
    assert first != other
    assert make_split(catalogue, 0.15, 0.15, 4, 3, 0) != make_split(catalogue, 0.15, 0.15, 5, 3, 0)


def test_seeds_differ_in_which_images_are_tested() -> None:
    catalogue = catalogue_of(singles([30, 30]))
    tested = Counter(
        int(position) for seed in range(100) for position in make_split(catalogue, 6, 6, seed).indices("test")
    )
    assert len(tested) == 60
    assert max(tested.values()) < 25


def test_a_whole_number_given_as_a_float_is_a_number_of_images() -> None:
    catalogue = catalogue_of(singles([30, 30]))
    assert make_split(catalogue, 8.0, 6.0, 0) == make_split(catalogue, 8, 6, 0)


def test_what_is_left_of_a_size_goes_to_the_largest_remainders() -> None:
    found = make_split(catalogue_of(singles([15, 15, 28])), 3, 10, 0).counts(catalogue_of(singles([15, 15, 28])))
    assert found["test"] == {"c00": 3, "c01": 2, "c02": 5}  # of 2.59, 2.59 and 4.83


def test_a_class_keeps_an_image_back_however_large_its_remainder() -> None:
    entries = singles([2, 40]) + singles([1, 1], "val", 100)
    catalogue = catalogue_of(entries)
    found = make_split(catalogue, 2, 39, 0).counts(catalogue)
    assert found["test"] == {"c00": 1, "c01": 38}  # of 1.86 and 37.14


def test_small_shares_give_every_class_an_image() -> None:
    catalogue = catalogue_of(singles([3, 4, 60]))
    found = make_split(catalogue, 0.01, 0.01, 0).counts(catalogue)
    assert found["test"] == found["val"] == {"c00": 1, "c01": 1, "c02": 1}


@pytest.mark.parametrize("seed", range(10))
def test_a_class_of_a_few_large_groups_is_in_every_part(seed: int) -> None:
    frames = [("video", 1000 + position // 4, "") for position in range(16)]
    catalogue = catalogue_of([*singles([40]), *frames])
    split = make_split(catalogue, 0.15, 0.15, seed)
    assert all(split.counts(catalogue)[part]["video"] >= 4 for part in ("train", "val", "test"))


@pytest.mark.slow
def test_the_real_archive_is_split_1458_180_100(tmp_path: Path) -> None:
    archive = os.environ.get("KTH_ANIMALS_ARCHIVE")
    if not archive:
        pytest.skip("KTH_ANIMALS_ARCHIVE names no archive")
    catalogue = prepare(KthSource(archive), tmp_path).catalogue
    counts = Counter(image.label for image in catalogue.images)
    for seed in range(5):
        split = make_split(catalogue, 180, 100, seed)
        assert totals(split) == {"train": 1458, "val": 180, "test": 100}
        assert all(len(parts) == 1 for parts in parts_of_groups(catalogue, split).values())
        found = split.counts(catalogue)["test"]
        assert all(abs(found[label] - 100 * count / 1738) < 1 for label, count in counts.items())


def test_prescribed_parts_are_kept() -> None:
    entries = singles([8, 8], "train") + singles([3, 2], "val", 100) + singles([2, 3], "test", 200)
    split = make_split(catalogue_of(entries), 180, 100, 0)
    assert list(split.parts) == ["train"] * 16 + ["val"] * 5 + ["test"] * 5


def test_missing_parts_are_drawn_from_the_training_folder() -> None:
    without_val = singles([20, 20], "train") + singles([5, 5], "test", 100)
    assert totals(make_split(catalogue_of(without_val), 0.2, 0.2, 0)) == {"train": 32, "val": 8, "test": 10}
    without_test = singles([20, 20], "train") + singles([5, 5], "val", 100)
    split = make_split(catalogue_of(without_test), 0.2, 0.1, 0)
    assert totals(split) == {"train": 36, "val": 10, "test": 4}
    assert set(split.parts[40:]) == {"val"}


def test_extra_test_images_are_added_to_the_drawn_ones() -> None:
    split = make_split(catalogue_of(singles([20, 20]) + singles([3, 0], "test", 100)), 0.2, 0.2, 0)
    assert totals(split) == {"train": 24, "val": 8, "test": 11}
    assert set(split.parts[40:]) == {"test"}


def test_what_duplicates_a_prescribed_test_image_is_left_out_elsewhere() -> None:
    entries: list[Entry] = [*singles([20, 20], "train"), ("c00", 3, "val"), ("c00", 50, "val"), ("c01", 51, "val")]
    entries += [("c00", 7, "test"), ("c01", 25, "test"), ("c01", 51, "test"), ("c01", 52, "val")]
    split = make_split(catalogue_of(entries), 180, 100, 0)
    assert [position for position, part in enumerate(split.parts) if part == "unused"] == [3, 7, 25, 42]
    assert split.parts[40:] == ("val", "val", "unused", "test", "test", "test", "val")
    assert make_split(catalogue_of(entries[::-1]), 180, 100, 0).parts == split.parts[::-1]


def test_a_group_across_classes_stays_whole() -> None:
    for seed in range(30):
        entries = singles([20, 20])
        entries[0], entries[25] = ("c00", 999, ""), ("c01", 999, "")
        split = make_split(catalogue_of(entries), 0.2, 0.2, seed)
        assert split.parts[0] == split.parts[25]
        assert totals(split) == {"train": 24, "val": 8, "test": 8}


@pytest.mark.parametrize(
    ("counts", "val", "test", "message"),
    [
        ([50, 50], 20, 99, r"--data\.test_size 99: of 100 images .* keeps 2 for training and validation; give 96 at"),
        ([50, 50], 180, 10, r"--data\.val_size 180: of 90 images .* keeps 1 for training; give 88 at most"),
        ([50, 50], 1, 10, r"--data\.val_size 1: there are 2 classes"),
        ([50, 50], 10, 0, r"--data\.test_size 0: there are 2 classes"),
        ([50, 50], 10, -4, r"--data\.test_size -4: there are 2 classes"),
        ([50, 50], 10, 1.5, r"--data\.test_size 1\.5: give a share between 0 and 1, or a whole number"),
        ([50, 50], float("nan"), 10, r"--data\.val_size nan: give a share"),
        ([50, 50], 0.6, 0.6, r"--data\.val_size 60: of 40 images .* give 38 at most"),
        ([50, 1], 10, 10, r"class 'c01' has 1 image to .* needs 3, one each for training, validation and testing; add"),
        ([50, 2], 10, 10, r"class 'c01' has 2 images to draw from and needs 3"),
        ([1, 1, 1], 0.15, 0.15, r"class 'c00' has 1 image to .* needs 3, .*; 2 other classes also have too few; add"),
    ],
)
def test_sizes_that_do_not_fit_the_data_name_the_flag(counts: list[int], val: float, test: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_split(catalogue_of(singles(counts)), val, test, 0)


def test_a_class_of_one_group_of_duplicates_is_refused() -> None:
    entries = [*singles([30]), *[("same", 1000, "")] * 9]
    with pytest.raises(InputError, match=r"class 'same' has no image left for validation: 9 images make 1 group of d"):
        make_split(catalogue_of(entries), 0.2, 0.2, 0)


def test_the_largest_sizes_that_are_offered_can_be_had() -> None:
    catalogue = catalogue_of(singles([3, 50, 50]))
    assert totals(make_split(catalogue, 3, 97, 0)) == {"test": 97, "val": 3, "train": 3}
    with pytest.raises(InputError, match="give 3 at most"):
        make_split(catalogue, 4, 97, 0)


def test_a_prescribed_validation_folder_may_lack_a_class_but_not_the_training_folder() -> None:
    catalogue = catalogue_of(singles([8, 8], "train") + singles([3, 0], "val", 100) + singles([2, 3], "test", 200))
    assert make_split(catalogue, 180, 100, 0).counts(catalogue)["val"] == {"c00": 3}
    entries = [*singles([8, 1], "train"), *singles([3, 1], "val", 100), ("c01", 8, "test")]
    with pytest.raises(InputError, match=r"class 'c01' has no image left for training: c01 has 1 image, all of them"):
        make_split(catalogue_of(entries), 180, 100, 0)
    entries = [*singles([8, 8], "train"), ("c00", 0, "val"), ("c01", 8, "val"), ("c00", 0, "test"), ("c01", 8, "test")]
    with pytest.raises(InputError, match=r"no image is left for validation: .* duplicates of images of other parts"):
        make_split(catalogue_of(entries), 180, 100, 0)


@pytest.mark.parametrize(
    ("num_folds", "fold", "message"),
    [(5, 5, r"--data\.fold 5 of --data\.num_folds 5"), (5, -1, r"--data\.fold -1"), (1, 0, r"--data\.num_folds 1")],
)
def test_folds_that_do_not_exist_are_refused(num_folds: int, fold: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_split(catalogue_of(singles([50, 50])), 0.1, 0.1, 0, num_folds, fold)


def test_more_folds_than_images_in_a_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data\.num_folds 10: class 'c01' has 9 images"):
        make_split(catalogue_of(singles([50, 9])), 0.1, 0.1, 0, 10, 0)


def test_folds_say_that_they_share_out_prescribed_validation_images() -> None:
    catalogue = catalogue_of(singles([12, 12], "train") + singles([6, 6], "val", start=24))
    split = make_split(catalogue, 0.15, 0.15, 0, 3, 0)
    moved = sum(part != "val" for part in split.parts[24:])
    assert moved > 6
    said = f"; {moved} of 12 images that are prescribed for validation are trained or tested on, as folds and "
    assert said in describe_split(catalogue, split)
    assert "prescribed" not in describe_split(catalogue, make_split(catalogue, 0.15, 0.15, 0))


def test_folds_and_prescribed_test_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"--data\.num_folds: the test images are prescribed"):
        make_split(catalogue_of(singles([9, 9], "train") + singles([2, 2], "test", 50)), 0.2, 0.2, 0, 3, 0)
