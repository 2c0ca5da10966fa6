"""`rayfold doctor`, `rayfold sbatch` and `rayfold slurm-script`: programs of `cluster`."""

import os
import subprocess
import sys
from typing import NoReturn

import typer

from trainables.neighbours import ROOT


def doctor(context: typer.Context) -> None:
    _run("doctor", *context.args)


def sbatch() -> None:
    _run("launcher.submit", "sbatch", *sys.argv[2:])  # with the `--` that Typer would swallow


def slurm_script(context: typer.Context) -> None:
    _run("launcher.submit", "script", *context.args)


def _run(module: str, *arguments: str) -> NoReturn:
    """Run a module of `cluster`, which nobody imports, as a program."""
    # A `cluster` of the user's, in the current folder or on PYTHONPATH, must not shadow ours.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", f"cluster.{module}", *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    raise typer.Exit(done.returncode)
