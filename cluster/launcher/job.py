"""The life of the batch process: bring-up, join barrier, the work, its end, teardown.

Knows SLURM's and Ray's commands, not their details. A signal ends whatever phase is on, in order.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from cluster.common import commands, slurm
from cluster.common.allocation import Allocation, StartError, field
from cluster.common.endings import (
    DEADLINE,
    DRIVER_LOST_CLUSTER,
    HEAD_LOST,
    START_FAILED,
    TERMINATED,
    Ending,
    Interrupted,
)
from cluster.common.events import Child, Exited
from cluster.common.folder import Journal, read_cluster, read_jobs
from cluster.launcher import precheck
from cluster.launcher.bringup import Cluster
from cluster.launcher.options import LaunchOptions
from cluster.node import teardown

DEADLINE_SECONDS = (
    75.0  # for the driver to save its work, where SLURM does not say when the job ends
)
RESERVE_SECONDS = 30.0  # for the teardown, before the time limit
SPARE_SECONDS = 5.0  # for the last line
# Parts of SLURM's KillWait, the time between SIGTERM and SIGKILL.
DRIVER_PART, NODES_PART = 0.55, 0.25
NODES_SECONDS = 8.0  # for the nodes to end when there is time
AGAIN = "to go on, submit the same command again, rayfold continues from its ledger"


FINISHED = (1, 2)  # of rayfold: it came to its end, whatever signal was on its way


def driver_ending(code: int, is_rayfold: bool) -> Ending:
    """How it ends after a driver's exit code, in which only rayfold itself says that the cluster
    was lost.
    """
    if code == DRIVER_LOST_CLUSTER and is_rayfold:
        return Ending(HEAD_LOST, f"the driver lost the cluster and ended with {code}; {AGAIN}")
    return Ending(code, "the driver finished" if code == 0 else f"the driver ended with {code}")


class Job:
    """One batch job: a cluster and what it is for."""

    def __init__(self, options: LaunchOptions, allocation: Allocation, journal: Journal) -> None:
        self.options, self.allocation, self.journal = options, allocation, journal
        self.cluster = Cluster(options, allocation, journal)
        self.driver: Child | None = None

    def run(self) -> Ending:
        """Live through all phases; returns how it ended."""
        self.cluster.events.listen()
        teardown.become_subreaper()
        self.cluster.prepare()
        requeue = False
        try:
            try:
                if check := precheck.command(
                    self.options.words(self.allocation), self.options.is_rayfold
                ):
                    self.cluster.require(check)
                self.cluster.bring_up()
                ending = self._work()
            except Interrupted as signalled:
                ending, requeue = self._interrupted(signalled.name)
            except Ending as early:
                ending = early
                if early.code == HEAD_LOST:
                    with suppress(Interrupted, Ending):
                        self._stop_driver(DEADLINE_SECONDS / 5)
        finally:
            self._tear_down()
        if requeue and (self.cluster.hurry or self.cluster.told_to_stop()):
            return Ending(
                TERMINATED, f"{ending.what}, then stopped by SIGTERM before it could be requeued"
            )
        return self._requeued(ending) if requeue else ending

    # --- the work ---------------------------------------------------------------------------------

    def _work(self) -> Ending:
        if self.options.join:
            return self._stay(self.options.join)
        if self.options.serve:
            self.cluster.asking.keep_jobs()
            while True:
                self.cluster.turn(60)
        command = commands.driver(self.options.words(self.allocation), self.options.is_rayfold)
        log = self.cluster.folder.driver_log.open("ab", buffering=0)

        def sink(part: bytes) -> None:
            with suppress(OSError):  # a full disk: who writes must not be left standing
                log.write(part)
            self.journal.raw(part)

        try:
            environment = self.cluster.client_environment()
            self.driver = Child("driver", command, environment, self.cluster.events, sink=sink)
        except OSError as error:
            raise Ending(START_FAILED, f"the driver could not start: {error}") from error
        code = self._wait_for_driver(float("inf"))
        assert code is not None
        return driver_ending(code, self.options.is_rayfold)

    def _wait_for_driver(self, seconds: float) -> int | None:
        """The driver's exit code, or None after so many seconds."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            event = self.cluster.turn(min(left, 60))
            if isinstance(event, Exited) and event.source == "driver":
                return event.code
        return None

    def _stay(self, address_file: Path) -> Ending:
        """A joined job: its nodes stay until their cluster ends."""
        address, gone = self.cluster.address, 0
        while gone < 3:  # a file system may fail to answer once
            if self.cluster.workers_ended() and not gone:
                why = (
                    "; ".join(self.cluster.roster.failed.values())
                    or f"see {self.cluster.folder.restart}"
                )
                return Ending(
                    HEAD_LOST, f"all nodes of this job left the cluster, which still runs: {why}"
                )
            self.cluster.turn(2)
            try:
                gone = 0 if read_cluster(address_file)["address"] == address else gone + 1
            except StartError:
                gone += 1
        return Ending(0, "the joined cluster ended")

    # --- ends -------------------------------------------------------------------------------------

    def _interrupted(self, name: str) -> tuple[Ending, bool]:
        """How it ends after a signal, and whether the job is to be requeued."""
        if name == "USR1":
            self.journal.say("SIGUSR1: the time limit is near")
            try:
                return self._deadline()
            except Interrupted as second:
                name = second.name
            except Ending as lost:
                return Ending(DEADLINE, f"stopped at the deadline; {lost.what}"), True
        self.journal.say(f"SIG{name}: stopping")
        self.cluster.hurry = True  # for SIGINT too
        seconds = slurm_part(self.cluster.kill_wait, DRIVER_PART)
        with suppress(Interrupted, Ending):
            if self.options.serve and self.cluster.ready:
                self.cluster.asking.stop_jobs(seconds)
            self._stop_driver(seconds)
        return Ending(TERMINATED, f"stopped by SIG{name}"), False

    def _deadline(self) -> tuple[Ending, bool]:
        bound = self._seconds_to_save()
        if self.options.join:
            self.cluster.asking.drain(bound)
            until = time.monotonic() + bound
            while not self.cluster.workers_ended() and time.monotonic() < until:
                self.cluster.turn(1)
            return Ending(0, "its nodes left the cluster before their time limit"), False
        if not self.cluster.ready:
            return self._too_late()
        self.cluster.asking.drain(bound)
        if self.options.serve:
            stopped = self.cluster.asking.stop_jobs(bound)
            if stopped is None:  # then what was last heard must do
                try:
                    stopped = bool(read_jobs(self.cluster.folder.jobs))
                except StartError:
                    stopped = True
            if stopped:
                return Ending(
                    DEADLINE, "served until its deadline, which stopped jobs that were running"
                ), True
            return Ending(0, "served until its deadline, no job was running"), False
        code = self._stop_driver(bound)
        if code == 0 or (self.options.is_rayfold and code in FINISHED):
            return driver_ending(code, self.options.is_rayfold), False
        return Ending(DEADLINE, "stopped at the deadline"), True

    def _too_late(self) -> tuple[Ending, bool]:
        """The deadline came before the driver was started: once that may be a slow day, twice it is
        the time limit.
        """
        what = "the deadline came before all nodes were up and the driver could start"
        again = self.cluster.folder.too_late.exists()
        self.cluster.folder.too_late.touch()
        if not again:
            return Ending(DEADLINE, f"{what}; it is tried once more"), True
        return Ending(
            DEADLINE, f"{what}, for the second time: raise --time, or lower --signal=B:USR1@SECONDS"
        ), False

    def _stop_driver(self, seconds: float) -> int | None:
        """Ask the driver to save its work and end; its exit code, or None if it did not in time."""
        if not self.driver or self.driver.ended():
            return self.driver.process.returncode if self.driver else None
        until = time.monotonic() + seconds
        # All of it: a shell, or a wrapper, would end by itself and tell nobody.
        teardown.send(teardown.session(self.driver.pid), signal.SIGTERM)
        code = self._wait_for_driver(seconds)
        while code is not None and teardown.session(self.driver.pid) and time.monotonic() < until:
            self.cluster.turn(0.2)
        self.journal.say(
            f"the driver ended with {code}"
            if code is not None
            else f"the driver did not end in {seconds:.0f} s"
        )
        return code

    def _seconds_to_save(self) -> float:
        end = self._end_time()
        return max(end - time.time() - RESERVE_SECONDS, 5.0) if end else DEADLINE_SECONDS

    def _end_time(self) -> float | None:
        """When the time limit is reached, in seconds since 1970, where SLURM says it, now or in the
        environment.
        """
        end = field(slurm.job(self.allocation.job_id), "EndTime") or os.environ.get(
            "SLURM_JOB_END_TIME"
        )
        return float(end) if end and end.isdigit() else None

    def _tear_down(self) -> None:
        cluster = self.cluster
        started = time.monotonic()
        nodes = slurm_part(cluster.kill_wait, NODES_PART) if cluster.hurry else NODES_SECONDS
        kept = cluster.pids()
        # What the driver left.
        teardown.end_descendants(kept, grace=0.0 if cluster.hurry else 2.0, bound=5.0)
        left = cluster.stop(nodes) + teardown.end_descendants((), grace=0.5, bound=5.0)
        text = f"left behind: {', '.join(left)}" if left else "nothing left behind"
        text += (
            f"; no word from {', '.join(cluster.roster.silent())}"
            if cluster.roster.silent()
            else ""
        )
        self.journal.say(f"torn down in {time.monotonic() - started:.1f} s, {text}")

    def _requeued(self, ending: Ending) -> Ending:
        """Requeue the job where that is allowed, and say which it is."""
        restart, limit = self.allocation.restart, self.options.max_requeues
        if restart >= limit:
            return Ending(
                DEADLINE, f"{ending.what}, not requeued: --max-requeues {limit} is reached; {AGAIN}"
            )
        until = (self._end_time() or time.time() + RESERVE_SECONDS) - SPARE_SECONDS
        code, said = slurm.insist("scontrol", "show", "job", self.allocation.job_id, until=until)
        if code == 0 and field(said, "JobState") not in ("RUNNING", "SUSPENDED"):
            return Ending(
                TERMINATED,
                f"{ending.what}, not requeued: SLURM has the job as {field(said, 'JobState')}",
            )
        if code == 0 and field(said, "Requeue") != "1":
            return Ending(
                DEADLINE,
                f"{ending.what}, not requeued: the job was submitted with --no-requeue; {AGAIN}",
            )
        if code == 0:
            code, said = slurm.insist("scontrol", "requeue", self.allocation.job_id, until=until)
        if code != 0:
            return Ending(
                DEADLINE, f"{ending.what}, not requeued: SLURM's controller said {said!r}; {AGAIN}"
            )
        return Ending(
            DEADLINE, f"{ending.what}, requeued as restart {restart + 1} of at most {limit}"
        )


def slurm_part(kill_wait: float, part: float) -> float:
    """A share of the seconds that SLURM leaves after SIGTERM."""
    return max(0.5, kill_wait * part)
