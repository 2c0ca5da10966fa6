"""What a run leaves to be read: its tables, figures and report."""

from pathlib import Path

from orchestrator.figures import draw_figures
from orchestrator.report import write_report
from orchestrator.results import Run, load_run
from trainables.layout import RunLayout
from xai.fonts import missing_note
from xai.methods import METHODS


def write_reports(layout: RunLayout) -> str | None:
    """Tables, figures and report of everything that is done so far; returns what to say of names without a font."""
    run = load_run(layout.root)
    run.save_tables()
    write_report(run, [*draw_figures(run), *_representatives(run)])
    return missing_note((*run.classes, *map(str, run.candidates["name"])))


def _representatives(run: Run) -> list[Path]:
    """The pictures that `rayfold explain` has drawn for each class of each candidate."""
    folders = [run.layout.candidate_figures(str(candidate)) for candidate in run.candidates["id"]]
    return [path for folder in folders for method in METHODS for path in sorted(folder.glob(f"{method}_*.png"))]
