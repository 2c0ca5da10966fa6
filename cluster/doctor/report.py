"""`python -m cluster.doctor`: would a Ray cluster work here? One line per finding, each with its
remedy.

Runs on a login or a compute node, inside or outside of an allocation, and leaves nothing behind.
Inside an allocation it says most, since only there SLURM's promises can be compared with what the
node really gives; with two or more nodes it also asks the others. Exit code 0 when nothing fails
(warnings may stand), 1 when something fails, 2 for bad usage.
"""

import argparse
import math
import os
import re
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from cluster.common import allocation, commands, slurm
from cluster.common.allocation import StartError, field
from cluster.common.folder import JOBS
from cluster.doctor import checks, node_view
from cluster.doctor.checks import Finding
from cluster.node import network, ports, temp

#: `srun --overlap`, which lets Ray and the driver share the job's CPUs, came with this version.
OLDEST_SLURM = (20, 11)
SLURM_COMMANDS = ("sbatch", "srun", "scontrol", "squeue", "scancel")


# --- SLURM ----------------------------------------------------------------------------------------


def check_slurm(missing: Sequence[str], version: str) -> Finding:
    """SLURM's commands are there and know `srun --overlap`; version: what `sbatch --version`
    said.
    """
    if missing:
        remedy = (
            "run this on a login or compute node, or load the site's SLURM module in the site file"
        )
        return Finding("fail", f"SLURM: no command {', '.join(missing)} on PATH", remedy)
    if not (found := re.search(r"slurm\S* (\d+)\.(\d+)", version)):
        reason = (version.strip().splitlines() or ["no answer"])[-1]
        what = f"SLURM: sbatch does not tell its version: {reason}"
        return Finding(
            "fail",
            what,
            "SLURM's configuration is not found from here: use a login node, or set SLURM_CONF",
        )
    if (int(found[1]), int(found[2])) < OLDEST_SLURM:
        return Finding(
            "fail",
            f"{found[0]} has no srun --overlap",
            "20.11 or later is needed: ask the site's admins",
        )
    return Finding("ok", f"SLURM: {version.strip()}; {', '.join(SLURM_COMMANDS)}")


def check_requeue(in_job: bool, text: str) -> Finding:
    """The job may be requeued; text: of `scontrol show job`, or outside of a job of `scontrol show
    config`.
    """
    allowed = field(text, "Requeue" if in_job else "JobRequeue")
    if allowed is None:
        return Finding(
            "fail",
            "requeue: scontrol does not answer",
            "try 'scontrol ping'; ask the site's admins",
        )
    if not in_job:
        return Finding(
            "ok",
            f"requeue: the site's default is {allowed}; cluster/ray_slurm.sh asks for it job by "
            "job",
        )
    if allowed == "1":
        return Finding("ok", "requeue: allowed for this job")
    remedy = (
        "sbatch --requeue; where the site forbids it, submit the same command again: finished "
        "cells are kept"
    )
    return Finding("warn", "requeue: not allowed for this job, it ends at its deadline", remedy)


# --- what could mislead Ray -----------------------------------------------------------------------


def check_environment(environment: Mapping[str, str], home: Path, jobs_folder: Path) -> Finding:
    """No variable and no stray token leads Ray's clients to another cluster or with another
    token.
    """
    if Path(environment.get("RAY_AUTH_TOKEN_PATH", "")).is_relative_to(jobs_folder):
        return Finding(
            "ok", "environment: Ray's variables are those of a cluster in the jobs folder"
        )
    misleading = [
        name for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if environment.get(name)
    ]
    misleading += sorted(name for name in environment if name.startswith("RAY_AUTH_"))
    if misleading:
        remedy = (
            f"unset {' '.join(misleading)} (look into ~/.bashrc and the site file), unless you "
            "mean another cluster"
        )
        return Finding("warn", f"environment: {', '.join(misleading)} set already", remedy)
    token = home / ".ray" / "auth_token"
    if token.exists():
        remedy = (
            "remove it unless another cluster needs it: Ray takes it wherever RAY_AUTH_TOKEN_PATH "
            "is not set"
        )
        return Finding("warn", f"environment: a token lies in {str(token)!r}", remedy)
    return Finding("ok", "environment: no RAY_ADDRESS, no RAY_AUTH_*, no ~/.ray/auth_token")


def check_python(specified: Callable[[str], object] = find_spec) -> Finding:
    """This Python has what a job needs, looked up without importing it."""
    what = f"Python {sys.executable!r}"
    needed = {
        "ray": "ray",
        "tensorflow": "tensorflow",
        "orchestrator": "rayfold",
        "aiohttp_cors": "ray[default]",
    }
    if missing := [package for module, package in needed.items() if specified(module) is None]:
        remedy = "pip install 'ray[default]'"  # all that Ray's dashboard and `ray job submit` need
        if len(missing) > 1 or missing[0] != "ray[default]":
            remedy = "activate rayfold's environment before sbatch, or in the site file"
        return Finding("fail", f"{what} lacks {', '.join(missing)}", remedy)
    return Finding("ok", f"{what} has {', '.join(needed.values())}")


def check_tokens(jobs_folder: Path, user: int) -> Finding:
    """Every token of a job in the jobs folder belongs to `user` (uid) and nobody else can read or
    replace it.
    """
    tokens = sorted(jobs_folder.glob("*/token"))
    bad = []
    for token in tokens:
        for path in (token, token.parent):
            status = path.stat()
            if status.st_uid != user or stat.S_IMODE(status.st_mode) & 0o077:
                bad.append(
                    f"{str(path)!r} (mode {stat.S_IMODE(status.st_mode):04o}, uid {status.st_uid})"
                )
    if bad:
        remedy = (
            "cancel that job, then chmod 0600 its token and 0700 its folder: whoever read it can "
            "run code as you"
        )
        return Finding("fail", f"tokens: open to others: {', '.join(bad)}", remedy)
    return Finding("ok", f"tokens: {len(tokens)} in {str(jobs_folder)!r}, none readable by others")


# --- all of it ------------------------------------------------------------------------------------


def check_ports(cpus: int, environment: Mapping[str, str], ephemeral: str) -> Finding:
    """A block of ports is free for the workers of so many CPUs; taken and given back at once."""
    within = ports.space(environment, ephemeral)
    block = ports.take(cpus, os.getpid(), within)
    block.close()
    what = (
        f"ports: {min(block.ports.values())}-{max(block.ports.values())} free, of "
        f"{within.start}-{within.stop - 1}"
    )
    low, high = map(int, ephemeral.split())
    if within.start <= high and low < within.stop:
        remedy = (
            f"choose RAYFOLD_PORTS outside of {low}-{high}, from which the kernel takes ports for "
            "anybody"
        )
        return Finding("warn", f"{what}, within the ephemeral range", remedy)
    return Finding("ok", f"{what}, outside of the ephemeral range")


def check_temporary_folder(environment: Mapping[str, str]) -> Finding:
    """Some folder of this node's own can hold Ray's temp dir and its sockets; made by the
    launcher's rule, removed.
    """
    made = temp.TempFolder("123456789", (environment.get("TMPDIR"), "/tmp"), sweeps=False)
    parent = str(made.path.parent)
    made.remove()
    what = f"temp dir: in {parent!r} on {temp.file_system(parent)}, short enough for Ray's sockets"
    return Finding("ok", what)


def refused(error: StartError | OSError) -> Finding:
    """The finding where the launcher's own code would refuse to start, or the system to answer."""
    if isinstance(error, StartError):
        what, _, remedy = str(error).partition(": ")
        return Finding("fail", what, remedy or "see docs/slurm.md")
    return Finding(
        "fail", f"cannot use {str(error.filename)!r}: {error.strerror}", "mend or allow that first"
    )


def guarded(check: Callable[[], Finding]) -> Finding:
    """A check's finding, whatever comes."""
    try:
        return check()
    except (StartError, OSError) as error:
        return refused(error)


def of_this_node(environment: Mapping[str, str]) -> Iterator[Finding]:
    """What this node gives to a Ray node."""
    on_node = "SLURMD_NODENAME" in environment
    affinity, machine = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    cpus = allocation.cpus(environment) if on_node else affinity
    membership = Path("/proc/self/cgroup").read_text("utf-8")
    limit = allocation.cgroup_limit(membership)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    gpus = checks.promised_gpus(environment)
    requested = allocation.requested_memory(environment, cpus, gpus or 0) if on_node else None
    shm = os.statvfs("/dev/shm")
    memory = allocation.memory(requested, limit, total, cpus / machine)

    yield guarded(lambda: check_ports(cpus, environment, ports.EPHEMERAL.read_text("ascii")))
    yield guarded(lambda: check_temporary_folder(environment))
    yield checks.check_cpus(
        cpus if on_node else None, affinity, checks.cpu_quota(membership), machine
    )
    yield checks.check_memory(on_node, requested, limit, total)
    yield checks.check_shared_memory(
        shm.f_bavail * shm.f_frsize, int(memory * allocation.STORE_SHARE)
    )
    visible, devices = (
        checks.visible_gpus(environment),
        len(list(Path("/dev").glob("nvidia[0-9]*"))),
    )
    expected = checks.expected_gpus(gpus, visible, devices)
    yield checks.check_gpus(gpus, visible, devices, checks.tensorflow_gpus() if expected else None)
    files, processes = (
        resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    yield checks.check_open_files(_number(files[1]))
    yield checks.check_processes(_number(processes[0]), _number(processes[1]))
    name = socket.gethostname()
    found: list[str] = []
    with suppress(OSError):  # unknown to the resolver
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(name, None)]
    yield checks.check_host_name(name, found)


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit


def of_the_nodes(
    environment: Mapping[str, str], jobs_folder: Path, interface: str | None
) -> Iterator[Finding]:
    """What this node and the others of the allocation see of each other."""
    here = environment.get("SLURMD_NODENAME", "")
    hosts = allocation.hostnames(environment.get("SLURM_JOB_NODELIST", ""))
    folder = next(place for place in (jobs_folder, *jobs_folder.parents) if place.is_dir())
    address = ""
    try:
        address = network.node_address(interface, slurm.node_addr(here) if here else None)
    except StartError as error:
        what, _, remedy = str(error).partition(": ")
        if here or interface:
            yield Finding("fail" if here else "warn", what, remedy)
        else:
            yield Finding(
                "ok",
                "address: several here; on a compute node SLURM's is taken, or that of --interface",
            )
    several = len(hosts) > 1
    try:
        reports, errors = node_view.ask(
            commands.workers(hosts, []) if several else [], folder, address, interface or ""
        )
    except OSError as error:
        remedy = "choose a folder that you may write to with --jobs-folder"
        yield Finding(
            "fail",
            f"shared file system: cannot use {str(error.filename)!r}: {error.strerror}",
            remedy,
        )
        return
    seen = node_view.check_canary(
        folder, reports, hosts if several else [report.node for report in reports], errors
    )
    yield (
        seen
        if several or seen.level != "ok"
        else node_view.check_shared_kind(folder, temp.file_system(str(folder)))
    )
    if skews := {report.node: report.skew for report in reports if report.skew is not None}:
        yield node_view.check_clocks(skews)
    if address and reports:
        yield node_view.check_reached(address, reports)


def findings(
    environment: Mapping[str, str], jobs_folder: Path, interface: str | None
) -> Iterator[Finding]:
    """All findings, as they are made."""
    missing = [command for command in SLURM_COMMANDS if shutil.which(command) is None]
    version = check_slurm(missing, slurm.ask("sbatch", "--version")[1])
    yield version
    if version.level == "ok":
        job = environment.get("SLURM_JOB_ID")
        yield check_requeue(
            bool(job), slurm.job(job) if job else slurm.ask("scontrol", "show", "config")[1]
        )
    yield check_python()
    yield check_environment(environment, Path.home(), jobs_folder)
    yield guarded(lambda: check_tokens(jobs_folder, os.getuid()))
    for part in (of_this_node(environment), of_the_nodes(environment, jobs_folder, interface)):
        try:
            yield from part
        except (StartError, OSError) as error:
            yield refused(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every finding; 1 when one fails, else 0."""
    parser = argparse.ArgumentParser(
        prog="rayfold doctor", description="Would a Ray cluster work here?"
    )
    parser.add_argument(
        "--jobs-folder", type=Path, metavar="DIR", help="as given to cluster/ray_slurm.sh"
    )
    parser.add_argument("--interface", metavar="NAME", help="as given to cluster/ray_slurm.sh")
    given = parser.parse_args(arguments)
    jobs_folder = given.jobs_folder or Path(os.environ.get("SLURM_SUBMIT_DIR", "."), JOBS)
    interface = given.interface or os.environ.get("RAYFOLD_INTERFACE")
    failed = 0
    for finding in findings(os.environ, jobs_folder.absolute(), interface):
        sys.stdout.buffer.write(f"{finding}\n".encode(errors="backslashreplace"))
        sys.stdout.flush()
        failed += finding.level == "fail"
    return 1 if failed else 0
