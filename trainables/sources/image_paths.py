"""Paths of a table that were written on another system: the same file in another spelling, or what
may be meant.

No other file than the stated one is ever taken: only slashes, Unicode form, blanks at the ends,
file:// and variables are read as they are meant, each with a note. Anything else is a hint in the
reason.
"""

import difflib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from trainables.core.errors import DataError
from trainables.core.files import expand
from trainables.core.spelling import count, quoted, tidy
from trainables.sources.image_files import files_below

_DRIVE = re.compile(r"[A-Za-z]:/")
_MOST_SEARCHED = 10  # missing files for which a hint is sought that takes long to find
_MANY = 100  # files of one name
_MOST_INDEXED = 1_000_000  # files below the table's folder that are remembered


class PathReader:
    """Turns the paths of one table into files; relative ones start at `folder`, which is looked
    through once.

    Texts throughout, and every folder is looked for once: a table may name a million files that are
    not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, str | None] = {}
        self._names: dict[str, dict[str, list[str]]] = {}
        self._spelled: Counter[str] = Counter()
        self._searched = 0

    def read(self, text: str) -> tuple[str, str | None]:
        """The file that `text` names, and the reason why there is none, or None."""
        if "\0" in text:
            return self._place(quoted(text)), "missing file: a zero byte stands in its name"
        stated = self._place(text)
        if os.path.lexists(stated):
            return stated, None
        try:
            plain, spelling = _plain(text)
        except KeyError as error:
            return stated, f"missing file; the environment variable {error.args[0]} is not set"
        path: str | None = self._place(plain)
        if not (spelling and os.path.lexists(self._place(plain))):
            path, spelling = self._in_another_form(plain, spelling)
        if path is None:
            return stated, self._missing(plain)
        self._spelled[spelling] += 1
        return path, None

    def notes(self) -> list[str]:
        """What was read otherwise than it is written."""
        return [
            f"{count(number, 'path')} of the table read with {how}"
            for how, number in self._spelled.items()
        ]

    def _place(self, text: str) -> str:
        return os.path.normpath(os.path.join(self._folder, text))  # noqa: PTH118

    def _in_another_form(self, plain: str, spelling: str) -> tuple[str | None, str]:
        """The file whose names are the same letters in another Unicode form, where there is exactly
        one.
        """
        found = self._in_its_form(self._place(plain))
        if found is None:
            return None, ""
        return found, " and ".join(
            filter(None, [spelling, "another Unicode form of their letters"])
        )

    def _in_its_form(self, path: str) -> str | None:
        """A path with each of its names as it is written on the disk, where there is exactly
        one.
        """
        names: list[str] = []
        while path not in self._found and not os.path.lexists(path):
            path, name = os.path.split(path)
            names.append(name)
        found = self._found.get(path, path)
        while names:
            name = names.pop()
            found = found and self._named_alike(found, name)
            if names:
                path = os.path.join(path, name)  # noqa: PTH118
                self._found[path] = found
        return found

    def _named_alike(self, folder: str, name: str) -> str | None:
        if os.path.lexists(found := os.path.join(folder, name)):  # noqa: PTH118
            return found
        same = self._listed(folder).get(unicodedata.normalize("NFC", name), [])
        return os.path.join(folder, same[0]) if len(same) == 1 else None  # noqa: PTH118

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder by their composed form, where they have another one."""
        if folder not in self._names:
            names: dict[str, list[str]] = defaultdict(list)
            for name in _names_in(folder):
                names[unicodedata.normalize("NFC", name)].append(name)
            self._names[folder] = names
        return self._names[folder]

    # --- hints ------------------------------------------------------------------------------------

    def _missing(self, plain: str) -> str:
        names = [
            _folded(part) for part in PurePosixPath(plain).parts if part not in ("/", ".", "..")
        ]
        if not names:
            return "missing file"
        of_that_name = self._named(names[-1])
        if (not of_that_name or len(of_that_name) > _MANY) and self._searched >= _MOST_SEARCHED:
            return "missing file"
        self._searched += not of_that_name or len(of_that_name) > _MANY
        best = _ending_like(of_that_name, names[:-1]) or self._similar(plain)
        if len(best) > 1:
            return (
                f"missing file; there are {len(best):,} of that name below the table's folder: "
                "write which one"
            )
        return (
            f"missing file; there is {quoted(best[0])}: did you mean it?"
            if best
            else "missing file"
        )

    def _named(self, name: str) -> list[str]:
        """The files below the table's folder of this name, else those that differ in their suffix
        only.
        """
        by_name, by_stem = self._below
        return by_name.get(name) or by_stem.get(name) or by_stem.get(_stem(name), [])

    def _similar(self, plain: str) -> list[str]:
        path = Path(self._place(plain))
        alike = difflib.get_close_matches(path.name, _names_in(str(path.parent)), n=1, cutoff=0.85)
        return [str(PurePosixPath(plain).with_name(alike[0]))] if alike else []

    @cached_property
    def _below(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The files below the table's folder, as relative paths, by name and by name without
        suffix.
        """
        by_name: dict[str, list[str]] = defaultdict(list)
        by_stem: dict[str, list[str]] = defaultdict(list)
        with suppress(DataError):  # a folder that may not be read ends the search for hints
            for path in islice(files_below(self._folder), _MOST_INDEXED):
                relative, name = path.relative_to(self._folder).as_posix(), _folded(path.name)
                by_name[name].append(relative)
                by_stem[_stem(name)].append(relative)
        return dict(by_name), dict(by_stem)


def _ending_like(relatives: list[str], wanted: list[str]) -> list[str]:
    """Of some relative paths those that share most of the folders above the file."""
    by_shared: dict[int, list[str]] = defaultdict(list)
    for relative in relatives:
        parts = map(_folded, reversed(relative.split("/")[:-1]))
        pairs = zip(parts, reversed(wanted), strict=False)
        by_shared[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))].append(
            relative
        )
    return by_shared[max(by_shared)] if by_shared else []


def _plain(text: str) -> tuple[str, str]:
    """A path in the spelling of this system, and how that differs from what was written; KeyError
    for a variable.
    """
    changes = []
    plain = tidy(text)
    if plain != unicodedata.normalize("NFC", text):
        changes.append("the blanks at their ends left off")
    if plain.lower().startswith("file:"):
        plain = unquote(urlsplit(plain).path)
        changes.append("file:// left off")
    expanded = expand(plain)
    if expanded != plain:
        changes.append("home folder and variables put in")
    if "\\" in expanded:
        expanded = expanded.replace("\\", "/")
        changes.append("slashes for backslashes")
    if _DRIVE.match(expanded):
        expanded = f"/{expanded}"  # a path of Windows starts at no folder of ours
    return expanded, " and ".join(changes)


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (OSError, ValueError):
        return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
