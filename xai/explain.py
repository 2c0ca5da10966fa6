"""The whole of `rayfold explain`: heatmaps, then what they show, then pictures. Run again, it does
what is missing.
"""

from collections.abc import Sequence
from pathlib import Path

from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout
from trainables.core.ledger import Entry
from trainables.data.manifest import Manifest
from trainables.models.known_code import check_known
from trainables.models.user_code import folder_that_trained
from trainables.runtime.connection import connect
from trainables.runtime.private_folder import check_own
from trainables.runtime.waiting import taken
from xai.drawing.pages import Style, write_overlays, write_pages
from xai.shards.export import Outcome, export
from xai.shards.heatmaps import Heatmaps, write_shard
from xai.shards.randomisation import randomise
from xai.shards.shard_plan import (
    ExplainOptions,
    Say,
    check_explanations,
    chosen_cells,
    missing,
    shards,
)
from xai.shards.summary import save_table, summarise


def explain_run(
    run: Path, options: ExplainOptions, style: Style, address: str | None, say: Say
) -> int:
    """Explain the done cells of a run folder: what is asked for and not there yet.

    Args:
        run: The run folder.
        options: Which cells, methods and layers, and how many maps the model judges.
        style: What is drawn, and how.
        address: The Ray cluster to use; None: one on this machine.
        say: Gets one line at a time for people.

    Returns:
        0, or 1 when some shards or checks failed or there is no map.

    Raises:
        RunFolderError: No such run, nothing done in it, or another explanation at work there.
        ModelError: A library, a layer or the code of a model is missing; nothing has started.
    """
    layout = RunLayout(run.absolute())
    check_own(layout.root)
    entries = chosen_cells(layout, options, say)
    check_explanations(entries, options)
    for spec in {entry.spec.candidate.id: entry.spec for entry in entries}.values():
        check_known(spec, layout.root)
        if ":" in spec.candidate.model:
            folder_that_trained(layout, spec)  # raises where the cells could not be opened
    lock = taken(
        layout.xai_lock,
        f"another explanation is at work in {str(layout.root)!r}: wait for it or stop it",
    )
    try:
        return _explain(layout, entries, options, style, address, say)
    finally:
        lock.release()


def _explain(
    layout: RunLayout,
    entries: Sequence[Entry],
    options: ExplainOptions,
    style: Style,
    address: str | None,
    say: Say,
) -> int:
    """Maps, checks, pictures, tables, pages, one after the other; returns the exit code."""
    wanted = list(shards(entries, options, Manifest.load(layout.manifest), say))
    work = missing(layout, wanted)
    say(
        f"explain {len(wanted)} shards of {len(entries)} cells, {len(wanted) - len(work)} of "
        "them already done"
    )
    with connect(address) as nodes:
        outcomes = export(layout, work, nodes, say) if work else []
        _write_skipped(layout)
        failures = _report(outcomes, say)
        if len(failures) == len(wanted):
            say(
                f"nothing of what was asked for could be explained: all {len(wanted)} shards failed"
            )
        if (heatmaps := _with_maps(layout)) is None:
            say(
                f"nothing is explained in {str(layout.root)!r}: no map, so no tables and no "
                "pictures"
            )
            return 1
        for layer in heatmaps.guessed:
            say(
                f"places  of the cells of {layer!r} are a guess: an operation before it could "
                "not be followed"
            )
        gpus = any(node["gpus"] for node in nodes)
        sanity, unchecked = randomise(layout, entries, options.explanations, gpus)
        save_table(layout, "sanity", sanity)
        for failure in sorted(set(unchecked) - set(failures)):
            say(f"failed  sanity check: {failure}")
        if style.overlays:
            say(
                f"overlay {write_overlays(layout, heatmaps, style)} pictures below "
                f"{layout.overlays}"
            )
    summary, folds = summarise(heatmaps)
    save_table(layout, "summary", summary)
    save_table(layout, "folds", folds)
    write_pages(layout, heatmaps, layout.root.name, style, say)
    for line in heatmaps.left_out:
        say(f"lost    {line}")
    say(f"gallery {layout.gallery}")
    return 1 if failures or unchecked else 0


def _report(outcomes: Sequence[Outcome], say: Say) -> list[str]:
    """Say what became of the shards; returns why some failed, one line for each of them."""
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    for failure in sorted(set(failures)):
        say(f"failed  {failures.count(failure)} shards: {failure}")
    maps, errors = sum(o.maps for o in outcomes), sum(o.errors for o in outcomes)
    say(f"maps    {maps} new, {errors} images without a map")
    return failures


def _with_maps(layout: RunLayout) -> Heatmaps | None:
    """The heatmaps of the run, if there is a single map among them."""
    try:
        heatmaps = Heatmaps(layout)
    except RunFolderError:
        return None
    return heatmaps if heatmaps.table["error"].isna().any() else None


def _write_skipped(layout: RunLayout) -> None:
    """The images that could not be used have a row, too, which says why."""
    table = Manifest.load(layout.manifest).table
    skipped = table[table["state"] == "skipped"]
    if len(skipped):
        rows = [
            {
                "image": row.image,
                "label": row.label,
                "group": row.group,
                "split": "skipped",
                "error": row.reason,
            }
            for row in skipped.itertuples()
        ]
        write_shard(layout.heatmaps / "skipped.parquet", rows, "skipped")
