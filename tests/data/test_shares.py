import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.shares import growing_shares, take_share
from kth_lightning.data.split import Split, make_split
from kth_lightning.errors import InputError

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)


def catalogue(groups: int = 0) -> Catalogue:
    images = [
        ImageRecord(f"{label}/{place}.png", label, "", 9, 9, f"{label}{place}".encode().hex().zfill(64)[::-1], number)
        for number, (label, place) in enumerate(
            (label, place) for label, count in (("cat", 80), ("dog", 40), ("ewe", 20)) for place in range(count)
        )
    ]
    if groups:
        images = [replace(image, group=str(number % groups)) for number, image in enumerate(images)]
    return Catalogue(Path("here"), tuple(images))


def taken(images: Catalogue, split: Split, share: float, fold: int = 0) -> set[str]:
    part = take_share(images, split, share, 0, fold)
    for kept in ("val", "test"):
        assert part.indices(kept).tolist() == split.indices(kept).tolist()
    return {images.images[place].path for place in part.indices("train")}


@pytest.mark.parametrize("groups", [0, 30])
def test_a_smaller_share_is_a_part_of_a_larger_one_and_the_last_is_all(groups: int) -> None:
    images = catalogue(groups)
    split = make_split(images, 0.15, 0.15, 0)
    shares = [taken(images, split, share) for share in SHARES]
    assert all(small < large for small, large in itertools.pairwise(shares))
    assert len(shares[-1]) == len(split.indices("train"))


def test_every_class_keeps_its_share_to_within_half_an_image_and_at_least_one() -> None:
    images = catalogue()
    split = make_split(images, 0.15, 0.15, 0)
    whole = split.counts(images)["train"]
    for share in SHARES:
        counts = Counter(path.split("/")[0] for path in taken(images, split, share))
        assert all(abs(counts[label] - share * whole[label]) <= 0.5 or counts[label] == 1 for label in whole)


def test_groups_are_whole_in_every_share() -> None:
    images = catalogue(30)
    split = make_split(images, 0.15, 0.15, 0)
    group = {image.path: image.group for image in images.images}
    whole = Counter(group[path] for path in taken(images, split, 1))
    for share in SHARES:
        counts = Counter(group[path] for path in taken(images, split, share))
        assert all(counts[name] == whole[name] for name in counts)
        assert sum(counts.values()) <= (share + 0.15) * sum(whole.values())


def test_what_is_taken_depends_on_content_and_fold_alone() -> None:
    images = catalogue()
    split = make_split(images, 0.15, 0.15, 0)
    order = [*range(len(images.images))][::-1]
    turned = replace(images, images=tuple(images.images[place] for place in order))
    turned_split = Split(tuple(split.parts[place] for place in order))
    assert taken(images, split, 0.25) == taken(turned, turned_split, 0.25)
    assert taken(images, split, 0.25) != taken(images, split, 0.25, fold=1)


def test_shares_are_halves_of_each_other_unless_there_are_few_images() -> None:
    assert growing_shares(64, 6) == pytest.approx([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    few = growing_shares(12, 6)
    assert few[0] * 12 == pytest.approx(2)
    assert few[-1] == 1
    with pytest.raises(InputError, match="needs 8; add images"):
        growing_shares(7.9, 6)
