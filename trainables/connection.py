"""The connection to Ray: settings that it reads from the environment when it is imported, a cluster, its nodes."""

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from trainables.errors import ResourceError
from trainables.neighbours import job_config


def prepare_ray(address: str | None) -> None:
    """Set what Ray and Tune are to do; call before anything imports Ray.

    A cluster of our own (`address` None) demands a token that only this run's processes know. An existing cluster has
    its own rules, which the user's environment states (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH). Raises ResourceError where
    Ray could not start a worker.
    """
    if any(letter.isspace() for letter in sys.executable):
        raise ResourceError(
            f"Python must lie in a path without spaces, got {sys.executable!r}: Ray cannot start workers from it; "
            "make the virtual environment in another folder (data and runs may lie anywhere)"
        )
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a cell without a GPU sees none
    # Tune prints and logs for itself unless told otherwise; the ledger and our own progress do that here.
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0", RAY_CHDIR_TO_TRIAL_DIR="0")
    # Nothing ever reads Tune's snapshots, so write as few as possible.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
    # Our searcher alone decides how many trials there are at once; Tune would start the first workers one by one.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "4096")


@contextmanager
def connect(address: str | None) -> Iterator[list[dict[str, Any]]]:
    """Connect to the cluster at `address`, or start one on this machine; yields the nodes with their resources.

    A local cluster belongs to this run alone: it demands a random token, has no dashboard, and ends with the block.
    """
    import ray

    # "local" and not None: without an address Ray would join whatever cluster runs on this machine.
    own: dict[str, Any] = {"address": "local", "include_dashboard": False, "num_cpus": _usable_cpus()}
    options: dict[str, Any] = {"address": address} if address else own
    if "://" not in options["address"]:  # Ray's client takes no such settings
        options["job_config"] = job_config()
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        yield nodes()
    finally:
        ray.shutdown()


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


def host_lives(host: str) -> bool:
    """Whether a node of this host name is part of the cluster at this moment."""
    import ray

    return any(node["Alive"] and node["NodeManagerHostname"] == host for node in ray.nodes())
