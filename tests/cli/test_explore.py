import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kth_lightning.cli.main import main
from kth_lightning.data.catalogue import Catalogue, ImageRecord
from kth_lightning.data.module import ImageData
from kth_lightning.io.walk import MARK
from kth_lightning.report.colours import colour_densities
from kth_lightning.report.photos import VIEWS, augmented_rows, odd_sizes, seen_rows


class _Page(HTMLParser):
    """Collect a page's text and its images' attributes, section by section."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.section = ""
        self.text: dict[str, str] = {}
        self.images: dict[str, list[dict[str, str]]] = {}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "section":
            self.section = attributes["id"]
        if tag == "img":
            self.images.setdefault(self.section, []).append(attributes)

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + data


def _save(file: Path, colour: tuple[int, int, int], size: tuple[int, int], seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 12, (*size[::-1], 3))
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(file)


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give two classes with a duplicate across them, a panorama, a file that is no image, and awkward names."""
    root = tmp_path_factory.mktemp("messy") / "my <pets>"
    for number in range(10):
        _save(root / "cats & dogs" / f"{number}.png", (210, 60, 30), (90, 60), number)
        _save(root / "$x$" / f"{number}.png", (30, 60, 210), (60, 90), 100 + number)
    shutil.copy(root / "$x$" / "3.png", root / "cats & dogs" / "strayed.png")
    _save(root / "$x$" / "panorama.png", (30, 60, 210), (320, 40), 300)
    (root / "$x$" / "<b>broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def explored(messy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that `explore` wrote of the messy images."""
    output = tmp_path_factory.mktemp("out") / "deep" / "look"
    main(["explore", "--data.root", str(messy), "--data.image_size", "64", "--output", str(output)])
    return output


def test_every_figure_is_a_png_file_beside_the_page(explored: Path) -> None:
    charts = {"colours", "colours-narrow", "counts", "sizes"}
    sheets = {"originals", "seen", "augmented", "duplicates", "odd"}
    figures = {f"{name}.png" for name in charts | sheets}
    assert {file.name for file in explored.iterdir()} == figures | {"explore.html", MARK}
    for name in charts | sheets:
        with Image.open(explored / f"{name}.png") as image:
            assert image.format == "PNG"
            assert np.asarray(image.convert("L")).std() > 1


def test_the_page_says_what_the_audit_found(explored: Path) -> None:
    audit = _Page(explored / "explore.html").text["audit"]
    assert re.search(r"<b>broken\.jpg\s*unreadable: its bytes are in no image format", audit)
    assert re.search(r"1 group of identical.*1 has images of several classes", audit, re.DOTALL)
    assert re.search(r"\$x\$ / cats & dogs, the same file, in different classes", audit)
    assert re.search(r"1 image is of an unusual size", audit)
    assert re.search(r"\$x\$, 320 × 40", audit)


def test_originals_keep_their_shape_and_relative_size(explored: Path) -> None:
    for image in _Page(explored / "explore.html").images["originals"]:
        found = re.search(r", (\d+) by (\d+) pixels$", image["alt"])
        assert found
        width, height = int(image["width"]), int(image["height"])
        if int(found[1]) <= 90:
            assert (width, height) == (int(found[1]), int(found[2]))
        else:
            assert width / height == pytest.approx(320 / 40, rel=0.05)


def test_counts_are_those_of_the_split(explored: Path, messy: Path) -> None:
    data = ImageData(root=str(messy))
    counts = data.split.counts(data.catalogue)
    rows = re.findall(r"^(\$x\$|cats & dogs)(\d+)$", _Page(explored / "explore.html").text["counts"], re.MULTILINE)
    expected = sorted(data.class_names, key=lambda name: -counts["train"][name])
    assert [name for name, _ in rows] == expected
    for name, digits in rows:
        assert digits == "".join(str(counts[part][name]) for part in ("train", "val", "test"))


def test_images_are_shown_as_the_data_module_serves_them(messy: Path) -> None:
    data = ImageData(root=str(messy), image_size=48, augmentation="strong", resize="letterbox")
    data.prepare_data()
    data.setup("fit")
    positions = [0, 7]
    index, views = torch.tensor(positions), torch.arange(VIEWS + 1)
    clean = data.images(index, torch.zeros(2, dtype=torch.int64), torch.device("cpu")).permute(0, 2, 3, 1).numpy()
    for row, expected in zip(seen_rows(data, positions), clean, strict=True):
        np.testing.assert_array_equal(np.asarray(row.photos[0].image), expected)
    for row, position in zip(augmented_rows(data, positions), positions, strict=True):
        expected = data.images(torch.full((VIEWS + 1,), position), views, torch.device("cpu")).permute(0, 2, 3, 1)
        for photo, pixels in zip(row.photos, expected.numpy(), strict=True):
            np.testing.assert_allclose(np.asarray(photo.image, dtype=float), pixels, atol=0.51)


def test_densities_lie_where_the_colours_are_and_stay_in_range(tmp_path: Path) -> None:
    for name, colour in (("a", (255, 100, 0)), ("b", (40, 40, 200))):
        Image.new("RGB", (50, 20), colour).save(tmp_path / f"{name}0.png")
    Image.new("RGB", (500, 200), (40, 40, 100)).save(tmp_path / "b1.png")
    names = ["a0.png", "b0.png", "b1.png"]
    catalogue = Catalogue(tmp_path, tuple(ImageRecord(name, name[0], "", 1, 1, "", 0) for name in names))
    densities = colour_densities(catalogue, [[0], [1, 2]])
    np.testing.assert_allclose(densities.sum(axis=2), 1)
    assert densities[0].argmax(axis=1).tolist() == [255, 100, 0]
    assert densities[1, :2].argmax(axis=1).tolist() == [40, 40]
    # An image a hundred times as large weighs the same.
    assert densities[1, 2, 100] == pytest.approx(densities[1, 2, 200])
    # A Gaussian of four levels, doubled at the border by its reflection
    assert densities[0, 1, 100] == pytest.approx(1 / (4 * np.sqrt(2 * np.pi)), rel=0.01)
    assert densities[0, 0, 255] == pytest.approx(2 * densities[0, 1, 100], rel=0.02)


def test_odd_sizes_come_with_the_oddest_first() -> None:
    sizes = [(100, 100)] * 5 + [(210, 100), (100, 900), (100, 190), (40, 40), (220, 220)]
    images = [ImageRecord("", "", "", *size, "", 0) for size in sizes]
    assert odd_sizes(images) == [6, 8, 9, 5]


def test_images_too_few_to_split_are_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_folder: Callable[..., Path]
) -> None:
    root = make_folder(tmp_path / "tiny", classes=2, images=1)
    main(["explore", "--data.root", str(root), "--output", str(tmp_path / "out")])
    assert "cannot be split for training" in capsys.readouterr().out
    page = _Page(tmp_path / "out" / "explore.html")
    assert "cannot be split for training" in page.text[""]
    assert len(page.images["augmented"]) == 2 * (VIEWS + 1)
    assert "Every class has the same number of images: 1." in page.text["counts"]


def test_sheets_of_an_earlier_command_do_not_stay(tmp_path: Path, images: Path) -> None:
    output = tmp_path / "out"
    command = ["explore", "--data.root", str(images), "--data.image_size", "32", "--output", str(output)]
    main(command)
    assert (output / "augmented.png").exists()
    assert "the aspect ratio is not kept" in _Page(output / "explore.html").text["seen"]
    main([*command, "--data.augmentation", "none", "--data.resize", "letterbox"])
    assert not (output / "augmented.png").exists()
    page = _Page(output / "explore.html")
    assert "augmented" not in page.images
    assert "bars fill the square" in page.text["seen"]


def test_a_chart_that_cannot_be_drawn_costs_a_warning_and_not_the_page(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture
) -> None:
    for file in ("counts.png", "colours-narrow.png", "sizes.png"):
        (tmp_path / "out" / file).mkdir(parents=True)
    main(["explore", "--data.root", str(images), "--data.image_size", "32", "--output", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert all(f"warning: {file} is not drawn" in said for file in ("counts.png", "colours-narrow.png", "sizes.png"))
    page = _Page(tmp_path / "out" / "explore.html")
    assert "could not be drawn" in page.text["counts"]
    assert "could not be drawn" in page.text["colours"]
    assert (tmp_path / "out" / "originals.png").is_file()


@pytest.mark.slow
def test_of_very_many_classes_some_are_shown_and_all_are_counted(
    tmp_path: Path, make_folder: Callable[..., Path]
) -> None:
    root = make_folder(tmp_path / "many", classes=90, images=4, size=24)
    main(["explore", "--data.root", str(root), "--data.image_size", "32", "--output", str(tmp_path / "out")])
    page = _Page(tmp_path / "out" / "explore.html")
    assert "60 of 90 classes are shown." in page.text["originals"]
    assert len(page.images["originals"]) == 60
    assert len(re.findall(r"^class\d+", page.text["counts"], re.MULTILINE)) == 90


def test_an_output_that_is_no_folder_is_one_sentence(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for output in (file, file / "below"):
        with pytest.raises(SystemExit, match="2"):
            main(["explore", "--data.root", str(images), "--output", str(output)])
        sentence = capsys.readouterr().err.strip()
        assert sentence.startswith(f"error: --output {output}: cannot be written")
        assert "\n" not in sentence
    assert file.read_text() == "mine"


def test_a_split_asked_for_that_cannot_be_read_is_an_error(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["explore", "--data.root", str(images), "--data.splits", str(tmp_path / "no.csv")]
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--output", str(tmp_path / "out")])
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_page_is_sound_in_a_browser(chromium: Any, explored: Path, width: int, scheme: str) -> None:
    page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((explored / "explore.html").as_uri())
    images = page.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth, i.getBoundingClientRect().width])")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    headings = page.evaluate("[...document.querySelectorAll('h1, h2')].map(h => h.textContent)")
    lettering, background = page.evaluate(
        "(s => [s.color, s.backgroundColor].map(c => c.match(/[0-9]+/g).slice(0, 3).map(Number)))"
        "(getComputedStyle(document.body))"
    )
    page.close()
    assert not messages
    assert [url for url in requests if not url.startswith("data:")] == [(explored / "explore.html").as_uri()]
    assert overflow <= 0
    assert all(alt and natural > 0 and shown > 0 for alt, natural, shown in images)
    assert len(images) > 30
    assert headings[0] == "my <pets> before training"
    assert len(headings) == 7
    assert (sum(lettering) < sum(background)) == (scheme == "light")
