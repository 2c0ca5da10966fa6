"""The connection to Ray: settings that it reads from the environment when it is imported, a
cluster, its nodes.

Whatever stands in the way of a connection is one ResourceError: what was asked for, the cause, the
remedy.
"""

import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainables.core.errors import ResourceError
from trainables.runtime.address import asked_for, check_answer, check_form, check_own
from trainables.runtime.heartbeat import joining, starting, watched
from trainables.runtime.private_folder import PrivateFolder
from trainables.runtime.ray_internals import host_and_port, initialise, job_config
from trainables.runtime.standard_error import held_back

#: What a cluster of our own is told before Ray is imported, since only the environment reaches all
#: of its processes.
_CLOSED = {
    "RAY_AUTH_MODE": "token",
    # Everything listens on the loopback address alone. The name is Ray's: on Linux its nodes take
    # the address by which other machines reach them unless they are not to form a cluster.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Metrics are served to anyone who asks, and nobody reads them. There is no switch for the last
    # two servers: a port that does not exist keeps them from starting.
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "65536",
    "DASHBOARD_METRIC_PORT": "65536",
}


def prepare_ray(address: str | None) -> None:
    """Set what Ray and Tune are to do; call before anything imports Ray.

    A cluster of our own (no `address`) demands a token that only this run's processes know, and
    listens on the loopback address alone. An existing cluster has its own rules, which the user's
    environment states (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH). Raises ResourceError where Ray could
    not start a worker, and where `address` cannot be one.
    """
    if any(letter.isspace() for letter in sys.executable):
        raise ResourceError(
            f"Python must lie in a path without spaces, got {sys.executable!r}: Ray cannot start "
            "workers from it; make the virtual environment in another folder (data and runs may "
            "lie anywhere)"
        )
    # A run folder names code that is run later: never writable by everybody.
    os.umask(os.umask(0o077) | 0o002)
    if address:
        check_form(address)
    else:
        os.environ.update(_CLOSED, RAY_AUTH_TOKEN=secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A cell without a GPU sees none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Tune prints and logs for itself unless told otherwise; the ledger and our own progress do that
    # here.
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0"
    )
    # Signals are ours; Tune hears of them by SIGUSR1.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Nothing ever reads Tune's snapshots, so write as few as possible.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
    # Our searcher alone decides how many trials there are at once; Tune would start the first
    # workers one by one.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "4096")


@contextmanager
def connect(address: str | None) -> Iterator[list[dict[str, Any]]]:
    """Connect to the cluster at `address`, or start one on this machine; yields the nodes with
    their resources.

    A local cluster belongs to this run alone: it demands a random token, lies in a folder that
    nobody else can enter, has no dashboard, and ends with the block. Raises ResourceError where
    that fails, after about a minute at most.
    """
    with ExitStack() as stack:
        if address:
            _join(address)
        else:
            stack.enter_context(_started_here())
        import ray

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        stack.enter_context(watched(local=not address, end=ray.shutdown))
        yield nodes()


@contextmanager
def _started_here() -> Iterator[None]:
    """A cluster on this machine, in a private folder; whoever uses it ends it."""
    parents = [
        os.environ.get("RAY_TMPDIR"),
        os.environ.get("TMPDIR"),
        "/tmp",
        "/var/tmp",
        "/dev/shm",
    ]
    folder = PrivateFolder(parents)
    failed = True
    try:
        with folder.used():
            _start_here(folder)
            failed = False
            yield
    finally:
        folder.remove(keep_logs=failed)


def _join(address: str) -> None:
    with held_back() as written:
        try:
            found = host_and_port(address)
            if address == "auto":
                check_own(found)
            check_answer(found, address)
            with joining(found):
                _initialise(None, address=found)
        except ResourceError:
            raise
        except Exception as error:
            cause = _cause(error)
            if "AuthToken" in written() or "uthenticat" in written() + cause:
                raise ResourceError(
                    f"the Ray cluster at {asked_for(address, found)} wants another token: set "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with its token, or "
                    "leave the address out to use this machine"
                ) from error
            raise ResourceError(
                f"cannot connect to RAY_ADDRESS or --address {address!r}: {cause}; start rayfold "
                "on a node of that cluster, or leave the address out to use this machine alone"
            ) from error


def _start_here(folder: PrivateFolder) -> None:
    """Start a cluster on this machine; a second time where the first try fails, as it does when the
    machine is busy.
    """
    import psutil

    # "local" and not None: without an address Ray would join whatever cluster runs on this machine.
    own = {
        "address": "local",
        "include_dashboard": False,
        "num_cpus": _usable_cpus(),
    }
    before = set(psutil.Process().children())
    try:
        with held_back(), starting():
            _initialise(folder.ray, **own)
    except Exception:
        for process in set(psutil.Process().children()) - before:
            process.kill()  # what Ray had begun
        try:
            with held_back(), starting():
                _initialise(folder.ray, **own)
        except Exception as error:
            raise ResourceError(
                f"Ray cannot start on this machine: {_cause(error)}; try again when it is less "
                f"busy, else look into Ray's logs ({folder.logs})"
            ) from error


def _initialise(folder: Path | None, **options: Any) -> None:
    import ray

    options |= {"log_to_driver": False, "logging_level": logging.ERROR, "job_config": job_config()}
    try:
        initialise(folder, **options)
    except BaseException:
        ray.shutdown()
        raise


def _cause(error: BaseException) -> str:
    """What Ray says, in one line."""
    said = " ".join(str(error).split())
    if (first := error.__cause__) is not None and str(first):
        said += f": {' '.join(str(first).split())}"
    return said[:400].rstrip(". ") or type(error).__name__


def _usable_cpus() -> int:
    """What this process may use, which on a shared node is less than what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nodes() -> list[dict[str, Any]]:
    """The living nodes: host, cpus, gpus; looked up at most every two seconds."""
    return _nodes_at(int(time.monotonic() / 2))


@lru_cache(maxsize=1)
def _nodes_at(_moment: int) -> list[dict[str, Any]]:
    import ray

    return [
        {
            "host": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0.0),
            "gpus": node["Resources"].get("GPU", 0.0),
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def losses_by_host() -> Counter[str]:
    """How many nodes of each host the cluster has lost so far; two jobs may have nodes on the same
    host.
    """
    import ray

    return Counter(node["NodeManagerHostname"] for node in ray.nodes() if not node["Alive"])
