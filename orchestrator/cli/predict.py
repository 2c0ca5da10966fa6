"""`rayfold predict`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import RunFolder, say


def predict(
    run: RunFolder,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders of images.", metavar="IMAGES")
    ],
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv"),
    candidate: Annotated[
        str | None, typer.Option(help="Id or name of one candidate; default: all.")
    ] = None,
) -> None:
    # Slow to import, and of no use to whoever asks for help.
    from orchestrator.results.predict import finished_cells, write_predictions
    from orchestrator.results.predict import predict as score
    from orchestrator.results.run import load_run

    opened = load_run(run)
    table = score(opened, images, candidate, lambda note: say(f"note        {note}"))
    write_predictions(table, out)
    skipped = int((table["state"] == "skipped").sum())
    say(f"wrote {len(table)} rows to {out}, {skipped} of them skipped")
    cells = finished_cells(opened, candidate)
    for name, (done, of) in cells.items():
        if done < of:
            what = f"{done} models of {of}" if done else "left out, none of its cells is finished"
            say(f"{name}: {what}; run the experiment again to finish it", err=True)
    if not all(done for done, _ in cells.values()):
        raise typer.Exit(1)
