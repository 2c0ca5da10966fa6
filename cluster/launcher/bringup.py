"""The Ray cluster of a job: its nodes as child processes, from the head's ports to the last
process.

Knows not what the cluster is for.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.common import commands, slurm
from cluster.common.allocation import Allocation, StartError, gpus_by_host
from cluster.common.endings import HEAD_LOST, JOIN_TIMEOUT, START_FAILED, Ending, Interrupted
from cluster.common.events import Child, Event, Events, Exited, Line, Signalled
from cluster.common.folder import JobFolder, Journal, last_line, read_cluster
from cluster.launcher import precheck
from cluster.launcher.asking import Asking
from cluster.launcher.options import LaunchOptions
from cluster.launcher.roster import Roster

SPARE_SECONDS = 4.0  # for a node to report, after the bound it was given


class Cluster:
    """Head, workers and the watcher of the GCS; `turn` is the one place where events are
    handled.
    """

    def __init__(self, options: LaunchOptions, allocation: Allocation, journal: Journal) -> None:
        self.options, self.allocation, self.journal = options, allocation, journal
        self.folder = JobFolder(options.jobs_folder, allocation)
        self.events = Events()
        self.roster = Roster(allocation, joins=bool(options.join))
        self.kill_wait = 30.0
        self.address = ""
        self.token = self.folder.token
        self.hurry = False  # SLURM kills soon
        self._until = (
            0.0  # when the patience with nodes ends, which begins with the latest start of one
        )
        self._checked = ""  # the last line of what is required
        self._least = options.min_nodes or len(allocation.hosts)
        self.ready = self.stopping = self._head_missed = False
        self.asking = Asking(self)
        self._signals: set[str] = set()  # that have come
        self.children: dict[str, Child] = {}
        self.over: set[str] = set()  # children whose last line has been read
        self._seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Make the job's folder, listen to signals, learn what SLURM says."""
        job = self.allocation
        self.folder.make()
        self.journal.keep(self.folder.launch_log)
        self.kill_wait = slurm.kill_wait()
        nodes = " ".join(job.hosts)
        self.journal.say(
            f"job {job.job_id}, restart {job.restart}, nodes {nodes}; logs in {self.folder.restart}"
        )
        self._passed("allocation")

    def require(self, command: list[str]) -> None:
        """Run a command beside the bring-up, which ends with its exit code and last line where it
        fails.
        """
        self.start("check", command, commands.driver_environment(os.environ, {}, "", ""))

    # --- bring-up ---------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Start all nodes and wait until each has joined; raises Ending where that cannot be."""
        self._until = time.monotonic() + self.options.join_timeout
        workers = self.allocation.hosts
        if self.options.join:
            try:
                facts = read_cluster(self.options.join)
            except StartError as error:
                raise Ending(START_FAILED, str(error)) from error
            self.address, self.token = facts["address"], Path(facts["token_path"])
        else:
            self._start_head()
            workers = workers[1:]
        self._passed("ports")
        if workers:
            granted = gpus_by_host(slurm.details(self.allocation.job_id))
            # At once, for `ray start --address` waits for the head by itself.
            node, first = self._node_command(self.address), not self.options.join
            environment = commands.step_environment(os.environ, self._settings())
            for number, step in enumerate(
                commands.worker_steps(workers, node, os.environ, granted, first)
            ):
                self.start(
                    f"workers {number + 1}" if number else "workers",
                    step,
                    environment,
                    control=True,
                )
        self.asking.watch()
        while missing := self.roster.missing():
            if self._enough(missing):
                break
            self._await_joins()
        while (
            "check" in self.children and "check" not in self.over and time.monotonic() < self._until
        ):
            self.turn(0.5)  # what it would say after that, the driver says
        self.ready = True
        self.folder.too_late.unlink(missing_ok=True)
        self._passed("all joined")
        for child in self._nodes():
            child.order("ready", last=False)
        self._announce()

    def _start_head(self) -> None:
        host = self.allocation.hosts[0]
        environment = {"SLURMD_NODENAME": host, **os.environ, **self._settings()}
        self.start("head", self._node_command(None), environment, control=True)
        while host not in self.roster.started:
            if time.monotonic() > self._until:
                raise Ending(
                    START_FAILED,
                    f"the head's process on {host} did not start: see {self.folder.restart}",
                )
            self.turn(0.5)
        head = self.roster.started[host]
        self.address = f"{head['address']}:{head['ports']['gcs']}"

    def _enough(self, missing: list[str]) -> bool:
        """True where the work goes on without some nodes, as --min-nodes allows, since they do not
        come.
        """
        there = len(self.allocation.hosts) - len(missing)
        if there < self._least or (not self.options.join and self.allocation.hosts[0] in missing):
            return False
        if time.monotonic() < self._until and not self.roster.failed.keys() >= set(missing):
            return False
        why = "; ".join(map(self._why_missing, missing))
        self.journal.say(
            f"going on with {there} of {len(self.allocation.hosts)} nodes, as --min-nodes allows: "
            f"{why}"
        )
        return True

    def _await_joins(self) -> None:
        missing = self.roster.missing()
        if time.monotonic() > self._until:
            seconds = self.options.join_timeout
            if self.options.join and self.roster.alive is None:
                why = (
                    f"no answer from the cluster at {self.address} within {seconds:g} s: does it "
                    "still run?"
                )
                raise Ending(START_FAILED, f"{str(self.options.join)!r}: {why}")
            head_missing = not self.options.join and self.allocation.hosts[0] in missing
            if self.roster.alive is None or head_missing:
                log = self.folder.restart / "head.log"
                host = self.allocation.hosts[0]
                reason = self.roster.again.get(host) or f"{log} ends with {last_line(log)!r}"
                why = f"did not come up within {seconds:g} s of its last start: {reason}"
                raise Ending(START_FAILED, f"the head at {self.address} {why}")
            text = (
                f"{len(missing)} of {len(self.allocation.hosts)} nodes did not join within "
                f"{seconds:g} s"
            )
            raise Ending(JOIN_TIMEOUT, f"{text}: {'; '.join(map(self._why_missing, missing))}")
        if self._workers() and self.workers_ended():
            why = "; ".join(map(self._why_missing, missing))
            raise Ending(START_FAILED, f"srun ended before all nodes had joined: {why}")
        self.turn(0.5)
        if self.roster.alive is not None:
            self._passed("head up")

    def _why_missing(self, host: str) -> str:
        log = self.folder.restart / f"worker-{host}.log"
        if reason := self.roster.failed.get(host) or self.roster.again.get(host):
            return f"{host}: {reason}"
        if host in self.roster.started:
            return f"{host} started Ray, which did not join: {log} ends with {last_line(log)!r}"
        return f"{host} started nothing: see srun's lines in {self.folder.launch_log}"

    def _node_command(self, head: str | None) -> list[str]:
        patience = self.kill_wait * 0.6  # a little longer than the driver may take after SIGTERM
        return commands.node(
            self.folder.restart, self.allocation.job_id, self.options.interface, patience, head
        )

    def _settings(self) -> dict[str, str]:
        return commands.ray_settings(self.token, os.environ, self.allocation.hosts, self.address)

    def client_environment(self) -> dict[str, str]:
        """The environment of the driver and of every other client."""
        return commands.driver_environment(
            os.environ, self._settings(), self.address, self.dashboard()
        )

    def dashboard(self) -> str:
        """Where submitted jobs go, on the head; empty for a joined cluster."""
        head = self.roster.started.get(self.allocation.hosts[0])
        return (
            f"http://127.0.0.1:{head['ports']['dashboard']}"
            if head and not self.options.join
            else ""
        )

    def start(
        self, name: str, command: list[str], environment: dict[str, str], **more: Any
    ) -> None:
        try:
            self.children[name] = Child(name, command, environment, self.events, **more)
        except OSError as error:
            raise Ending(START_FAILED, f"{name} could not start: {error}") from error

    def _passed(self, phase: str) -> None:
        self._seconds.setdefault(phase, self.journal.seconds())

    def _announce(self) -> None:
        before, parts = 0.0, []
        for phase, at in self._seconds.items():
            parts.append(f"{phase} {at - before:.1f} s")
            before = at
        missing = self.roster.missing()
        hosts = [host for host in self.allocation.hosts if host not in missing]
        self.journal.say(f"ready: {len(hosts)} nodes after {before:.1f} s ({', '.join(parts)})")
        if self.options.join:
            return
        started = self.roster.started
        head = started[self.allocation.hosts[0]]
        facts = {
            "address": self.address,
            "dashboard": self.dashboard(),
            "job_id": self.allocation.job_id,
            "restart": self.allocation.restart,
            "head": head["host"],
            "nodes": [
                {key: started[host][key] for key in ("host", "address", "cpus", "gpus")}
                for host in hosts
            ],
            "ports": head["ports"],
            "token_path": str(self.token),
        }
        self.folder.write_cluster(facts)
        if self.options.serve:
            self.journal.plain(
                commands.submit_lines(self.token, head["host"], head["ports"]["dashboard"])
            )

    # --- events -----------------------------------------------------------------------------------

    def turn(self, seconds: float) -> Event | None:
        """Handle the next event; raises Interrupted on a signal, Ending when a start fails or the
        head is lost.
        """
        event = self.events.get(seconds)
        if isinstance(event, Line) and event.source == "check":
            self._checked = precheck.reason(event.text)
        elif isinstance(event, Line):
            self._heard(event)
        elif isinstance(event, Exited):
            self.over.add(event.source)
            self.asking.missed(event.source)
            if event.source == "check" and event.code and not self.stopping:
                raise Ending(
                    event.code, self._checked or f"the check of the command ended with {event.code}"
                )
        elif isinstance(event, Signalled):
            self.hurry = self.hurry or event.name == "TERM"
            if event.name not in self._signals and not self.stopping:
                self._signals.add(event.name)  # SLURM may repeat itself
                raise Interrupted(event.name)
        if not self.stopping:
            self._check_nodes()
        return event

    def _heard(self, line: Line) -> None:
        for text in self.roster.hear(line.source, line.text):
            self.journal.say(text)
        if self.roster.starts_anew():
            self._until = time.monotonic() + self.options.join_timeout
        if self.roster.head_is_new and self._workers():
            self.roster.head_is_new = False
            for child in self._workers():  # what has met the old GCS will not join this one
                child.order("anew", last=False)

    def _check_nodes(self) -> None:
        if not self.ready and len(self.allocation.hosts) - len(self.roster.failed) < self._least:
            raise Ending(
                START_FAILED,
                "; ".join(f"{host}: {why}" for host, why in self.roster.failed.items()),
            )
        lost = self.roster.head_lost or (self.roster.head_again if self.ready else "")
        if ("head" in self.over or lost) and not self._head_missed:
            self._head_missed = True
            why = lost or f"its process ended: see {self.folder.restart / 'head.log'}"
            code, what = (
                (HEAD_LOST, "was lost") if self.ready else (START_FAILED, "did not come up")
            )
            raise Ending(code, f"the head {what}: {why}")

    # --- ends -------------------------------------------------------------------------------------

    def told_to_stop(self) -> bool:
        """Whether SIGTERM has come that nobody has heard yet."""
        while event := self.events.get(0):
            if isinstance(event, Signalled) and event.name == "TERM":
                return True
        return False

    def pids(self) -> set[int]:
        """The processes that are the cluster's, not the driver's."""
        return {child.pid for child in self.children.values()}

    def workers_ended(self) -> bool:
        """True once all of srun's tasks have."""
        return all(child.name in self.over for child in self._workers())

    def _workers(self) -> list[Child]:
        return [child for name, child in self.children.items() if name.startswith("workers")]

    def _nodes(self) -> list[Child]:
        """Workers first: a head that ends before them leaves them with errors to tell."""
        return [
            *self._workers(),
            *(child for name, child in self.children.items() if name == "head"),
        ]

    def stop(self, seconds: float) -> list[str]:
        """Stop workers, then head, each within a bound; returns what is left on the nodes, by their
        own account.
        """
        self.stopping = True
        if not self.options.join:
            with suppress(OSError):
                self.folder.cluster.unlink(missing_ok=True)
        for name in ("watcher", "submitted"):
            if name in self.children:
                self.children[name].signal(signal.SIGKILL)
        nodes = self._nodes()
        if self.hurry:
            for child in nodes:
                child.order(f"{seconds:.1f}")
        for child in nodes:
            child.order(f"{seconds:.1f}")
            self._await_end(child, seconds + SPARE_SECONDS)
        for child in self.children.values():
            child.signal(signal.SIGKILL)
        return self.roster.left()

    def _await_end(self, child: Child, seconds: float) -> None:
        """Wait for a child; then SIGTERM, on which srun kills its tasks, then SIGKILL."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                child.signal(number)
                seconds = 2.0
            until = time.monotonic() + seconds
            while child.name not in self.over and time.monotonic() < until:
                self.turn(0.2)
