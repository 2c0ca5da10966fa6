"""Submit a cluster from wherever rayfold is installed: `rayfold sbatch`, `rayfold slurm-script`, `submit` in Python.

What they submit is `ray_slurm.sh` with the Python that submits written into it, so that a job finds its rayfold whether
or not SLURM carries an environment along.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster import launch, slurm
from cluster.allocation import StartError, field
from cluster.folder import last_line, write_private

SCRIPT = Path(__file__).with_name("ray_slurm.sh")
SUBCOMMANDS = ("run", "explain", "demo", "report", "predict", "plan")
_PYTHON = re.compile(r"^RAYFOLD_PYTHON=.*$", re.MULTILINE)
_OVER = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
)


class JobFailed(Exception):
    """A job that ended without its result; its state, and the last line of its output."""


def script_text(python: str = sys.executable) -> str:
    """`ray_slurm.sh` for the rayfold of one Python."""
    line = f"RAYFOLD_PYTHON=${{RAYFOLD_PYTHON:-{shlex.quote(python)}}}"
    return _PYTHON.sub(lambda _: line, SCRIPT.read_text("utf-8"), count=1)


def write_script(path: Path) -> None:
    """Write the script; raises StartError where something is there already."""
    if path.exists():
        raise StartError(f"{str(path)!r} exists already: choose another name, it is not overwritten")
    write_private(path, script_text())
    path.chmod(0o700)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """SLURM's options, and what the launcher gets, which begins with an option of its own or a rayfold command."""
    own = {name for action in launch.parser()._actions for name in action.option_strings} | {"--"} | set(SUBCOMMANDS)
    own -= {"--help", "-h"}
    place = next((i for i, word in enumerate(arguments) if word.partition("=")[0] in own), len(arguments))
    return list(arguments[:place]), list(arguments[place:])


def sbatch(arguments: Sequence[str], folder: Path | None = None) -> str:
    """Submit; returns the id of the job. Raises StartError with what SLURM says against it.

    folder: where `sbatch` is called, from which relative paths count; default: the current one.
    """
    options, command = split(arguments)
    launch.parse(command)
    jobs = (folder or Path.cwd()) / "slurm-jobs"
    jobs.mkdir(mode=0o700, exist_ok=True)
    script = jobs / "ray_slurm.sh"
    write_private(script, script_text())
    done = subprocess.run(
        ["sbatch", "--parsable", *options, str(script), *command],
        cwd=folder, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise StartError(f"sbatch refused the job: {' '.join((done.stderr or done.stdout).split())[:500]}")
    return done.stdout.strip().partition(";")[0]


def clean(jobs: Path) -> list[Path]:
    """Remove the folders of jobs that SLURM no longer has in its queue; returns them.

    jobs: the folder of jobs. Raises StartError where SLURM does not answer, for then nobody knows which those are.
    """
    code, said = slurm.ask("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%A %F_%a %T")
    if code != 0:
        raise StartError(f"SLURM does not say which jobs run ({said}): nothing was removed, try again later")
    alive: set[str] = set()
    for line in said.splitlines():
        *names, state = line.split()
        if state not in _OVER:
            alive.update(names)
    removed = []
    for folder in sorted(jobs.iterdir() if jobs.is_dir() else []):
        is_job = re.fullmatch(r"\d+(_\d+)?", folder.name) and not folder.is_symlink() and (folder / "token").is_file()
        if is_job and folder.stat().st_uid == os.getuid() and folder.name not in alive:
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


@dataclass(frozen=True)
class SlurmJob:
    """A submitted job. `run`: the folder of its results, as far as that is known."""

    job_id: str
    run: Path | None

    @property
    def state(self) -> str:
        """SLURM's word: PENDING, RUNNING, COMPLETED, …; empty where it does not know the job any more."""
        return field(slurm.job(self.job_id), "JobState") or ""

    @property
    def log(self) -> str:
        """What the job has written so far."""
        path = field(slurm.job(self.job_id), "StdOut")
        try:
            return Path(path or "").read_text("utf-8", errors="replace")
        except OSError:
            return ""

    def result(self, poll_seconds: float = 5) -> Path | None:
        """Wait for the end; the run folder, for `orchestrator.load_run`. Raises JobFailed for any end but success."""
        while (state := self.state) not in ("", *_OVER):
            time.sleep(poll_seconds)
        if state != "COMPLETED":
            said = last_line(Path(field(slurm.job(self.job_id), "StdOut") or ""))
            raise JobFailed(f"job {self.job_id} ended as {state or 'unknown to SLURM'}: {said}")
        return self.run

    def cancel(self) -> None:
        """End it in order; what is finished is kept."""
        slurm.ask("scancel", self.job_id)


def submit(
    experiment: Path | str,
    *,
    run: Path | str | None = None,
    nodes: int = 1,
    gpus_per_node: int = 0,
    slurm_options: Sequence[str] = (),
) -> SlurmJob:
    """Submit `rayfold run EXPERIMENT` on a cluster of its own; raises StartError.

    slurm_options: further options of sbatch, such as `--time=8:00:00`. Without `run` the results go where `rayfold run`
    puts them, below the current folder.
    """
    options = [f"--nodes={nodes}", *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []), *slurm_options]
    target = ["--run", str(Path(run).absolute())] if run is not None else []
    job = sbatch([*options, "run", str(Path(experiment).absolute()), *target])
    return SlurmJob(job, Path(run).absolute() if run is not None else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """`sbatch …` or `script [FILE]`; returns the exit code."""
    verb, *rest = sys.argv[1:] if arguments is None else arguments
    try:
        if verb == "script":
            parser = argparse.ArgumentParser(prog="rayfold slurm-script", description="Write the script for sbatch.")
            parser.add_argument("file", type=Path, nargs="?", default=Path("ray_slurm.sh"))
            path = parser.parse_args(rest).file
            write_script(path)
            sys.stdout.write(f"wrote {path}; sbatch [SLURM options] {path} run experiment.yaml\n")
        elif rest[:1] == ["--clean"]:
            parser = argparse.ArgumentParser(prog="rayfold sbatch --clean", description="Remove folders of ended jobs.")
            parser.add_argument("folder", type=Path, nargs="?", default=Path("slurm-jobs"))
            removed = clean(parser.parse_args(rest[1:]).folder)
            sys.stdout.write("".join(f"removed {folder}\n" for folder in removed) or "no folder of an ended job\n")
        elif not rest or rest[0] in ("-h", "--help"):
            sys.stdout.write(
                f"rayfold sbatch --clean [FOLDER]: remove the folders of ended jobs; else as\n{launch.USAGE}"
            )
        else:
            sys.stdout.write(f"Submitted batch job {sbatch(rest)}\n")
    except (StartError, launch.UsageError) as error:
        sys.stderr.write(f"rayfold: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"rayfold: {error.strerror}: {error.filename!r}; sbatch is on SLURM's login nodes\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
