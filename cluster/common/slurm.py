"""What SLURM's commands say; every answer may be missing, for the controller may be busy or
away.
"""

import os
import subprocess
import time
from collections.abc import Sequence

from cluster.common.allocation import StartError, field

GONE = "GONE"  # not one of SLURM's words


def ask(*command: str, seconds: float = 15) -> tuple[int, str]:
    """Run one of SLURM's commands; its exit code and output, 127 where there is none."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},  # times as seconds since 1970
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.strip()


def _show(what: Sequence[str], key: str) -> str | None:
    code, text = ask("scontrol", "show", *what)
    return field(text, key) if code == 0 else None


def node_addr(host: str) -> str | None:
    """The name or address by which SLURM reaches a node."""
    return _show(["node", host], "NodeAddr")


def kill_wait() -> float:
    """Seconds between SIGTERM and SIGKILL; SLURM's default where it does not say."""
    found = _show(["config"], "KillWait")
    return float(found) if found and found.isdigit() else 30.0


def job(job_id: str) -> str:
    """What SLURM knows of a job; empty where it cannot be asked."""
    code, text = ask("scontrol", "show", "job", job_id)
    return text if code == 0 else ""


def answer(*command: str) -> str:
    """What a command prints; raises StartError where it fails."""
    code, text = ask(*command)
    if code != 0:
        raise StartError(f"SLURM does not answer ({text[:200]}): nothing was done, try again later")
    return text


def state(job_id: str) -> str | None:
    """The state of a job, GONE for one that SLURM has forgotten, None where it cannot be asked."""
    code, text = ask("scontrol", "show", "job", job_id)
    if code == 0:
        return field(text, "JobState")
    return GONE if "Invalid job id" in text else None


def accounted(job_id: str) -> str:
    """The last state of a job as the accounting has it; empty where there is none."""
    code, text = ask(
        "sacct", "--jobs", job_id, "--allocations", "--noheader", "--parsable2", "--format=State"
    )
    return text.split()[-1] if code == 0 and text else ""


def details(job_id: str) -> str:
    """The same with what the job has on each node."""
    code, text = ask("scontrol", "show", "job", "--details", job_id)
    return text if code == 0 else ""


def insist(*command: str, until: float) -> tuple[int, str]:
    """Ask again and again, until a time since 1970, where the controller is silent; the last
    answer, as of `ask`.
    """
    while True:
        code, said = ask(*command)
        if code == 0 or time.time() > until:
            return code, said
        time.sleep(1)
