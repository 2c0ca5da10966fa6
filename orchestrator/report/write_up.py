"""What a run leaves to be read: its tables, figures and report."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.report.figures import draw_figures
from orchestrator.report.page import write_report
from orchestrator.results.run import Run, load_run
from trainables.core.files import open_regular
from trainables.core.layout import RunLayout
from xai.drawing.fonts import missing_note
from xai.methods.registry import METHODS

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_MOST_BYTES = 16 * 2**20  # of a picture


def write_reports(layout: RunLayout, say: Callable[[str], None] = lambda _: None) -> str | None:
    """Tables, figures and report of everything that is done so far; returns what to say of names
    without a font.

    `say` gets a line for each picture that is none, and is left out.
    """
    run = load_run(layout.root)
    run.save_tables()
    drawn = _representatives(run)
    pictures = [path for path in drawn if _is_png(path)]
    for path in drawn:
        if path not in pictures:
            say(f"lost    {str(path)!r} is no PNG file: `rayfold explain` makes it again")
    write_report(run, [*draw_figures(run), *pictures])
    return missing_note((*run.classes, *map(str, run.candidates["name"])))


def _is_png(path: Path) -> bool:
    """Whether a file is a picture that the report can hold."""
    try:
        with open_regular(path) as file:
            return file.read(16) == _PNG and file.seek(0, 2) < _MOST_BYTES
    except OSError:
        return False


def _representatives(run: Run) -> list[Path]:
    """The pictures that `rayfold explain` has drawn for each class of each candidate."""
    folders = [run.layout.candidate_figures(str(candidate)) for candidate in run.candidates["id"]]
    return [
        path
        for folder in folders
        for method in METHODS
        for path in sorted(folder.glob(f"{method}_*.png"))
    ]
