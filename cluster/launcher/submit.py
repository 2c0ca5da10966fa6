"""Submit a cluster from wherever rayfold is installed: `rayfold sbatch`, `rayfold slurm-script`,
`submit` in Python.

What they submit is `ray_slurm.sh` with the Python that submits written into it, so that a job finds
its rayfold whether or not SLURM carries an environment along.
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

from cluster.common import slurm
from cluster.common.allocation import StartError, field, line_field
from cluster.common.folder import JOBS, SITE, last_line, make_jobs, write_private
from cluster.launcher import launch, precheck

SCRIPT = Path(__file__).parents[1] / "ray_slurm.sh"
SUBCOMMANDS = ("run", "explain", "demo", "report", "predict", "plan")
_USAGE = "rayfold sbatch [slurm options]"
# sbatch's options that take no value of their own.
_SHORT_FLAGS = frozenset("hHIkKOQsuvVWZ")
_FLAGS = frozenset(
    {
        "--contiguous",
        "--exclusive",
        "--get-user-env",
        "--help",
        "--hold",
        "--ignore-pbs",
        "--no-kill",
        "--nice",
        "--no-requeue",
        "--overcommit",
        "--oversubscribe",
        "--parsable",
        "--propagate",
        "--quiet",
        "--reboot",
        "--requeue",
        "--spread-job",
        "--test-only",
        "--usage",
        "--use-min-nodes",
        "--verbose",
        "--version",
        "--wait",
    }
)
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
        raise StartError(
            f"{str(path)!r} exists already: choose another name, it is not overwritten"
        )
    write_private(path, script_text())
    path.chmod(0o700)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """SLURM's options, and what the launcher gets, which begins with an option of its own or a
    rayfold command.
    """
    own = {name for action in launch.parser()._actions for name in action.option_strings} - {
        "--help",
        "-h",
    }
    place = 0
    while place < len(arguments):
        word = arguments[place]
        if word == "--" or word.partition("=")[0] in own or not word.startswith("-"):
            break
        place += 2 if _takes_the_next(word) else 1
    return list(arguments[:place]), list(arguments[place:])


def _takes_the_next(option: str) -> bool:
    """Whether the word after one of sbatch's options is its value."""
    if option.startswith("--"):
        return "=" not in option and option not in _FLAGS
    return option[1:].lstrip("".join(_SHORT_FLAGS)) in {*option[-1:]} - _SHORT_FLAGS


def sbatch(arguments: Sequence[str], folder: Path | None = None) -> str:
    """Submit; returns the id of the job, or what sbatch says where it submits nothing, as with
    --test-only.

    folder: where `sbatch` is called, from which relative paths count; default: the current one.
    Raises StartError with what SLURM says against it, or why the experiment cannot run.
    """
    options, command = split(arguments)
    _, words, is_rayfold = launch.parse(command)
    if is_rayfold and words and words[0] not in SUBCOMMANDS:
        raise launch.UsageError(
            f"{words[0]!r} is no rayfold command to submit: {', '.join(SUBCOMMANDS)}"
        )
    if check := precheck.command(words, is_rayfold):
        code, reason = precheck.ask(check, folder)
        if code != 0:
            raise StartError(reason)
    jobs = (folder or Path.cwd()) / JOBS
    make_jobs(jobs)
    script = jobs / "ray_slurm.sh"
    write_private(script, script_text())
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", *options, str(script), *command],
            cwd=folder, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise StartError(f"{error.strerror}: 'sbatch': it is on SLURM's login nodes") from error
    said = done.stdout.strip()
    # With --wait, whatever became of it.
    if found := re.search(r"^(\d+)(;\S+)?$", said, re.MULTILINE):
        return found[1]
    if done.returncode != 0:
        raise StartError(f"sbatch refused the job: {' '.join((done.stderr or said).split())[:500]}")
    return said or done.stderr.strip()


def clean(jobs: Path) -> list[Path]:
    """Remove the folders of jobs that have ended; returns them.

    jobs: the folder of jobs. Only those of this SLURM cluster, as each folder says itself. Raises
    StartError where there is no such folder, or SLURM does not say how a job stands.
    """
    if not jobs.is_dir():
        raise StartError(
            f"{str(jobs)!r} is no folder: name the one in which the folders of jobs lie"
        )
    cluster = field(slurm.answer("scontrol", "show", "config"), "ClusterName") or ""
    removed = []
    for folder in sorted(jobs.iterdir()):
        named = re.fullmatch(r"\d+(_\d+)?", folder.name) and not folder.is_symlink()
        if not named or not (folder / SITE).is_file() or folder.stat().st_uid != os.getuid():
            continue
        ours = (folder / SITE).read_text("utf-8", errors="replace") == cluster
        if ours and slurm.state(folder.name) in (slurm.GONE, *_OVER):
            shutil.rmtree(folder)
            removed.append(folder)
    return removed


@dataclass(frozen=True)
class SlurmJob:
    """A submitted job.

    Attributes:
        job_id: SLURM's number.
        run: The folder of its results, where `submit` was told one.
    """

    job_id: str
    run: Path | None

    @property
    def state(self) -> str:
        """SLURM's word: PENDING, RUNNING, COMPLETED, …; empty where it cannot be asked or does not
        know the job.
        """
        state = slurm.state(self.job_id)
        return slurm.accounted(self.job_id) if state == slurm.GONE else state or ""

    @property
    def log(self) -> str:
        """What the job has written so far."""
        try:
            return Path(self._output()).read_text("utf-8", errors="replace")
        except OSError:
            return ""

    def _output(self) -> str:
        return line_field(slurm.job(self.job_id), "StdOut") or ""

    def result(self, poll_seconds: float = 5) -> Path | None:
        """Wait for the end.

        Args:
            poll_seconds: Seconds between two questions to SLURM.

        Returns:
            The run folder, for `rayfold.load_run`.

        Raises:
            JobFailed: The job ended, and not well; with its state and the last line it wrote.
        """
        said, state = "", slurm.state(self.job_id)
        while state not in (slurm.GONE, *_OVER):  # None: SLURM is silent for the moment
            time.sleep(poll_seconds)
            said, state = last_line(Path(self._output())) or said, slurm.state(self.job_id)
        said = last_line(Path(self._output())) or said
        state = slurm.accounted(self.job_id) if state == slurm.GONE else state
        if state != "COMPLETED" and not said.endswith("(exit 0)"):
            raise JobFailed(
                f"job {self.job_id} ended as "
                f"{state or 'unknown to SLURM'}{f': {said}' if said else ''}"
            )
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
    """Submit `rayfold run EXPERIMENT` to SLURM, on a Ray cluster of its own.

    Args:
        experiment: The experiment file.
        run: The run folder, on a file system that the nodes share; default: `runs/<name>` below
            the current folder.
        nodes: How many nodes the cluster has.
        gpus_per_node: GPUs that are asked for on each; 0: none, or what `slurm_options` ask for.
        slurm_options: Further options of sbatch, such as `--time=8:00:00`.

    Returns:
        The submitted job, which can be asked for its state and its result.

    Raises:
        StartError: SLURM refuses the job, or the experiment could not run; one line says why.
    """
    if isinstance(slurm_options, str):
        raise StartError(f"slurm_options must be a list of options, got {slurm_options!r}")
    options = [
        f"--nodes={nodes}",
        *([f"--gpus-per-node={gpus_per_node}"] if gpus_per_node else []),
        *slurm_options,
    ]
    target = ["--run", str(Path(run).absolute())] if run is not None else []
    job = sbatch([*options, "run", str(Path(experiment).absolute()), *target])
    return SlurmJob(job, Path(run).absolute() if run is not None else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """`sbatch …` or `script [FILE]`; returns the exit code."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["sbatch"]
    try:
        return _script(rest) if verb == "script" else _sbatch(rest)
    except (StartError, launch.UsageError) as error:
        sys.stderr.write(f"rayfold: {error}\n")
    except OSError as error:
        sys.stderr.write(f"rayfold: {error.strerror}: {error.filename!r}\n")
    return 2


def _script(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rayfold slurm-script", description="Write the script for sbatch."
    )
    parser.add_argument("file", type=Path, nargs="?", default=Path("ray_slurm.sh"))
    path = parser.parse_args(arguments).file
    write_script(path)
    sys.stdout.write(f"wrote {path}; sbatch [SLURM options] {path} run experiment.yaml\n")
    return 0


def _sbatch(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--clean"]:
        parser = argparse.ArgumentParser(
            prog="rayfold sbatch --clean", description="Remove folders of ended jobs."
        )
        parser.add_argument("folder", type=Path, nargs="?", default=Path(JOBS))
        removed = clean(parser.parse_args(arguments[1:]).folder)
        sys.stdout.write(
            "".join(f"removed {folder}\n" for folder in removed) or "no folder of an ended job\n"
        )
    elif not arguments or arguments[0] in ("-h", "--help"):
        text = (
            launch.parser()
            .format_help()
            .replace("sbatch [slurm options] cluster/ray_slurm.sh", _USAGE)
        )
        sys.stdout.write(
            f"{text}\n{_USAGE.partition(' [')[0]} --clean [FOLDER] removes the folders of ended "
            "jobs.\n"
        )
    elif launch.parse(split(arguments)[1])[0].dry_run:
        return launch.main(split(arguments)[1])
    else:
        said = sbatch(arguments)
        sys.stdout.write(f"Submitted batch job {said}\n" if said.isdigit() else f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
