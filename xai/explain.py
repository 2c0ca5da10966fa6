"""The whole of `rayfold explain`: heatmaps, then what they show, then pictures. Run again, it does what is missing."""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from trainables.connection import connect
from trainables.errors import RunFolderError
from trainables.layout import RunLayout
from trainables.manifest import Manifest
from xai.export import export
from xai.heatmaps import Heatmaps, write_shard
from xai.pages import Style, write_overlays, write_pages
from xai.randomisation import randomise
from xai.summary import save_table, summarise
from xai.work import Options, chosen_cells, missing, shards


def explain_run(run: Path, options: Options, style: Style, address: str | None, say: Callable[[str], None]) -> int:
    """Explain the done cells of a run folder; returns 0, or 1 when some shards failed.

    Only one explanation may be at work in a run folder; RunFolderError otherwise.
    """
    layout = RunLayout(run.absolute())
    entries = chosen_cells(layout, options)
    lock = FileLock(layout.xai_lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"another explanation is at work in {str(layout.root)!r}: wait for it or stop it"
        ) from None
    try:
        wanted = list(shards(entries, options, Manifest.load(layout.manifest)))
        work = missing(layout, wanted)
        say(f"explain {len(wanted)} shards of {len(entries)} cells, {len(wanted) - len(work)} of them already done")
        with connect(address) as nodes:
            import_path = Path.cwd()  # where layers of the user's own are looked for
            outcomes = export(layout, work, nodes, import_path, say) if work else []
            _write_skipped(layout)
            failures = [outcome.failure for outcome in outcomes if outcome.failure]
            for failure in sorted(set(failures)):
                say(f"failed  {failures.count(failure)} shards: {failure}")
            maps, errors = sum(o.maps for o in outcomes), sum(o.errors for o in outcomes)
            say(f"maps    {maps} new, {errors} images without")
            gpus = any(node["gpus"] for node in nodes)
            heatmaps = Heatmaps(layout)
            save_table(layout, "sanity", randomise(layout, entries, options.explanations, gpus, import_path))
            if style.overlays:
                say(f"overlay {write_overlays(layout, heatmaps, style)} pictures below {layout.overlays}")
        summary, folds = summarise(heatmaps)
        save_table(layout, "summary", summary)
        save_table(layout, "folds", folds)
        write_pages(layout, heatmaps, layout.root.name, style)
        say(f"gallery {layout.gallery}")
    finally:
        lock.release()
    return 1 if failures else 0


def _write_skipped(layout: RunLayout) -> None:
    """The images that could not be used have a row, too, which says why."""
    table = Manifest.load(layout.manifest).table
    skipped = table[table["state"] == "skipped"]
    if len(skipped):
        rows = [
            {"image": row.image, "label": row.label, "group": row.group, "split": "skipped", "error": row.reason}
            for row in skipped.itertuples()
        ]
        write_shard(layout.heatmaps / "skipped.parquet", rows, "skipped")
