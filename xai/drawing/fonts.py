"""Fonts for names in any script: in pictures every character has a glyph, or is spelled out.

DejaVu Sans comes with matplotlib and knows Latin, Greek, Cyrillic, Arabic and more. What it lacks
is looked for in the machine's fonts; what none of them has is written as its escape, such as
\\u9633, never as a box. So the same machine always draws the same picture, but machines with other
fonts may draw others.
"""

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from matplotlib import font_manager, get_data_path
from matplotlib.ft2font import FT2Font

_BASE = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
# Many fonts of one script have a single weight, which matplotlib would mention in every figure.
logging.getLogger("matplotlib.font_manager").addFilter(
    lambda record: "find font weight" not in record.getMessage()
)
_font_of: dict[str, Path | None] = {}  # of every character asked for so far


def legible(text: str) -> str:
    r"""`text` with each character that no font of this machine has as its escape, such as
    \u9633.
    """
    fonts = _fonts_of(text)
    return "".join(c if fonts[c] else c.encode("unicode_escape").decode() for c in text)


def families(texts: Iterable[str]) -> list[str]:
    """What matplotlib's `font.family` must be to draw these texts: DejaVu Sans, then what it
    lacks.
    """
    fonts = sorted({font for font in _fonts_of("".join(texts)).values() if font and font != _BASE})
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for font in fonts:
        if str(font) not in known:
            font_manager.fontManager.addfont(font)
    return ["DejaVu Sans", *dict.fromkeys(FT2Font(str(font)).family_name for font in fonts)]


def runs(text: str) -> Iterator[tuple[Path | None, str]]:
    """The pieces of a legible text that one font draws, with this font; None: DejaVu Sans."""
    fonts = _fonts_of(text)
    for font, piece in groupby(text, key=lambda c: fonts[c]):
        yield (None if font == _BASE else font), "".join(piece)


def missing_note(texts: Iterable[str]) -> str | None:
    """What to tell the user where a name cannot be drawn as it is written, else None."""
    spelled = [text for text in dict.fromkeys(texts) if legible(text) != text]
    if not spelled:
        return None
    more = f" and {len(spelled) - 1} more" if len(spelled) > 1 else ""
    return (
        f"No font of this machine can draw the name {spelled[0]!r}{more}, so pictures spell it "
        f"{legible(spelled[0])}: install a font of its script (on Debian and Ubuntu fonts-noto-cjk "
        "for Chinese, Japanese and Korean, fonts-noto-core for others) and write the report again"
    )


def _fonts_of(text: str) -> dict[str, Path | None]:
    """The font of each character; those not met before are looked for in all fonts, DejaVu Sans
    first.
    """
    unknown = sorted({c for c in text if c not in _font_of})
    for font in [_BASE, *_installed()] if unknown else ():
        if not unknown:
            break
        has = _covered(font, unknown)
        _font_of.update(dict.fromkeys(has, font))
        unknown = [c for c in unknown if c not in has]
    _font_of.update(dict.fromkeys(unknown))
    return {c: _font_of[c] for c in text}


def _covered(font: Path, characters: list[str]) -> set[str]:
    """Those of the characters that a font has as outlines; a font that cannot be read has none."""
    try:
        face = FT2Font(str(font))
    except (OSError, RuntimeError):
        return set()
    return {c for c in characters if face.get_char_index(ord(c))} if face.scalable else set()


@lru_cache
def _installed() -> tuple[Path, ...]:
    """The machine's fonts, upright sans-serif of regular weight first, in an order that is always
    the same.
    """
    odd = (
        "bold",
        "black",
        "light",
        "thin",
        "medium",
        "italic",
        "oblique",
        "serif",
        "mono",
        "lastresort",
    )

    def key(font: Path) -> tuple[int, str]:
        return sum(word in font.stem.lower() for word in odd), str(font)

    return tuple(sorted(map(Path, font_manager.findSystemFonts()), key=key))
