"""What a run leaves to be read: its tables, figures and report."""

from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.report.drawing import drawing_on_disk
from orchestrator.report.figures import draw_figures
from orchestrator.report.page import write_report
from orchestrator.results.run import Run, load_run
from trainables.core.layout import RunLayout
from xai.drawing.fonts import missing_note
from xai.methods.registry import METHODS


def write_reports(layout: RunLayout, say: Callable[[str], None] = lambda _: None) -> str | None:
    """Tables, figures and report of everything that is done so far; returns what to say of names
    without a font.

    `say` gets a line for each picture that is none, and is left out.
    """
    run = load_run(layout.root)
    run.save_tables()
    explanations = []
    for path, candidate in _representatives(run):
        if drawing := drawing_on_disk(path, candidate):
            explanations.append(drawing)
        else:
            say(f"lost    {str(path)!r} is no PNG file: `rayfold explain` makes it again")
    write_report(run, [*draw_figures(run), *explanations])
    return missing_note((*run.classes, *map(str, run.candidates["name"])))


def _representatives(run: Run) -> Iterator[tuple[Path, str]]:
    """The pictures that `rayfold explain` has drawn for each class of each candidate, with its
    id.
    """
    for candidate in map(str, run.candidates["id"]):
        for method in METHODS:
            for path in sorted(run.layout.candidate_figures(candidate).glob(f"{method}_*.png")):
                yield path, candidate
