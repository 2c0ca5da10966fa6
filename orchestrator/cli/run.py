"""`rayfold run`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli.common import Address, ExperimentFile, RunOption, run_folder
from orchestrator.experiment.experiment_file import Experiment, read_experiment
from trainables.core.layout import RunLayout
from trainables.runtime.connection import prepare_ray

CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Only see whether the experiment and the files that it names are right, quickly.",
    ),
]


def run(
    experiment: ExperimentFile,
    run: RunOption = None,
    address: Address = None,
    check: CheckOption = False,
) -> None:
    resolved = read_experiment(experiment)
    if check:
        layout = RunLayout(run_folder(run, resolved.name))
        from orchestrator.execution.cells import check_files  # slow to import

        check_files(resolved, layout)
        return
    raise typer.Exit(train(resolved, run, address))


def train(experiment: Experiment, run: Path | None, address: str | None) -> int:
    """Train what the run folder lacks; the exit code of `rayfold run`."""
    folder = run_folder(run, experiment.name)
    prepare_ray(address)
    from orchestrator.execution.experiment_run import run_experiment  # loads Ray as prepared

    return run_experiment(experiment, folder, address, Console())
