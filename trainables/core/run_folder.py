"""Reading a run folder: which cells it has, their entries, its folds, its candidates by id or
name.
"""

from collections.abc import Iterable

import pandas as pd

from trainables.core.config import Candidate
from trainables.core.errors import RunFolderError, nearest
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry, read_entry, read_kept
from trainables.core.records import DamagedRecord, Keys, read_json


def read_entries(layout: RunLayout, keys: Iterable[str]) -> dict[str, Entry | RunFolderError]:
    """By its key, in the order of `keys`: each cell's entry, or why it cannot be read."""
    entries: dict[str, Entry | RunFolderError] = {}
    for key in keys:
        try:
            entries[key] = read_entry(layout.ledger / key)
        except RunFolderError as error:
            entries[key] = error
    return entries


def candidate_id(asked: str, candidates: Iterable[Candidate], option: str = "") -> str:
    """The id of the candidate that is asked for by its id or its name.

    Raises RunFolderError where there is none; `option`: where the user asked.
    """
    known = list(candidates)
    by_name = {one.name: one.id for one in known} | {one.id: one.id for one in known}
    if asked not in by_name:
        where = f" ({option})" if option else ""
        raise RunFolderError(
            f"the run has no candidate {asked!r}{where}; {nearest(asked, sorted(by_name))}"
        )
    return by_name[asked]


def read_keys(layout: RunLayout) -> list[str]:
    """The addresses of the run's cells, in order; raises DamagedRecord."""
    try:
        keys = read_json(layout.cells, Keys)
    except FileNotFoundError as error:
        raise DamagedRecord(layout.cells, "it is gone") from error
    if len(set(keys)) < len(keys):
        raise DamagedRecord(layout.cells, "a cell stands twice in it")
    return keys


def read_folds(layout: RunLayout) -> pd.DataFrame:
    """fold, image, label, group, role: one row per fold and image; raises DamagedRecord."""
    table = read_kept(
        layout.folds,
        {"fold": "whole", **dict.fromkeys(("image", "label", "group", "role"), "text")},
    )
    if not len(table) or not table["fold"].between(0, 9_999).all():
        raise DamagedRecord(layout.folds, "its folds are none")
    if strange := sorted(set(table["role"]) - {"train", "validation", "fold", "test"}):
        raise DamagedRecord(layout.folds, f"no role is called {strange[0][:80]!r}")
    return table


def present_groups(layout: RunLayout) -> "pd.Series[str]":
    """The group of each image (the index) in the run's present folds; nothing where they are lost.

    A group's name decides no result, so a cell stays done when groups are renamed or merged; its
    own table, and whatever was made from it, has the name of then.
    """
    try:
        folds = read_folds(layout)
    except DamagedRecord:
        return pd.Series(dtype=str)
    return folds.drop_duplicates("image").set_index("image")["group"]
