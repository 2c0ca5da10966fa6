"""The Ray cluster of a job: its nodes as child processes, from the head's ports to the last process.

Knows not what the cluster is for.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from cluster import commands, slurm
from cluster.allocation import Allocation, StartError, gpus_by_host, worker_gpus
from cluster.endings import HEAD_LOST, JOIN_TIMEOUT, START_FAILED, Ending, Interrupted
from cluster.events import Child, Event, Events, Exited, Line, Signalled
from cluster.folder import JobFolder, Journal, last_line, read_cluster
from cluster.options import Options
from cluster.roster import Roster

SPARE_SECONDS = 4.0  # for a node to report, after the bound it was given


class Cluster:
    """Head, workers and the watcher of the GCS; `turn` is the one place where events are handled."""

    def __init__(self, options: Options, allocation: Allocation, journal: Journal) -> None:
        self.options, self.allocation, self.journal = options, allocation, journal
        self.folder = JobFolder(options.jobs_folder, allocation)
        self.events = Events()
        self.roster = Roster(allocation, joins=bool(options.join))
        self.kill_wait = 30.0
        self.address = ""
        self.token = self.folder.token
        self.hurry = False  # SLURM kills soon
        self._checked = ""  # the last line of what is required
        self._least = options.min_nodes or len(allocation.hosts)
        self.ready = self._stopping = self._head_missed = False
        self._signals: set[str] = set()  # that have come
        self._children: dict[str, Child] = {}
        self._over: set[str] = set()  # children whose last line has been read
        self._seconds: dict[str, float] = {}

    def prepare(self) -> None:
        """Make the job's folder, listen to signals, learn what SLURM says."""
        job = self.allocation
        self.folder.make()
        self.journal.keep(self.folder.launch_log)
        self.kill_wait = slurm.kill_wait()
        nodes = " ".join(job.hosts)
        self.journal.say(f"job {job.job_id}, restart {job.restart}, nodes {nodes}; logs in {self.folder.restart}")
        self._passed("allocation")

    def require(self, command: list[str]) -> None:
        """Run a command beside the bring-up, which ends with its exit code and last line where it fails."""
        self._start("check", command, commands.driver_environment(os.environ, {}, "", ""))

    # --- bring-up -----------------------------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Start all nodes and wait until each has joined; raises Ending where that cannot be."""
        until = time.monotonic() + self.options.join_timeout
        workers = self.allocation.hosts
        if self.options.join:
            try:
                facts = read_cluster(self.options.join)
            except StartError as error:
                raise Ending(START_FAILED, str(error)) from error
            self.address, self.token = facts["address"], Path(facts["token_path"])
        else:
            self._start_head(until)
            workers = workers[1:]
        self._passed("ports")
        if workers:
            granted = gpus_by_host(slurm.details(self.allocation.job_id))
            gpus = worker_gpus(os.environ, granted, workers, without_first=not self.options.join)
            # At once, for `ray start --address` waits for the head by itself.
            command = commands.workers(workers, self._node_command(self.address), gpus)
            self._start("workers", command, commands.step_environment(os.environ, self._settings()), control=True)
        watch = commands.gcs("nodes", self.address)
        self._start("watcher", watch, self.client_environment(), stderr=subprocess.DEVNULL)
        while missing := self.roster.missing():
            if self._enough(missing, until):
                break
            self._await_joins(until)
        while "check" in self._children and "check" not in self._over:
            self.turn(0.5)
        self.ready = True
        self._passed("all joined")
        for name in ("workers", "head"):
            if name in self._children:
                self._children[name].order("ready", last=False)
        self._announce()

    def _start_head(self, until: float) -> None:
        host = self.allocation.hosts[0]
        environment = {"SLURMD_NODENAME": host, **os.environ, **self._settings()}
        self._start("head", self._node_command(None), environment, control=True)
        while host not in self.roster.started:
            if time.monotonic() > until:
                raise Ending(START_FAILED, f"the head's process on {host} did not start: see {self.folder.restart}")
            self.turn(0.5)
        head = self.roster.started[host]
        self.address = f"{head['address']}:{head['ports']['gcs']}"

    def _enough(self, missing: list[str], until: float) -> bool:
        """True where the work goes on without some nodes, as --min-nodes allows, since they do not come."""
        there = len(self.allocation.hosts) - len(missing)
        if there < self._least or (not self.options.join and self.allocation.hosts[0] in missing):
            return False
        if time.monotonic() < until and not self.roster.failed.keys() >= set(missing):
            return False
        why = "; ".join(map(self._why_missing, missing))
        self.journal.say(f"going on with {there} of {len(self.allocation.hosts)} nodes, as --min-nodes allows: {why}")
        return True

    def _await_joins(self, until: float) -> None:
        missing = self.roster.missing()
        if time.monotonic() > until:
            seconds = self.options.join_timeout
            head_missing = not self.options.join and self.allocation.hosts[0] in missing
            if self.roster.alive is None or head_missing:
                log = self.folder.restart / "head.log"
                why = f"did not come up within {seconds:g} s: {log} ends with {last_line(log)!r}"
                raise Ending(START_FAILED, f"the head at {self.address} {why}")
            text = f"{len(missing)} of {len(self.allocation.hosts)} nodes did not join within {seconds:g} s"
            raise Ending(JOIN_TIMEOUT, f"{text}: {'; '.join(map(self._why_missing, missing))}")
        if "workers" in self._over:
            why = "; ".join(map(self._why_missing, missing))
            raise Ending(START_FAILED, f"srun ended before all nodes had joined: {why}")
        self.turn(0.5)
        if self.roster.alive is not None:
            self._passed("head up")

    def _why_missing(self, host: str) -> str:
        log = self.folder.restart / f"worker-{host}.log"
        if host in self.roster.failed:
            return f"{host}: {self.roster.failed[host]}"
        if host in self.roster.started:
            return f"{host} started Ray, which did not join: {log} ends with {last_line(log)!r}"
        return f"{host} started nothing: see srun's lines in {self.folder.launch_log}"

    def _node_command(self, head: str | None) -> list[str]:
        patience = self.kill_wait * 0.6  # a little longer than the driver may take after SIGTERM
        return commands.node(self.folder.restart, self.allocation.job_id, self.options.interface, patience, head)

    def _settings(self) -> dict[str, str]:
        return commands.ray_settings(self.token, os.environ, self.allocation.hosts, self.address)

    def client_environment(self) -> dict[str, str]:
        """The environment of the driver and of every other client."""
        return commands.driver_environment(os.environ, self._settings(), self.address, self.dashboard())

    def dashboard(self) -> str:
        """Where submitted jobs go, on the head; empty for a joined cluster."""
        head = self.roster.started.get(self.allocation.hosts[0])
        return f"http://127.0.0.1:{head['ports']['dashboard']}" if head and not self.options.join else ""

    def _start(self, name: str, command: list[str], environment: dict[str, str], **more: Any) -> None:
        try:
            self._children[name] = Child(name, command, environment, self.events, **more)
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
            "nodes": [{key: started[host][key] for key in ("host", "address", "cpus", "gpus")} for host in hosts],
            "ports": head["ports"],
            "token_path": str(self.token),
        }
        self.folder.write_cluster(facts)
        self.journal.plain(commands.submit_lines(self.token, head["host"], head["ports"]["dashboard"]))

    # --- events -------------------------------------------------------------------------------------------------------

    def turn(self, seconds: float) -> Event | None:
        """Handle the next event; raises Interrupted on a signal, Ending when a start fails or the head is lost."""
        event = self.events.get(seconds)
        if isinstance(event, Line) and event.source == "check":
            self._checked = event.text.removeprefix("rayfold: ")
        elif isinstance(event, Line):
            for text in self.roster.hear(event.source, event.text):
                self.journal.say(text)
            if self.roster.head_is_new and "workers" in self._children:
                self.roster.head_is_new = False
                self._children["workers"].order("anew", last=False)  # what has met the old GCS will not join this one
        elif isinstance(event, Exited):
            self._over.add(event.source)
            if event.source == "check" and event.code and not self._stopping:
                raise Ending(event.code, self._checked or f"the check of the command ended with {event.code}")
        elif isinstance(event, Signalled):
            self.hurry = self.hurry or event.name == "TERM"
            if event.name not in self._signals and not self._stopping:
                self._signals.add(event.name)  # SLURM may repeat itself
                raise Interrupted(event.name)
        if not self._stopping:
            self._check_nodes()
        return event

    def _check_nodes(self) -> None:
        if not self.ready and len(self.allocation.hosts) - len(self.roster.failed) < self._least:
            raise Ending(START_FAILED, "; ".join(f"{host}: {why}" for host, why in self.roster.failed.items()))
        lost = self.roster.head_lost or (self.roster.head_again if self.ready else "")
        if ("head" in self._over or lost) and not self._head_missed:
            self._head_missed = True
            why = lost or f"its process ended: see {self.folder.restart / 'head.log'}"
            code, what = (HEAD_LOST, "was lost") if self.ready else (START_FAILED, "did not come up")
            raise Ending(code, f"the head {what}: {why}")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def pids(self) -> set[int]:
        """The processes that are the cluster's, not the driver's."""
        return {child.pid for child in self._children.values()}

    def workers_ended(self) -> bool:
        """True once all of srun's tasks have."""
        return "workers" in self._over

    def drain(self, seconds: float) -> None:
        """Tell Ray in the background that nodes end in so many seconds: of a joined job its own, else all workers."""
        self.roster.draining = True
        if self.roster.alive:
            job = self.allocation
            names = [job.node_name(host) for host in job.hosts] if self.options.join else []
            self._start(
                "drain", commands.gcs("drain", self.address, f"{seconds:.0f}", *names), self.client_environment()
            )

    def keep_jobs(self) -> None:
        """Submit again what had not ended with the last start, and note from now on what has not."""
        command = commands.gcs("keep-jobs", self.dashboard(), str(self.folder.jobs))
        self._start("submitted", command, self.client_environment(), stderr=subprocess.DEVNULL)

    def stop_jobs(self, seconds: float) -> bool | None:
        """Stop the submitted jobs; True if there were any, None if that cannot be known."""
        if keeper := self._children.get("submitted"):
            keeper.signal(signal.SIGKILL)  # their end is not to be noted
        found = self._ask("jobs", self.dashboard(), str(self.folder.jobs))
        if found:
            self.journal.say(f"stopping submitted jobs: {' '.join(found.split())}")
            if self._ask("stop-jobs", self.dashboard(), f"{seconds:.0f}", seconds=seconds) is None:
                self.journal.say("not all of them ended")
        return None if found is None else bool(found)

    def _ask(self, *arguments: str, seconds: float = 30) -> str | None:
        """What a subcommand of cluster.gcs prints; None if it fails, or does not answer in time."""
        lines: list[bytes] = []
        code = None
        log = (self.folder.restart / "gcs.log").open("ab")
        with log:
            self._start("gcs", commands.gcs(*arguments), self.client_environment(), sink=lines.append, stderr=log)
        until = time.monotonic() + seconds
        while code is None and time.monotonic() < until:
            event = self.turn(0.5)
            if isinstance(event, Exited) and event.source == "gcs":
                code = event.code
        self._children.pop("gcs").signal(signal.SIGKILL)
        return b"".join(lines).decode(errors="replace").strip() if code == 0 else None

    def stop(self, seconds: float) -> list[str]:
        """Stop workers, then head, each within a bound; returns what is left on the nodes, by their own account."""
        self._stopping = True
        if not self.options.join:
            self.folder.cluster.unlink(missing_ok=True)
        for name in ("watcher", "submitted"):
            if name in self._children:
                self._children[name].signal(signal.SIGKILL)
        nodes = [self._children[name] for name in ("workers", "head") if name in self._children]
        if self.hurry:
            for child in nodes:
                child.order(f"{seconds:.1f}")
        for child in nodes:
            child.order(f"{seconds:.1f}")
            self._await_end(child, seconds + SPARE_SECONDS)
        for child in self._children.values():
            child.signal(signal.SIGKILL)
        return self.roster.left()

    def _await_end(self, child: Child, seconds: float) -> None:
        """Wait for a child; then SIGTERM, on which srun kills its tasks, then SIGKILL."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number:
                child.signal(number)
                seconds = 2.0
            until = time.monotonic() + seconds
            while child.name not in self._over and time.monotonic() < until:
                self.turn(0.2)
