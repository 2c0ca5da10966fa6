"""What SLURM gave this job: pure functions from SLURM's variables and `scontrol`'s text to hosts
and resources.

Knows nothing of Ray, ports or processes. Never asks the machine how large it is where SLURM says
what the job may use.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024**2
STORE_SHARE = 0.3  # of the job's memory, as Ray takes of a machine's
STORE_MINIMUM = 80 * MIB  # Ray refuses less than 75 MiB
SHM_SHARE = 0.8  # of what is free in /dev/shm: others may share it
NO_LIMIT = 2**60  # cgroup v1 says "no limit" with a number near 2**63


class StartError(Exception):
    """The cluster cannot start as asked; one line with the rule, the value and the remedy."""


@dataclass(frozen=True)
class Allocation:
    """The job and its nodes; the first host runs the batch script and the head."""

    job_id: str
    restart: int
    hosts: tuple[str, ...]
    array_task: tuple[str, str] | None = None  # the array's id and the task's number

    @property
    def label(self) -> str:
        """What people call the job: `4711`, or `4711_3` for a task of an array."""
        return "_".join(self.array_task) if self.array_task else self.job_id

    def filled_in(self, word: str) -> str:
        """A word of a rayfold command with `%a` as the number of the array's task, where there is
        an array.
        """
        return word.replace("%a", self.array_task[1]) if self.array_task else word

    def node_name(self, host: str) -> str:
        """The name of a Ray node: two jobs may have nodes of one cluster on the same host."""
        return f"{host}:{self.job_id}"


@dataclass(frozen=True)
class NodeResources:
    """What the job may use on one node; memory and object store in bytes."""

    cpus: int
    gpus: int
    memory: int
    object_store: int


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """The allocation that the environment of a batch script or a step describes."""
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST"):
        if not environ.get(name):
            raise StartError(
                f"{name} is not set: start through sbatch, or look at it first with --dry-run"
            )
    restart = int(environ.get("SLURM_RESTART_COUNT") or 0)
    array, task = environ.get("SLURM_ARRAY_JOB_ID", ""), environ.get("SLURM_ARRAY_TASK_ID", "")
    hosts = tuple(hostnames(environ["SLURM_JOB_NODELIST"]))
    return Allocation(
        environ["SLURM_JOB_ID"], restart, hosts, (array, task) if array and task else None
    )


def hostnames(nodelist: str) -> list[str]:
    """Expand SLURM's host list: `n[1-3,7],gpu-[08-10]x` and several brackets in one name."""
    return [
        name
        for part in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", nodelist)
        for name in _expand(part.strip())
    ]


def _expand(part: str) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    choices, _, after = rest.partition("]")
    tails = _expand(after)
    return [before + number + tail for number in _numbers(choices) for tail in tails]


def _numbers(choices: str) -> Iterator[str]:
    for choice in choices.split(","):
        first, dash, last = choice.partition("-")
        if dash:
            yield from (
                str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)
            )
        else:
            yield first


# What people name things may look like a field.
_WORDS_OF_USERS = re.compile(
    r"\b(?:JobName|Comment|AdminComment|SystemComment|Command|WorkDir)=.*$", re.MULTILINE
)


def field(text: str, key: str) -> str | None:
    """The value of `Key=Value` in what `scontrol show` prints; None where it is missing or
    `(null)`.
    """
    found = re.search(rf"(?:^|\s){re.escape(key)}\s*=\s*(\S+)", _WORDS_OF_USERS.sub("", text))
    return found[1] if found and found[1] not in ("(null)", "N/A", "Unknown") else None


def line_field(text: str, key: str) -> str | None:
    """The value of a `Key=Value` that has a line to itself, such as a path, which may hold
    blanks.
    """
    found = re.search(rf"^\s*{re.escape(key)}=(.+)$", text, re.MULTILINE)
    return found[1] if found and found[1] != "(null)" else None


def cpus(environ: Mapping[str, str]) -> int:
    """The job's CPUs on this node."""
    value = environ.get("SLURM_CPUS_ON_NODE", "")
    if not value.isdigit():
        raise StartError(
            f"SLURM_CPUS_ON_NODE must be a number, got {value!r}: start through sbatch"
        )
    return int(value)


def gpus(environ: Mapping[str, str]) -> int:
    """The job's GPUs on this node: SLURM's number, but never more than CUDA shows, which Ray would
    refuse.
    """
    granted = environ.get("SLURM_GPUS_ON_NODE", "")
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return int(granted) if granted.isdigit() else 0
    shown = 0
    for device in visible.split(","):
        if device.strip() in ("", "-1", "NoDevFiles"):
            break  # CUDA ignores what follows an invalid entry
        shown += 1
    return min(int(granted), shown) if granted.isdigit() else shown


def gpus_by_host(text: str) -> dict[str, int]:
    """The job's GPUs on each of its nodes, from what `scontrol show job --details` prints."""
    found: dict[str, int] = {}
    for hosts, granted in re.findall(r"^\s*Nodes=(\S+) CPU_IDs=.*?GRES=(\S*)", text, re.MULTILINE):
        number = sum(int(each) for each in re.findall(r"gpu(?::[^:,()]+)?:(\d+)", granted))
        found |= dict.fromkeys(hostnames(hosts), number)
    return found


def worker_gpus(
    environ: Mapping[str, str],
    granted: Mapping[str, int],
    hosts: Sequence[str],
    without_first: bool,
) -> str | None:
    """What `srun --gpus` must say for a step on some nodes, all or all but the first; None:
    nothing.

    A job that asked with `--gpus` would ask for all of its GPUs on these nodes, and one that has
    them without having asked, as with `--exclusive`, would get none there. `granted`: the job's
    GPUs by host, where SLURM says them.
    """
    kind, colon, number = environ.get("SLURM_GPUS", "").rpartition(":")
    total = sum(granted.get(host, 0) for host in hosts)
    if "," in kind:  # several kinds: SLURM's own words must do
        return None
    if number.isdigit() and not granted:
        total = int(number) - gpus(environ) * without_first
    return f"{kind}{colon}{total}" if total or number.isdigit() else None


def megabytes(value: str) -> int:
    """SLURM's memory sizes, `6000`, `6000M` or `6G`, as bytes."""
    found = re.fullmatch(r"(\d+)([KMGT]?)", value)
    if not found:
        raise StartError(f"SLURM gave a memory size that is no number: {value!r}")
    return int(found[1]) << 10 * " KMGT".index(found[2] or "M")


def requested_memory(environ: Mapping[str, str], cpus: int, gpus: int) -> int | None:
    """The job's memory on this node in bytes as it was asked for; 0: all of the node; None: SLURM
    does not say.
    """
    if per_node := environ.get("SLURM_MEM_PER_NODE"):
        return megabytes(per_node)
    if per_cpu := environ.get("SLURM_MEM_PER_CPU"):
        return megabytes(per_cpu) * cpus
    if per_gpu := environ.get("SLURM_MEM_PER_GPU"):
        return megabytes(per_gpu) * gpus or None
    return None


def memory(requested: int | None, limit: int | None, machine: int, share: float) -> int:
    """The job's memory on this node in bytes.

    The smaller of what was asked for and the cgroup's limit. Where SLURM manages no memory there is
    neither: then the part of the machine's memory that the job's CPUs are of its CPUs (`share`), so
    that neighbours keep theirs.
    """
    if known := [value for value in (requested, limit) if value]:
        return min(known)
    return machine if requested == 0 else int(machine * min(1.0, share))


def object_store(memory: int, shm_free: int) -> int:
    """The size of Ray's object store in bytes, within the job's memory and what is free in
    /dev/shm.
    """
    return max(STORE_MINIMUM, int(min(memory * STORE_SHARE, shm_free * SHM_SHARE)))


def cgroup_limit(membership: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The tightest memory limit in bytes of a process's cgroup and its parents (v1 and v2); None
    without any.

    `membership` is the text of /proc/self/cgroup.
    """
    limits = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, name = (
            (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
        )
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            limits.append(_limit(folder / name))
            if folder == base:
                break
    return min((limit for limit in limits if limit), default=None)


def _limit(path: Path) -> int | None:
    try:
        value = int(path.read_text("ascii"))
    except (OSError, ValueError):  # no such group in this namespace, or "max"
        return None
    return value if 0 < value < NO_LIMIT else None
