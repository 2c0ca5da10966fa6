"""The batch process of a Ray cluster on SLURM: `python -m cluster.launcher.launch`, which
ray_slurm.sh becomes.

Exit codes: 0 the driver finished with 0, else the driver's own code; 2 bad usage, 70 START_FAILED,
71 JOIN_TIMEOUT, 72 DEADLINE (stopped before the end, not requeued), 73 HEAD_LOST (also for 75 of
rayfold itself), 143 ended by SIGTERM. The last line of the output always says which and why.
"""

import argparse
import math
import os
import pwd
import signal
import sys
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.common.allocation import StartError, read_allocation
from cluster.common.endings import START_FAILED
from cluster.common.events import Signalled
from cluster.common.folder import JOBS, Journal
from cluster.launcher import dryrun
from cluster.launcher.job import Job
from cluster.launcher.options import LaunchOptions

USAGE_ERROR = 2

USAGE = """\
sbatch [slurm options] cluster/ray_slurm.sh [options] WORK, where WORK is one of
       SUBCOMMAND [ARGUMENTS…]   a rayfold subcommand: run, explain, demo
       -- COMMAND [ARGUMENTS…]   any driver, RAY_ADDRESS is set
       --serve                   wait for `ray job submit`
       --join CLUSTER.JSON       add nodes to a running cluster
"""


class UsageError(Exception):
    """The command line breaks a rule; one line."""


class Parser(argparse.ArgumentParser):
    """Raises instead of ending the process, for the last line is ours."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def parser() -> Parser:
    """The options before the command."""
    made = Parser(
        prog="ray_slurm.sh",
        usage=USAGE,
        description="A Ray cluster across the nodes of a SLURM job.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--dry-run", action="store_true", help="print exactly what would be run, run nothing"
    )
    made.add_argument(
        "--serve", action="store_true", help="keep the cluster up for `ray job submit`"
    )
    made.add_argument(
        "--join",
        metavar="CLUSTER.JSON",
        type=Path,
        help="add this job's nodes to a running cluster",
    )
    made.add_argument(
        "--interface",
        metavar="NAME",
        default=os.environ.get("RAYFOLD_INTERFACE") or None,
        help=(
            "network between the nodes, ib0 for instance; default: RAYFOLD_INTERFACE, else SLURM's "
            "node address"
        ),
    )
    made.add_argument(
        "--jobs-folder",
        metavar="DIR",
        type=Path,
        help="on a file system that the nodes share; default: slurm-jobs where sbatch was called",
    )
    made.add_argument(
        "--join-timeout", metavar="SECONDS", type=float, default=180, help="default: 180"
    )
    made.add_argument(
        "--min-nodes",
        metavar="N",
        type=int,
        help="go on with so many nodes where the others do not join; default: all of the job's",
    )
    made.add_argument("--max-requeues", metavar="N", type=int, default=10, help="default: 10")
    return made


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str], bool]:
    """LaunchOptions, driver's command, and whether the command is a rayfold subcommand."""
    made = parser()
    with_value = {
        name for action in made._actions if action.nargs != 0 for name in action.option_strings
    }
    place = 0
    while place < len(arguments) and arguments[place].startswith("-") and arguments[place] != "--":
        place += 2 if arguments[place] in with_value else 1
    options = made.parse_args(list(arguments[:place]))
    rest = list(arguments[place:])
    any_driver = rest[:1] == ["--"]
    command = rest[1:] if any_driver else rest
    if bool(command) + options.serve + bool(options.join) != 1:
        raise UsageError(
            "give one of: a rayfold subcommand, -- COMMAND, --serve, --join CLUSTER.JSON (see "
            "--help)"
        )
    if not 0 < options.join_timeout < math.inf or options.max_requeues < 0:
        raise UsageError(
            "--join-timeout must be above 0, in seconds, and --max-requeues at least 0"
        )
    if options.min_nodes is not None and options.min_nodes < 1:
        raise UsageError(f"--min-nodes must be at least 1, got {options.min_nodes}")
    return options, command, not any_driver


def complete(environ: MutableMapping[str, str]) -> None:
    """Give PATH and HOME where the job has none (`sbatch --export=NONE` on some sites): srun and
    Ray need them.
    """
    if not environ.get("PATH"):
        environ["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    if not environ.get("HOME"):
        with suppress(KeyError):
            environ["HOME"] = pwd.getpwuid(os.getuid()).pw_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster and its driver; returns the exit code, after the last line."""
    complete(os.environ)
    started = time.time()
    with suppress(KeyError, ValueError):
        started = float(os.environ["RAYFOLD_STARTED"])
    journal = Journal(started)
    try:
        parsed, command, is_rayfold = parse(sys.argv[1:] if arguments is None else arguments)
        submitted_from = Path(os.environ.get("SLURM_SUBMIT_DIR") or Path.cwd())
        options = LaunchOptions(
            command=tuple(command),
            is_rayfold=is_rayfold,
            serve=parsed.serve,
            join=parsed.join and parsed.join.absolute(),
            interface=parsed.interface,
            jobs_folder=(parsed.jobs_folder or submitted_from / JOBS).absolute(),
            join_timeout=parsed.join_timeout,
            min_nodes=parsed.min_nodes,
            max_requeues=parsed.max_requeues,
        )
        if parsed.dry_run:
            journal.plain(dryrun.text(options, os.environ))
            code, what = dryrun.check(options, os.environ)
            if code == 0:
                if what:
                    journal.plain(f"\n# {what}")
                return 0
            journal.plain(f"rayfold cluster: {what} (exit {code})")
            return code
        allocation = read_allocation(os.environ)
        if not os.environ.get("SLURM_CPUS_ON_NODE"):
            raise StartError(
                "this is no batch job, as inside of salloc: submit it with sbatch (docs/slurm.md)"
            )
        if (options.min_nodes or 1) > len(allocation.hosts):
            raise UsageError(
                f"--min-nodes {options.min_nodes} is more than the job's {len(allocation.hosts)} "
                "nodes"
            )
        job = Job(options, allocation, journal)
        if early := os.environ.pop("RAYFOLD_SIGNALLED", ""):
            job.cluster.events.put(Signalled(early))
        ending = job.run()
        code, what = ending.code, ending.what
    except UsageError as error:
        code, what = USAGE_ERROR, str(error)
    except (StartError, OSError) as error:
        code, what = START_FAILED, str(error)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # SLURM may repeat itself, and the end is told
    journal.plain(f"rayfold cluster: {what} (exit {code})")
    return code


if __name__ == "__main__":
    sys.exit(main())
