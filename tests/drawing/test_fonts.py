import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from kth_lightning.drawing.captions import write_text
from kth_lightning.drawing.figures import pixels, save, svg_uri
from kth_lightning.drawing.fonts import BASE, families, missing

PRIVATE = "\ue000"  # a character that means nothing and that no font for text has


def caption(text: str) -> np.ndarray:
    image = Image.new("RGB", (120, 40), "white")
    write_text(image, (10, 10), text, 16)
    return np.asarray(image)


def chart(text: str) -> np.ndarray:
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.4, text)
    return pixels(figure)


@pytest.fixture
def chinese() -> str:
    pytest.importorskip("paperang_p2_fonts_cjk", reason="the extra fonts is not installed")
    return "熊猫"


def test_the_base_has_latin_greek_cyrillic_arabic_and_hebrew() -> None:
    for text in ("Zürich", "αβ", "медведь", "دب", "דב", "e\u0301", "a$b_c^{"):
        assert families(text) == [BASE]
        assert missing(text) == set()


def test_the_extras_font_has_chinese_japanese_and_korean(chinese: str) -> None:
    for text in (chinese, "クマ", "곰"):
        assert families(f"panda {text}") == [BASE, "WenQuanYi Micro Hei"]
        assert missing(text) == set()


@pytest.mark.parametrize("draw", [caption, chart])
def test_each_character_has_its_own_shape_where_a_font_has_it(draw, chinese: str) -> None:
    drawn = [draw(character) for character in chinese]
    assert not np.array_equal(*drawn)
    assert all((image < 255).any() for image in drawn)


@pytest.mark.parametrize("draw", [caption, chart])
def test_arabic_is_joined_and_read_from_right_to_left(draw) -> None:
    apart = "ب\u200cد"  # a non-joiner keeps the letters from being joined
    assert not np.array_equal(draw("بد"), draw(apart))
    ink = [np.flatnonzero((draw(text) < 128).any(axis=(0, 2))) for text in ("دi", "اi")]
    first = [columns.min() for columns in ink]
    assert first[0] == first[1]  # the i, which comes second, is on the left of either


@pytest.mark.parametrize("draw", [caption, chart])
@pytest.mark.parametrize("text", ["$x^$", "a$b$", "\\$", "$\\frac"])
def test_text_is_never_a_formula(draw, text: str, tmp_path: Path) -> None:
    assert (draw(text) < 255).any()
    assert (draw("a$b$") < 128).sum() > 1.3 * (draw("ab") < 128).sum()
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.set_title(text)
    axes.set_xticks([0, 1], [text, text])
    save(figure, tmp_path / "chart.png")
    assert svg_uri(figure).startswith("data:image/svg+xml")


@pytest.mark.parametrize("draw", [caption, chart])
def test_what_no_font_has_is_written_as_an_escape(draw) -> None:
    assert np.array_equal(draw(f"{PRIVATE}\x07"), draw("\\ue000\\x07"))
    assert np.array_equal(draw("caf\udce9"), draw("caf\\udce9"))


def test_fonts_of_the_system_are_found(chinese: str, tmp_path: Path) -> None:
    """The extra's font lies in the user's folder of fonts there, and the extra is not installed."""
    import paperang_p2_fonts_cjk as extra

    (font,) = Path(extra.__path__[0]).rglob("*.ttc")
    (tmp_path / "fonts").mkdir()
    shutil.copy(font, tmp_path / "fonts")
    (tmp_path / "fonts/broken.ttf").write_bytes(b"no font")
    code = "import sys; sys.modules['paperang_p2_fonts_cjk'] = None\n"
    code += f"from kth_lightning.drawing.fonts import families; print(families({chinese!r}))"
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == f"{[BASE, 'WenQuanYi Micro Hei']}\n" or "Micro Hei" not in found.stdout != f"{[BASE]}\n"
