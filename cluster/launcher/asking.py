"""What the launcher asks of Ray, by `cluster.launcher.gcs`: which nodes live, to drain some, and
about submitted jobs.
"""

import signal
import time
from typing import TYPE_CHECKING, Any

from cluster.common import commands
from cluster.common.endings import START_FAILED, Ending
from cluster.common.events import Exited

if TYPE_CHECKING:
    from cluster.launcher.bringup import Cluster

_WATCHERS = 3  # that are started at most
_SPARE_SECONDS = 10.0  # of the time to stop jobs, for the import of Ray


class Asking:
    """The clients of a cluster that are not its driver."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self._watchers = 0  # that have been started

    def watch(self) -> None:
        """Follow which nodes are in the cluster."""
        self._watchers += 1
        self._start("watcher", "nodes", self.cluster.address)

    def drain(self, seconds: float) -> None:
        """Tell Ray in the background that nodes end in so many seconds: of a joined job its own,
        else all workers.
        """
        self.cluster.roster.draining = True
        if self.cluster.roster.alive:
            job = self.cluster.allocation
            names = [job.node_name(host) for host in job.hosts] if self.cluster.options.join else []
            self._start("drain", "drain", self.cluster.address, f"{seconds:.0f}", *names)

    def keep_jobs(self) -> None:
        """Submit again what had not ended with the last start, and note from now on what has
        not.
        """
        jobs = self.cluster.folder.jobs
        if not self.cluster.options.max_requeues:
            jobs.unlink(missing_ok=True)
        self._start("submitted", "keep-jobs", self.cluster.dashboard(), str(jobs))

    def stop_jobs(self, seconds: float) -> bool | None:
        """Have the submitted jobs save and end; True if there were any, None if that cannot be
        known.
        """
        if keeper := self.cluster.children.pop("submitted", None):
            keeper.signal(signal.SIGKILL)  # their end is not to be noted
        lines: list[bytes] = []
        code, until = None, time.monotonic() + seconds
        bound = max(seconds - _SPARE_SECONDS, 1.0)
        jobs = str(self.cluster.folder.jobs)
        self._start(
            "jobs", "stop-jobs", self.cluster.dashboard(), f"{bound:.0f}", jobs, sink=lines.append
        )
        while code is None and time.monotonic() < until:
            event = self.cluster.turn(0.5)
            if isinstance(event, Exited) and event.source == "jobs":
                code = event.code
        self.cluster.children.pop("jobs").signal(signal.SIGKILL)
        if found := b"".join(lines).decode(errors="replace").split():
            left = "" if code == 0 else ", not all of them ended"
            self.cluster.journal.say(f"stopped submitted jobs: {' '.join(found)}{left}")
        return bool(found) if found or code == 0 else None

    def missed(self, name: str) -> None:
        """Replace one of these that has ended by itself, or say what is not known any more without
        it.
        """
        if self.cluster.stopping or name not in self.cluster.children:
            return
        log = self.cluster.folder.restart / "gcs.log"
        if name == "watcher" and self._watchers < _WATCHERS:
            self.cluster.over.discard(name)
            self.watch()
        elif name == "watcher" and not self.cluster.ready:
            raise Ending(
                START_FAILED, f"what asks Ray for its nodes ended {_WATCHERS} times: see {log}"
            )
        elif name == "submitted":
            self.cluster.journal.say(
                f"submitted jobs are not noted any more, nor taken up after a requeue: see {log}"
            )

    def _start(self, name: str, *arguments: str, **more: Any) -> None:
        with (self.cluster.folder.restart / "gcs.log").open("ab") as log:
            environment = self.cluster.client_environment()
            self.cluster.start(name, commands.gcs(*arguments), environment, stderr=log, **more)
