"""What only Ray can answer or do, run as `python -m cluster.launcher.gcs`: nothing else in
`cluster` imports Ray.

nodes ADDRESS                     a line of JSON whenever the living nodes change:
                                  [{"name", "address"}, …]
drain ADDRESS SECONDS [NAME…]     tell Ray that nodes (by default all but the head) end in so many
                                  seconds
keep-jobs DASHBOARD FILE          submit again what the file says, then keep in it which submitted
                                  jobs have not ended
stop-jobs DASHBOARD SECONDS FILE  write the file, say the ids, stop them the orderly way; 1 if one
                                  is still there
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.common.allocation import StartError
from cluster.common.folder import JOB_FIELDS, read_jobs, write_private

_START_SECONDS = 120.0  # for the dashboard to answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the subcommands; returns the exit code."""
    verb, where, *rest = sys.argv[1:] if arguments is None else arguments
    if verb == "nodes":
        return watch(where)
    if verb == "drain":
        try:
            return drain(where, float(rest[0]), rest[1:])
        except (
            Exception
        ) as error:  # the head may end before its workers are told to, and that is no harm
            say(f"not announced: {type(error).__name__}")
            return 1
    if verb == "keep-jobs":
        return keep_jobs(where, Path(rest[0]))
    if verb == "stop-jobs":
        return stop_jobs(where, float(rest[0]), Path(rest[1]))
    raise SystemExit(f"unknown: {verb}")


def say(text: str) -> None:
    """A line on standard output, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def watch(address: str) -> int:
    """Say which nodes live, whenever that changes, until the parent process is gone."""
    _client_class()  # slow to import: while the head starts
    look: Callable[[], list[tuple[str, str]]] | None = None
    said = None
    parent, quick_until = os.getppid(), time.monotonic() + 300
    while os.getppid() == parent:
        try:
            look = look or _living(address)
            alive = sorted(look())
        except Exception as error:  # Ray's own kinds, while the head is not there yet or any more
            look, alive = None, None
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        if alive is not None and alive != said:
            said = alive
            say(json.dumps([{"name": name, "address": place} for name, place in alive]))
        time.sleep(0.2 if time.monotonic() < quick_until else 1.0)
    return 0


def _living(address: str) -> Callable[[], list[tuple[str, str]]]:
    """A look at the names and addresses of the living nodes.

    By the private client, since in public only a driver sees them, which takes seconds to join and
    counts as a job. Where the name is gone, as a driver all the same.
    """
    _check_answer(address)
    client_class = _client_class()
    client = client_class(address=address) if client_class else None
    if hasattr(client, "get_all_node_info"):
        return lambda: [
            (info.node_name, info.node_manager_address) for info in _alive(client).values()
        ]
    import ray

    ray.shutdown()
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    return lambda: [
        (node["NodeName"], node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]
    ]


def _client_class() -> Any:
    """Ray's private client of the head; None where the name is gone."""
    try:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
    except ImportError:
        return None
    return GcsClient


def _check_answer(address: str) -> None:
    """Raise OSError where nobody listens: quicker to refuse than Ray's own client."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=2):
        pass


def _alive(client: Any) -> dict[Any, Any]:
    return {
        node_id: info
        for node_id, info in client.get_all_node_info(timeout=5).items()
        if info.state == 0
    }


def drain(address: str, seconds: float, names: Sequence[str]) -> int:
    """Announce the end of nodes to Ray: no new work there, and `ray.train.get_preemption_info()`
    knows.

    Only Ray's own autoscaler may do that in public. Where the names are gone this raises, and
    `main` says that nothing is announced: the nodes' jobs then end without warning.
    """
    from ray.core.generated import autoscaler_pb2

    _check_answer(address)
    client = _client_class()(address=address)
    reason = autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    refused = 0
    for node_id, info in _alive(client).items():
        # Never the head unless it is named: without work it would end at once, and every driver
        # with it.
        if info.node_name in names or not (names or info.is_head_node):
            deadline = int((time.time() + seconds) * 1000)
            accepted, why = client.drain_node(node_id.hex(), reason, "the SLURM job ends", deadline)
            say(f"{info.node_name}: {'drained' if accepted else why}")
            refused += not accepted
    return 1 if refused else 0


def _jobs(dashboard: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(dashboard)


def _running(client: Any) -> list[Any]:
    jobs = [job for job in client.list_jobs() if job.submission_id]
    return [job for job in jobs if not job.status.is_terminal()]


def _note(jobs: Sequence[Any], file: Path) -> list[str]:
    """Write down what it takes to submit these jobs again; returns their ids."""
    told = [{name: getattr(job, name) for name in JOB_FIELDS} for job in jobs]
    write_private(file, json.dumps(told, indent=1) + "\n")
    return [job.submission_id for job in jobs]


def keep_jobs(dashboard: str, file: Path) -> int:
    """Submit again what had not ended when the cluster did; then note every second what has not,
    until orphaned.
    """
    parent, client, until = os.getppid(), None, time.monotonic() + _START_SECONDS
    while client is None:
        try:
            client = _jobs(dashboard)
        except Exception as error:  # Ray's own kinds, as long as the dashboard is not there
            if time.monotonic() > until or os.getppid() != parent:
                say(
                    "submitted jobs are not noted, the dashboard does not answer: "
                    f"{type(error).__name__}: {error}"
                )
                return 1
            time.sleep(1)
    try:
        for job in read_jobs(file):
            _submit_again(client, job)
    except StartError as error:
        say(f"nothing is submitted again: {error}")
    noted: list[str] | None = None
    while os.getppid() == parent:
        with suppress(Exception):  # busy for a while, or already ending
            running = _running(client)
            if [job.submission_id for job in running] != noted:
                noted = _note(running, file)
        time.sleep(1)
    return 0


def _submit_again(client: Any, job: dict[str, Any]) -> None:
    name = job["submission_id"]
    if "gcs://" in json.dumps(job["runtime_env"]):
        say(f"job {name} is not submitted again: its --working-dir went with the old cluster")
        return
    try:
        client.submit_job(**job)
        say(
            f"job {name} had not ended with the last start and is submitted again: "
            f"{job['entrypoint']}"
        )
    except Exception as error:  # one that cannot is no reason against the others
        say(f"job {name} could not be submitted again: {type(error).__name__}: {error}")


def stop_jobs(dashboard: str, seconds: float, file: Path) -> int:
    """Send SIGTERM to the submitted jobs, and wait for them."""
    until = time.monotonic() + seconds
    client = _jobs(dashboard)
    jobs = _running(client)
    say("\n".join(_note(jobs, file)))
    for job in jobs:
        client.stop_job(job.submission_id)
    while (left := _running(client)) and time.monotonic() < until:
        time.sleep(0.3)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
