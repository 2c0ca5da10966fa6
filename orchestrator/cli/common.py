"""What commands share: the arguments that several have, lines for people, the run folder."""

from pathlib import Path
from typing import Annotated

import typer

from trainables.core.errors import RunFolderError
from trainables.core.quoting import printable

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file.", metavar="EXPERIMENT")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="Run folder; default: runs/<name of the experiment>."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to use; default: RAY_ADDRESS, else this machine.", envvar="RAY_ADDRESS"
    ),
]


def say(line: str, err: bool = False) -> None:
    """One line for people, whatever names and reasons are in it."""
    typer.echo(printable(line), err=err)


def run_folder(run: Path | None, name: str) -> Path:
    """Where a run goes.

    Raises RunFolderError where a file is in the way, or no folder can have that name.
    """
    folder = run if run is not None else Path("runs") / name
    for path in (folder, *folder.parents):
        try:
            there = path.is_dir() or not path.lstat()
            flaw = "" if there else f"Not a directory, {str(path)!r} is a file"
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            flaw = getattr(error, "strerror", None) or str(error)
        if flaw:
            raise RunFolderError(
                f"cannot write into the run folder {str(folder)!r}: {flaw}; choose another by --run"
            )
    return folder
