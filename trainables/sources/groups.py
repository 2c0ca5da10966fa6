"""Which images belong to one patient: groups that are written in several ways, are missing, or read
as if they were.
"""

import re
from pathlib import Path

import pandas as pd

from trainables.core.errors import UnreadableImage
from trainables.core.spelling import alike, count, listed, lookalike, quoted
from trainables.pictures import looks
from trainables.pictures.decoders import each
from trainables.pictures.formats import IMAGE_SUFFIXES

#: Files that nobody opens to see whether they are DICOM, by their suffix.
_PICTURES = IMAGE_SUFFIXES - {".dcm", ".dicom"}
_NAME_GROUPS = {
    "folder": "data.group_from_name reads the patient out of names and folders",
    "table": "give the table a column group, or name its column of patients in data.columns.group",
    "covid_qu_ex": "the tree does not tell its patients",
}
#: What people and programs write where nobody knows the patient; anything without a letter or digit
#: is such a value.
_UNKNOWN = re.compile(
    r"nan|nat|na|n[/.]a\.?|nil|none|null|void|unk|unknown|undefined|unspecified|unbekannt|unidentified|missing|empty|"
    r"tbd|tba|(not|un)-?(available|known|applicable|given|stated|assigned)|(no|unknown)-?(id|patient|subject|group)|"
    r"(patient-)?anon(ym|ymous|ymi[sz]ed)?|de-?identified|removed|redacted|x{2,}",
    re.IGNORECASE,
)
#: Numbers that stand for it too, but may be numbers of patients.
_PLACEHOLDER = re.compile(r"-?[0.]+|-1|-?9{2,}|-?9{2,}\.0")
_LARGE = 0.2  # of all images, in one group, while
_TIMES = 5  # it is this many times as large as half of the groups


def merge_groups(listing: pd.DataFrame) -> list[str]:
    """Give groups that look alike one name, in place: images that are kept together needlessly leak
    nothing.
    """
    same = alike(listing["group"].dropna().unique())
    first = {name: names[0] for names in same for name in names}
    if not first:
        return []
    listing["group"] = (
        listing["group"].map(lambda name: first.get(name, name), na_action="ignore").astype("str")
    )
    return [
        "groups that differ in capitals, blanks, look-alike letters or a '.0' at the end only are "
        f"one ({len(same):,}): {listed(name for names in same for name in names)}"
    ]


def take_patients(listing: pd.DataFrame) -> list[str]:
    """Group DICOM files that have no group by their patients, in place."""
    missing = listing.index[listing["group"].isna() & listing["reason"].isna()]
    may_be = missing[
        [Path(path).suffix.lower() not in _PICTURES for path in listing.loc[missing, "path"]]
    ]
    answers = each(looks.patient, [(path,) for path in listing.loc[may_be, "path"]])
    found = [None if isinstance(answer, UnreadableImage) else answer for answer in answers]
    patients = pd.Series(found, may_be, dtype="str").dropna()
    if patients.empty:
        return []
    if len(patients) > 1 and patients.nunique() == 1:
        return [
            f"all {len(patients):,} DICOM files have one and the same PatientID, which is no group "
            "therefore"
        ]
    listing.loc[patients.index, "group"] = patients
    return [
        f"{count(len(patients), 'DICOM file')} without a group "
        f"{'is' if len(patients) == 1 else 'are'} grouped by the PatientID in the header, as a "
        f"digest: {count(patients.nunique(), 'patient')}"
    ]


def notes_on_groups(listing: pd.DataFrame, source: str) -> list[str]:
    """What the groups of a whole listing say about themselves, in one line for each kind of
    thing.
    """
    own = listing["group"] == listing["image"]
    if own.all():
        return [
            f"every image is its own group, so images of one patient may lie in training and test ("
            f"{_NAME_GROUPS[source]})"
        ]
    if listing["group"].is_unique:
        return ["no two images share a group: check that it names the patient and not the image"]
    notes = _on_sizes(listing["group"].value_counts(), len(listing))
    if own.any():
        notes.append(
            f"{int(own.sum()):,} of {len(listing):,} images have no group and are their own"
        )
    return notes


def _on_sizes(sizes: pd.Series, images: int) -> list[str]:
    """Groups that read like none, and those that are far larger than the others.

    They stay together, since whoever is split may leak, and whoever is merged does not.
    """
    usual = float(sizes.median())
    unlike = sizes > _TIMES * usual
    unknown = [
        name for name in sizes.index if sizes[name] > 1 and _reads_unknown(name, bool(unlike[name]))
    ]
    large = [
        name for name in sizes.index[unlike & (sizes > _LARGE * images)] if name not in unknown
    ]
    notes = []
    if unknown:
        notes.append(
            "groups that read as if the patient were unknown are kept together, each as one "
            f"patient in one part: {_counted(sizes, unknown)} (leave them empty, and each image is "
            "a group of its own)"
        )
    if large:
        notes.append(
            f"of {images:,} images, one group has far more than the others, which have {usual:g} "
            f"as a rule, and all of it lies in one part: {_counted(sizes, large)} (check that it "
            "is one patient)"
        )
    return notes


def _reads_unknown(name: str, unlike_others: bool) -> bool:
    plain = lookalike(name).strip("-#<>[]()'\"*")
    if _PLACEHOLDER.fullmatch(name):
        return unlike_others
    return not any(map(str.isalnum, plain)) or _UNKNOWN.fullmatch(plain) is not None


def _counted(sizes: pd.Series, names: list[str]) -> str:
    shown = [f"{quoted(name)} ({count(int(sizes[name]), 'image')})" for name in names[:3]]
    return ", ".join([*shown, *([f"and {len(names) - 3:,} more"] if len(names) > 3 else [])])
