"""`rayfold plan`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import ExperimentFile, RunOption, run_folder, say
from orchestrator.experiment.experiment_file import read_experiment
from trainables.core.errors import RunFolderError
from trainables.core.layout import RunLayout

Sheet = Annotated[
    bool,
    typer.Option(
        "--show-augmentation",
        help="Draw what augmentation makes of some training images: <name>_augmentation.png in the "
        "current folder.",
    ),
]


def plan(
    experiment: ExperimentFile, run: RunOption = None, show_augmentation: Sheet = False
) -> None:
    resolved = read_experiment(experiment)
    # Slow to import, and of no use to whoever gets a mistake answered.
    from orchestrator.execution.cells import prepare
    from orchestrator.execution.plan import plan_lines

    prepared = prepare(resolved, RunLayout(run_folder(run, resolved.name)))
    for line in plan_lines(prepared):
        say(line)
    if not show_augmentation:
        return
    from orchestrator.report.augmentation_sheet import write_augmentation_sheet
    from trainables.runtime.startup import prepare_on_screen

    prepare_on_screen()
    sheet = Path(f"{resolved.name}_augmentation.png")
    try:
        drawn, recipes = write_augmentation_sheet(
            sheet, resolved.candidates, prepared.manifest, prepared.folds
        )
    except OSError as error:
        raise RunFolderError(
            f"cannot write {str(sheet)!r}: {error.strerror or error}; start in another folder"
        ) from error
    if not recipes:
        say("no candidate augments its training images: there is nothing to draw")
        return
    others = f", the first {drawn} of {recipes} recipes" if drawn < recipes else ""
    say(f"augmentation drawn in {sheet}{others}")
