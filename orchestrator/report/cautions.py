"""What a reader must be warned of before reading numbers."""

from collections.abc import Iterator, Mapping

import pandas as pd

from orchestrator.report.data_summary import counts_by_class
from orchestrator.report.facts import Facts
from xai.drawing.fonts import missing_note

_FEW = 10  # images of a class below which a part's metrics are called coarse


def warnings_of(facts: Facts) -> Iterator[str]:
    states = facts.cells["state"].value_counts()
    for state, meaning in (
        ("failed", "failed"),
        ("missing", "are not done yet"),
        ("running", "are at work"),
    ):
        if count := int(states.get(state, 0)):
            yield (
                f"{count} of {len(facts.cells)} cells {meaning}; their candidates have no averages."
            )
    if skipped := int((facts.images["state"] == "skipped").sum()):
        yield (
            f"{skipped:,} listed {'image was' if skipped == 1 else 'images were'} unusable and "
            "skipped; see Data."
        )
    yield from (f"{note[:1].upper()}{note[1:]}." for note in facts.notes)
    for role, part in (("fold", "fold"), ("validation", "validation part"), ("test", "test set")):
        counts = counts_by_class(facts, role)
        if len(counts) and counts["least"].min() < _FEW:
            label, least = counts["least"].idxmin(), int(counts["least"].min())
            which = "The test set" if role == "test" else f"The smallest {part}"
            yield (
                f"{which} holds {least} {'image' if least == 1 else 'images'} of {label}: its "
                "metrics are coarse."
            )
    if note := missing_note((*facts.classes, *facts.names.values())):
        yield f"{note}."
    for package, versions in _differing_versions(facts):
        yield f"The run was continued with another version of {package}: {', '.join(versions)}."
    devices = sorted(set(map(str, facts.done["device"])))
    if len(devices) > 1:
        yield (
            "The cells ran on different devices, whose last digits may differ: "
            f"{', '.join(devices)}."
        )
    yield from _differing_threads(facts.done, facts.names)


def _differing_threads(done: pd.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    """Where the done cells had different numbers of threads, which cells had which."""
    done = done[done["device"] == "CPU"].dropna(subset=["threads"])
    if done["threads"].nunique() < 2:
        return
    had = []
    for threads, cells in done.groupby("threads"):
        labels = [
            f"{names[str(c.candidate)]} fold {c.fold} seed {c.seed}" for c in cells.itertuples()
        ]
        more = f" and {len(labels) - _FEW} more" if len(labels) > _FEW else ""
        had.append(f"{threads} ({', '.join(labels[:_FEW])}{more})")
    yield (
        "Cells were computed with different numbers of threads, which may move probabilities by "
        f"hundredths: {'; '.join(had)}. Do not read small differences between them; "
        "resources.cpus_per_cell fixes the number."
    )


def _differing_versions(facts: Facts) -> Iterator[tuple[str, list[str]]]:
    """Packages of which this run's commands had different versions, with these versions in the
    order of use.
    """
    used: dict[str, dict[str, None]] = {}
    for invocation in facts.invocations:
        for package, version in {
            "python": invocation.get("python"),
            **invocation.get("packages", {}),
        }.items():
            used.setdefault(package, {})[str(version)] = None
    yield from (
        (package, list(versions)) for package, versions in used.items() if len(versions) > 1
    )
