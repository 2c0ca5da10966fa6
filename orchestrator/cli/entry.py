"""Where every command begins and every error ends: `rayfold`, or `python -m orchestrator`.

Exit codes: 0 all done, 1 some cells failed, 2 bad input (one line says what); those of
`lifeline.py` when it is stopped or loses its cluster.
"""

import errno
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from trainables.core.errors import RayfoldError
from trainables.core.quoting import printable


class _Command(NamedTuple):
    """A command before its module is loaded."""

    place: str  # module below orchestrator.cli and function
    help: str
    forwards: bool = False  # everything behind its name, `--help` too, to a program of `cluster`


_COMMANDS = {
    "demo": _Command(
        "demo:demo",
        "Compare and explain two small models on procedural chest radiographs, from nothing to "
        "the report.",
    ),
    "init": _Command(
        "init:init", "Write a commented experiment file, and a JSON Schema beside it for editors."
    ),
    "plan": _Command(
        "plan:plan", "Show data, folds, cells and resources without running anything."
    ),
    "run": _Command(
        "run:run",
        "Train every cell that the run folder lacks, then write tables, figures and report.",
    ),
    "status": _Command("status:status", "Show how every cell of a run stands."),
    "report": _Command("report:report", "Write tables, figures and report again from the ledger."),
    "study": _Command(
        "study:study", "Write the search of a run as an Optuna study, for optuna-dashboard."
    ),
    "predict": _Command("predict:predict", "Score new images with the fold ensemble."),
    "explain": _Command(
        "explain:explain",
        "Explain the finished cells of a run: heatmaps, overlays, scores of whether to believe "
        "them, a gallery.",
    ),
    "trust": _Command(
        "trust:trust",
        "Allow the code of a run's own models, which you have read, where it was not you who ran "
        "it.",
    ),
    "doctor": _Command(
        "cluster:doctor",
        "Check a SLURM login or compute node for what stops Ray clusters (`rayfold doctor "
        "--help`).",
        forwards=True,
    ),
    "sbatch": _Command(
        "cluster:sbatch",
        "Submit a Ray cluster and what it is for to SLURM: options of sbatch, then run EXPERIMENT "
        "(`--help` says all).",
        forwards=True,
    ),
    "slurm-script": _Command(
        "cluster:slurm_script",
        "Write the script that `rayfold sbatch` submits, to be changed or submitted by hand.",
        forwards=True,
    ),
}


class _Listed(TyperCommand):
    """A command as the list of commands shows it; called, it becomes the one of its module."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        return _loaded(str(self.name)).make_context(info_name, args, parent, **extra)


class _Commands(TyperGroup):
    """Loads the module of the command that is called and of no other."""

    def list_commands(self, _context: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: Any, name: str) -> TyperCommand | None:
        return _Listed(name, help=_COMMANDS[name].help) if name in _COMMANDS else None


def _loaded(name: str) -> Any:
    command = _COMMANDS[name]
    module, _, function = command.place.partition(":")
    called: Callable[..., None] = getattr(import_module(f"orchestrator.cli.{module}"), function)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    forwarding = {"allow_extra_args": True, "ignore_unknown_options": True}
    single.command(
        name,
        help=command.help,
        context_settings=forwarding if command.forwards else None,
        add_help_option=not command.forwards,
    )(called)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    help="Compare image classifiers honestly and fast: one YAML file in, tables, figures and a "
    "report out.",
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"rayfold {metadata.version('rayfold')}")
        raise typer.Exit


@app.callback()
def _before_any_command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which it is.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """What is asked of `rayfold` itself."""


# What the user can mend about a file system; any other OSError is a bug and keeps its traceback.
_DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
)


def main() -> None:
    """Entry point: turns what the user can mend into one line and exit code 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.exceptions.TyperException as error:
        # An option that there is not, a value that it cannot have.
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context else "rayfold"
        # "Value error" is pydantic's, which Typer asks.
        said = error.format_message().rstrip(".").replace("Value error, ", "")
        _give_up(f"{said} (see `{command} --help`)")
    except RayfoldError as error:
        _give_up(str(error))
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        remedy = (
            "free or allow it, or choose another run folder with --run; nothing that was done is "
            "lost"
        )
        place = repr(str(error.filename)) if error.filename else "what standard output goes to"
        _give_up(f"cannot use {place}: {error.strerror}; {remedy}")


def _give_up(message: str) -> NoReturn:
    with suppress(OSError, AttributeError):  # closed, or on a full disk
        sys.stderr.write(f"rayfold: {printable(message)}\n")
    sys.exit(2)
