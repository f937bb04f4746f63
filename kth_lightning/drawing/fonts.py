"""Fonts that have the characters of a text, among those that are on this machine."""

import unicodedata
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

BASE = "DejaVu Sans"
"""Family that comes with matplotlib; it has Latin, Greek, Cyrillic, Arabic, Hebrew and more."""

_BASE_FILE = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_EXTRA = "paperang_p2_fonts_cjk"  # the package of the extra `fonts`: WenQuanYi Micro Hei, for Chinese, Japanese, Korean
_NO_LETTERS = "lastresort"  # in the file's name: fonts that have a box for every character there is

_family: dict[str, str | None] = {}  # of each character that was ever looked for; None where no font has it


def families(text: str) -> list[str]:
    """Return the families of fonts, the base first, that together have the characters of a text.

    Fonts beside the base are looked for once a character, in the extra's font and then in the system's, which are all
    read (half a second for 270 of them); matplotlib knows those that are returned.
    """
    family_of = _family_of(text)
    return list(dict.fromkeys([BASE, *filter(None, map(family_of.get, text))]))


def missing(text: str) -> set[str]:
    """Return the characters of a text that no font here can draw, such as control characters."""
    family_of = _family_of(text)
    return {character for character in text if family_of[character] is None}


def _family_of(text: str) -> dict[str, str | None]:
    unknown = {character for character in text if character not in _family}
    if unknown:
        _search(unknown)
    return _family


def _search(characters: set[str]) -> None:
    _family.update(dict.fromkeys(characters))
    wanted = {character for character in characters if _is_graphic(character)}
    for file in (_BASE_FILE, *_extra_fonts()):
        wanted -= _take(file, _covered(file, wanted))
    if wanted:
        covered = {file: _covered(file, wanted) for file in _system_fonts()}
        while wanted and covered:
            best = max(covered, key=lambda file: (len(covered[file] & wanted), _is_plain(file), file.name))
            if not covered[best] & wanted:
                break
            wanted -= _take(best, covered.pop(best) & wanted)


def _take(file: Path, characters: set[str]) -> set[str]:
    """Have matplotlib draw these characters with this font."""
    if characters:
        family = FT2Font(str(file)).family_name
        if not any(entry.name == family for entry in fontManager.ttflist):
            fontManager.addfont(file)
        _family.update(dict.fromkeys(characters, family))
    return characters


def _covered(file: Path, characters: Iterable[str]) -> set[str]:
    try:
        font = FT2Font(str(file))
        if not font.scalable or not characters:
            return set()
        font.set_size(16, 72)
        return {character for character in characters if _is_drawn(font, character)}
    except (OSError, RuntimeError):  # a file that FreeType does not read
        return set()


def _is_drawn(font: FT2Font, character: str) -> bool:
    """Tell whether a font has ink for a character; colour fonts list emoji that only colour shows."""
    if not font.get_char_index(ord(character)):
        return False
    left, bottom, right, top = font.load_char(ord(character)).bbox
    return (right > left and top > bottom) or unicodedata.category(character) in ("Zs", "Cf", "Mn")


def _is_graphic(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")


def _extra_fonts() -> Iterator[Path]:
    spec = find_spec(_EXTRA)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).rglob("*.ttc"))


def _system_fonts() -> list[Path]:
    files = sorted(Path(file) for file in findSystemFonts())
    return [file for file in files if _NO_LETTERS not in file.name.lower()]


def _is_plain(file: Path) -> bool:
    """Tell whether a font looks like one for text without serifs, neither bold nor oblique."""
    name = file.stem.lower()
    odd = ("bold", "black", "light", "thin", "italic", "oblique", "serif", "mono", "condensed")
    return not any(word in name for word in odd)
