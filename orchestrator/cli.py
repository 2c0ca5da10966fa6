"""The command line: `rayfold`, or `python -m orchestrator`.

Exit codes: 0 all done, 1 some cells failed, 2 bad input (one line says what); those of
`lifeline.py` when it is stopped or loses its cluster. Heavy modules are imported inside the
commands, so that help and mistakes answer at once.
"""

import errno
import os
import sys
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from trainables.core.errors import RayfoldError, RunFolderError
from trainables.core.quoting import printable
from xai import cli as xai_cli

app = typer.Typer(
    help=(
        "Compare image classifiers honestly and fast: one YAML file in, tables, figures and a "
        "report out."
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
)

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file.", metavar="EXPERIMENT")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="Run folder; default: runs/<name of the experiment>.")
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Only see whether the experiment and the files that it names are right, quickly.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to use; default: RAY_ADDRESS, else this machine.", envvar="RAY_ADDRESS"
    ),
]


@app.command()
def demo(run: RunOption = None, address: Address = None) -> None:
    """Compare and explain two small models on procedural chest radiographs, from nothing to the
    report.
    """
    from orchestrator.experiment.templates import text

    code = _run(text("demo.yaml"), "demo.yaml", Path.cwd(), run, address)
    if code == 0:
        from orchestrator.report.write_up import write_reports
        from orchestrator.results.run import load_run
        from xai.drawing.pages import Style
        from xai.explain import explain_run
        from xai.shards.shard_plan import Options

        folder = _folder(run, "demo")
        # Lite0's last map has 3 × 3 cells, too few to point at an opacity; its last of 6 × 6 can.
        options = Options(methods=("gradcam", "layercam@6"), faithfulness=16)
        code = explain_run(folder, options, Style(), address, _say)
        write_reports(load_run(folder).layout)
    raise typer.Exit(code)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("experiment.yaml"),
) -> None:
    """Write a commented experiment file, and a JSON Schema beside it for editors."""
    import json

    from orchestrator.experiment.experiment_file import json_schema
    from orchestrator.experiment.templates import text
    from trainables.core.errors import ExperimentError
    from trainables.core.files import write_text

    if path.exists():
        raise ExperimentError(
            f"{str(path)!r} exists already: choose another name, it is not overwritten"
        )
    schema = path.with_name("rayfold.schema.json")
    try:
        write_text(
            path, f"# yaml-language-server: $schema={schema.name}\n{text('experiment.yaml')}"
        )
        write_text(schema, json.dumps(json_schema(), indent=1) + "\n")
    except OSError as error:
        raise ExperimentError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    _say(f"wrote {path} and {schema}; edit it, then: rayfold plan {path}")


@app.command()
def plan(experiment: ExperimentFile, run: RunOption = None) -> None:
    """Show data, folds, cells and resources without running anything."""
    from orchestrator.experiment.experiment_file import read_experiment

    resolved = read_experiment(experiment)
    from orchestrator.execution.cells import prepare
    from orchestrator.execution.plan import plan_lines
    from trainables.core.layout import RunLayout

    for line in plan_lines(prepare(resolved, RunLayout(_folder(run, resolved.name)))):
        _say(line)


@app.command(name="run")
def run_command(
    experiment: ExperimentFile,
    run: RunOption = None,
    address: Address = None,
    check: CheckOption = False,
) -> None:
    """Train every cell that the run folder lacks, then write tables, figures and report."""
    from orchestrator.experiment.experiment_file import read_text

    text = read_text(experiment)
    if check:
        from orchestrator.execution.cells import check_files
        from orchestrator.experiment.experiment_file import parse_experiment

        resolved = parse_experiment(text, experiment.name, experiment.absolute().parent)
        _folder(run, resolved.name)
        check_files(resolved)
        return
    raise typer.Exit(_run(text, experiment.name, experiment.absolute().parent, run, address))


def _run(text: str, source: str, folder: Path, run: Path | None, address: str | None) -> int:
    """The whole of a run; returns its exit code."""
    from orchestrator.experiment.experiment_file import parse_experiment

    resolved = parse_experiment(text, source, folder)
    run_folder = _folder(run, resolved.name)
    from rich.console import Console

    from trainables.runtime.connection import prepare_ray

    prepare_ray(address)
    from orchestrator.execution.experiment_run import run_experiment

    return run_experiment(resolved, run_folder, address, Console())


@app.command()
def status(run: RunFolder) -> None:
    """Show how every cell of a run stands."""
    from orchestrator.results.run import held, load_run

    opened = load_run(run)
    cells = opened.cells
    counts = ", ".join(f"{count} {state}" for state, count in cells["state"].value_counts().items())
    locks = {"running": opened.layout.lock, "explaining": opened.layout.xai_lock}
    at_work = " and ".join(work for work, lock in locks.items() if held(lock))
    _say(f"{opened.name}: {len(cells)} cells: {counts}; {at_work or 'nobody is at work'}")
    for row in cells.itertuples():
        best = "" if str(row.best_epoch) == "<NA>" else f", best {row.best_epoch}"
        cell = f"{row.candidate} fold {row.fold} seed {row.seed}"
        _say(f"{row.state:8} {cell}: epoch {row.epochs}{best} {row.reason}".rstrip())
    # And what is wrong with the folds, where something is.
    _say(f"images   {opened.folds['image'].nunique():,}")


@app.command()
def report(run: RunFolder) -> None:
    """Write tables, figures and report again from the ledger."""
    from orchestrator.report.write_up import write_reports
    from orchestrator.results.run import load_run

    layout = load_run(run).layout
    write_reports(layout, _say)
    _say(str(layout.report_html))


@app.command()
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
    """Score new images with the fold ensemble."""
    from orchestrator.results.predict import finished_cells, write_predictions
    from orchestrator.results.predict import predict as score
    from orchestrator.results.run import load_run

    opened = load_run(run)
    table = score(opened, images, candidate, lambda note: _say(f"note        {note}"))
    write_predictions(table, out)
    _say(
        f"wrote {len(table)} rows to {out}, {int((table['state'] == 'skipped').sum())} of them "
        "skipped"
    )
    cells = finished_cells(opened, candidate)
    for name, (done, of) in cells.items():
        if done < of:
            what = f"{done} models of {of}" if done else "left out, none of its cells is finished"
            _say(f"{name}: {what}; run the experiment again to finish it", err=True)
    if not all(done for done, _ in cells.values()):
        raise typer.Exit(1)


@app.command()
@wraps(xai_cli.explain)
def explain(**options: Any) -> None:
    try:
        xai_cli.explain(**options)
    except typer.Exit:  # something was explained, so the report has more to tell
        from orchestrator.report.write_up import write_reports
        from orchestrator.results.run import load_run

        write_reports(load_run(options["run"]).layout)
        raise


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def doctor(context: typer.Context) -> None:
    """Check a SLURM login or compute node for what stops Ray clusters (`rayfold doctor --help`)."""
    _cluster("doctor", *context.args)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def sbatch() -> None:
    """Submit a Ray cluster and what it is for to SLURM: options of sbatch, then run EXPERIMENT
    (`--help` says all).
    """
    _cluster("submit", "sbatch", *sys.argv[2:])  # with the `--` that Typer would swallow


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def slurm_script(context: typer.Context) -> None:
    """Write the script that `rayfold sbatch` submits, to be changed or submitted by hand."""
    _cluster("submit", "script", *context.args)


def _cluster(module: str, *arguments: str) -> NoReturn:
    """Run a module of `cluster`, which nobody imports, as a program."""
    import subprocess

    from trainables.neighbours import ROOT

    # A `cluster` of the user's, in the current folder or on PYTHONPATH, must not shadow ours.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", f"cluster.{module}", *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    raise typer.Exit(done.returncode)


def _say(line: str, err: bool = False) -> None:
    """One line for people, whatever names and reasons are in it."""
    typer.echo(printable(line), err=err)


def _folder(run: Path | None, name: str) -> Path:
    """Where a run goes; raises RunFolderError where a file is in the way, or no folder can have
    that name.
    """
    folder = run if run is not None else Path("runs") / name
    for path in (folder, *folder.parents):
        try:
            flaw = (
                ""
                if path.is_dir() or not path.lstat()
                else f"Not a directory, {str(path)!r} is a file"
            )
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            flaw = getattr(error, "strerror", None) or str(error)
        if flaw:
            raise RunFolderError(
                f"cannot write into the run folder {str(folder)!r}: {flaw}; choose another by --run"
            )
    return folder


# What the user can mend about a file system; any other OSError is a bug and keeps its traceback.
_DISK_ERRORS = (
    *(
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
    ),
    *(
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOTEMPTY,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENXIO,
    ),
)


def main() -> None:
    """Entry point: turns what the user can mend into one line and exit code 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (
        typer.exceptions.TyperException
    ) as error:  # an option that there is not, a value that it cannot have
        context: typer.Context | None = getattr(error, "ctx", None)
        command = context.command_path if context else "rayfold"
        # pydantic's, which Typer asks
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
