"""What one machine offers to a Ray node: CPUs, memory, shared memory, GPUs, limits, names.

A check is a small function from measured values to a `Finding` and changes nothing;
`cluster.doctor` measures.
"""

import ipaddress
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cluster.common.allocation import SHM_SHARE, STORE_MINIMUM

ASK_TENSORFLOW = (
    "import tensorflow as tf; print('GPUs', len(tf.config.list_physical_devices('GPU')), "
    "tf.__version__)"
)
TENSORFLOW_FOR_GPUS = "pip install 'tensorflow[and-cuda]'"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's answer; what is not ok comes with its remedy."""

    level: Literal["ok", "warn", "fail"]
    what: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if (self.level == "ok") == bool(self.remedy):
            raise ValueError(
                f"a finding has a remedy exactly when it is not ok, got {self.level!r} "
                f"{self.remedy!r}"
            )

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what}" + (f"\n      {self.remedy}" if self.remedy else "")


def gib(size: float) -> str:
    """A size in bytes for people."""
    return f"{size / 2**30:.1f} GiB"


# --- CPUs and memory ------------------------------------------------------------------------------


def cpu_quota(membership: str, root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs' worth of time that the cgroup and its parents allow (v1 and v2); infinity without a
    limit.

    `membership` is the text of /proc/self/cgroup.
    """
    quotas = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in {root / controllers, root / ("cpu" if controllers else "")}:
            group = PurePosixPath(base, path.lstrip("/"))
            for folder in (group, *group.parents):
                if folder.is_relative_to(base):
                    quotas.append(_quota(Path(folder)))
    return min(quotas, default=math.inf)


def _quota(folder: Path) -> float:
    with suppress(OSError, ValueError):  # no such group in this namespace, or "max"
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = (
            (folder / f"cpu.cfs_{name}_us").read_text("ascii") for name in ("quota", "period")
        )
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    return math.inf


def check_cpus(promised: int | None, affinity: int, quota: float, machine: int) -> Finding:
    """The CPUs that SLURM promised (None: outside of a job) can be used by this process."""
    usable = min(affinity, quota)
    limit = "no cgroup quota" if math.isinf(quota) else f"cgroup quota {quota:g}"
    held = (
        f"this process may use {usable:g} (affinity {affinity}, {limit}), the machine has {machine}"
    )
    if promised is None:
        return Finding("ok", f"CPUs: {held}; no SLURM job to compare with")
    what = f"CPUs: SLURM promises {promised}, {held}"
    if usable < promised:
        remedy = (
            "inside srun give --cpus-per-task (SLURM does not pass it on since 22.05), else ask "
            "the site's admins"
        )
        return Finding("warn", what, remedy)
    return Finding(
        "ok", what + ("; nothing confines the job to its share" if usable > promised else "")
    )


def check_memory(in_job: bool, requested: int | None, limit: int | None, machine: int) -> Finding:
    """The memory in bytes that SLURM promised is really there.

    requested: 0 for all of the node, None where SLURM does not say; limit: of the cgroup, None for
    none.
    """
    held = (
        f"{f'cgroup limit {gib(limit)}' if limit else 'no cgroup limit'}, the machine has "
        f"{gib(machine)}"
    )
    if not in_job:
        return Finding("ok", f"memory: {held}; no SLURM job to compare with")
    if requested is None and limit is None:
        what = f"memory: SLURM names no share for this job; {held}"
        return Finding(
            "warn",
            what,
            "give sbatch --mem=SIZE (per node); else Ray is told a share like that of the CPUs",
        )
    promised = requested or limit or machine
    there = min(limit or machine, machine)
    what = f"memory: SLURM promises {gib(promised)}, {held}"
    if there < promised - 2**26:  # sizes are rounded, and the kernel keeps a little
        return Finding(
            "warn",
            what,
            "ask for no more than a node has with sbatch --mem, or ask the site's admins",
        )
    return Finding(
        "ok", what + ("; nothing confines the job to its share" if there > promised * 1.1 else "")
    )


def check_shared_memory(free: int, wanted: int) -> Finding:
    """/dev/shm has room (bytes) for the object store that the job's memory allows."""
    what = f"/dev/shm: {gib(free)} free, the job's memory allows an object store of {gib(wanted)}"
    remedy = (
        "delete your left-overs in /dev/shm, or ask the site's admins to enlarge it (containers: "
        "--shm-size)"
    )
    if free < STORE_MINIMUM:
        return Finding("fail", f"{what}, and Ray needs {STORE_MINIMUM >> 20} MiB", remedy)
    if free * SHM_SHARE < wanted:
        return Finding("warn", f"{what}: it will be smaller", remedy)
    return Finding("ok", what)


# --- GPUs -----------------------------------------------------------------------------------------


def visible_gpus(environment: Mapping[str, str]) -> int | None:
    """GPUs that CUDA_VISIBLE_DEVICES names; None where it is not set. CUDA stops reading at the
    first invalid one.
    """
    if (text := environment.get("CUDA_VISIBLE_DEVICES")) is None:
        return None
    count = 0
    for name in text.split(","):
        if not name.strip() or name.strip().startswith("-") or name.strip() == "NoDevFiles":
            break
        count += 1
    return count


def promised_gpus(environment: Mapping[str, str]) -> int | None:
    """GPUs of this node that SLURM gave to the job; None where this is no node of a job."""
    if "SLURMD_NODENAME" not in environment:
        return None
    text = environment.get("SLURM_GPUS_ON_NODE", "")
    return int(text) if text.isdigit() else 0


def tensorflow_gpus(
    seconds: float = 120, command: Sequence[str] = (sys.executable, "-P", "-c", ASK_TENSORFLOW)
) -> int | str:
    """GPUs that TensorFlow sees in a process of its own, which is ended after `seconds`; else why
    it cannot say.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [*command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as asked:
        try:
            output, errors = asked.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(asked.pid, signal.SIGKILL)
            return f"no answer within {seconds:g} s"
    if found := re.search(r"^GPUs (\d+) ", output, re.MULTILINE):
        return int(found[1])
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {asked.returncode}"


def check_gpus(
    promised: int | None, visible: int | None, devices: int, seen: int | str | None
) -> Finding:
    """SLURM, CUDA_VISIBLE_DEVICES, the machine and TensorFlow agree about GPUs.

    promised: by SLURM, None outside of a job. visible: None where CUDA_VISIBLE_DEVICES is not set.
    devices: of the machine. seen: by TensorFlow, or why it cannot say; None where it was not asked,
    since there should be none.
    """
    what = f"GPUs: {'no SLURM job' if promised is None else f'SLURM promises {promised}'}"
    what += (
        f", CUDA_VISIBLE_DEVICES {'is not set' if visible is None else f'names {visible}'}, the "
        f"machine has {devices}"
    )
    if seen is None:
        if promised == 0 and devices:
            return Finding(
                "warn", what, "this job trains on CPUs; ask for GPUs with sbatch --gpus-per-node=N"
            )
        return Finding("ok", f"{what}; TensorFlow not asked, since there is none to see")
    if isinstance(seen, str):
        remedy = f"start it by hand: python -c 'import tensorflow'; for GPUs: {TENSORFLOW_FOR_GPUS}"
        return Finding("fail", f"{what}, TensorFlow cannot say: {seen}", remedy)
    what = f"{what}, TensorFlow sees {seen}"
    if promised is not None and visible is not None and visible < promised:
        return Finding(
            "warn",
            what,
            "inside srun give --gpus-per-task or --gres as sbatch was given; leave the variable "
            "alone",
        )
    if seen < expected_gpus(promised, visible, devices):
        remedy = (
            f"{TENSORFLOW_FOR_GPUS} into this Python, load the site's driver module, compare with "
            "nvidia-smi -L"
        )
        return Finding("fail", what, remedy)
    return Finding("ok", what)


def expected_gpus(promised: int | None, visible: int | None, devices: int) -> int:
    """GPUs that TensorFlow ought to see: what SLURM or CUDA_VISIBLE_DEVICES names, else what the
    machine has.
    """
    named = [count for count in (promised, visible) if count is not None]
    return min(named) if named else devices


# --- limits and names -----------------------------------------------------------------------------


def check_open_files(hard: float) -> Finding:
    """The hard limit of open files (infinity: none), up to which the launcher raises the soft
    one.
    """
    what = f"open files: at most {hard:g} (ulimit -Hn)"
    if hard >= 16384:
        return Finding("ok", what)
    remedy = (
        "ask the site's admins for 65535, for example in slurmd's LimitNOFILE or in limits.conf"
    )
    return Finding("fail" if hard < 4096 else "warn", what, remedy)


def check_processes(soft: float, hard: float) -> Finding:
    """The limits of processes and threads of this user on this node (infinity: none); Ray starts
    hundreds.
    """
    what = f"processes and threads: at most {soft:g}, can be raised to {hard:g} (ulimit -u)"
    if soft >= 4096:
        return Finding("ok", what)
    remedy = (
        "put 'ulimit -u 4096' into the site file"
        if hard >= 4096
        else "ask the site's admins for 4096 or more"
    )
    return Finding("fail" if soft < 1024 else "warn", what, remedy)


def check_host_name(name: str, addresses: list[str]) -> Finding:
    """The node's own name leads to an address that other nodes can use; the launcher itself does
    not rely on it.
    """
    found = sorted({*addresses})
    what = f"host name {name!r} is {', '.join(found) or 'unknown to the resolver'}"
    remedy = (
        "rayfold asks SLURM for the address, but other tools may not: pass --interface NAME if "
        "nodes do not join"
    )
    if not found:
        return Finding("warn", what, remedy)
    parsed = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    if all(address.is_loopback for address in parsed):
        return Finding("warn", f"{what}: only this node itself", remedy)
    if not any(address.version == 4 and not address.is_loopback for address in parsed):
        return Finding("warn", f"{what}: no IPv4 address that others can use", remedy)
    return Finding("ok", what)
