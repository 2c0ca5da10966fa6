"""One name, written in several ways: what is tidied with a note, and what is too much alike to be
two things.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

_UNSEEN = (
    "\u00ad\u180e\u200b-\u200f\u2060\ufeff"  # soft hyphen, zero-width characters, byte order mark
)
_ENDS = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+\Z")
_INNER_UNSEEN = re.compile(rf"[{_UNSEEN}]")
_JOINTS = re.compile(r"[\s_\u2010-\u2015\u2212-]+")  # blanks, underscores and every kind of dash
_CYRILLIC = str.maketrans("аевкмнорстухіѕј", "aebkmhopctyxisj")
_WHOLE = re.compile(r"([+-]?\d+)[.,]0*")
_SHOWN = 3
_LONGEST = 60  # characters of a name in a note


def tidy(text: str) -> str:
    """`text` without blanks and invisible characters at its ends, in Unicode's composed form
    (NFC).
    """
    return unicodedata.normalize("NFC", _ENDS.sub("", text))


def lookalike(text: str) -> str:
    """Equal for names that differ in capitals, blanks, dashes, invisible or look-alike characters
    only.

    Digits stay as they are, '007' and '7' are two names, but 12.0 is 12: whole numbers become so in
    a column that lacks some of them.
    """
    plain = _INNER_UNSEEN.sub("", unicodedata.normalize("NFKC", tidy(text))).casefold()
    if whole := _WHOLE.fullmatch(plain):
        plain = whole[1]
    return _JOINTS.sub("-", plain).translate(_CYRILLIC)


def alike(names: Iterable[str]) -> list[list[str]]:
    """The names of which there are several that look alike, those together, sorted."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        by_look[lookalike(name)].append(name)
    return [names for names in by_look.values() if len(names) > 1]


def quoted(name: str) -> str:
    """A name as a note shows it: quoted, on one line, not endless, with escapes for what cannot be
    seen.
    """
    text = repr(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…'"


def pattern(text: str) -> str:
    """A regular expression as its file has it, quoted and on one line, without a second backslash
    for each.
    """
    return repr(text).replace("\\\\", "\\")


def listed(names: Iterable[str], joined: str = ", ") -> str:
    """The first few names of many, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - _SHOWN:,} more"] if len(names) > _SHOWN else []
    return joined.join([*(quoted(name) for name in names[:_SHOWN]), *more])


def count(number: int, what: str) -> str:
    """'1 image', '1,200 images'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
