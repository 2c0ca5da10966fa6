"""Who has started, joined, left: what the nodes and the GCS say, line by line."""

import json
from typing import Any

from cluster.common.allocation import Allocation


class Roster:
    """The nodes of a cluster as far as they have been heard of; knows no processes."""

    def __init__(self, allocation: Allocation, joins: bool) -> None:
        self.allocation, self.joins = allocation, joins
        self.started: dict[str, dict[str, Any]] = {}  # by host: what it was given
        self.ended: dict[str, dict[str, Any]] = {}  # by host: what it left behind
        self.alive: set[str] | None = None  # names of Ray nodes; None before the GCS answers
        self.failed: dict[str, str] = {}  # by host: why it will not come
        self.head_lost = ""  # why the head is no more
        self.again: dict[str, str] = {}  # by host: why it was started once more
        self._anew = False
        self.head_again = ""  # why it is started once more
        self.head_is_new = False  # it has been, and the workers do not know
        self.draining = False

    def hear(self, source: str, text: str) -> list[str]:
        """Take in a line of a child; returns what to say about it."""
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        if source == "watcher" and isinstance(said, list):
            return self._count({node["name"] for node in said})
        if isinstance(said, dict) and "event" in said and "host" in said:
            return self._event(source, said)
        noise = not text.strip() or text.endswith("lacks support for cpu binding")
        return [] if noise else [f"{source}: {text}"]

    def _event(self, source: str, said: dict[str, Any]) -> list[str]:
        host = said["host"]
        if said["event"] == "started":
            self.started[host] = said
            if source == "head":
                self.head_is_new, self.head_again = bool(self.head_again), ""
            facts = " ".join(f"{key}={said[key]}" for key in ("address", "cpus", "gpus", "temp"))
            return [f"{host}: starts Ray, {facts}"]
        if said["event"] == "ended":
            self.ended[host] = said
            return [f"{host}: {said['note']}"] if said["note"] else []
        if said["event"] == "opened":
            return [f"{host}: {said['reason']}"]
        if said["event"] == "again":
            self.again[host], self._anew = said["reason"], True
            if source == "head":
                self.head_again = said["reason"]
        elif said["event"] == "failed":
            self.failed[host] = said["reason"]
        elif source == "head":
            self.head_lost = said["reason"]
        elif self.draining:
            return []  # as told
        else:
            self.failed[host] = said["reason"]
        return [f"{host}: {said['reason']}"]

    def starts_anew(self) -> bool:
        """Whether a node has been started once more since the last time that this was asked."""
        anew, self._anew = self._anew, False
        return anew

    def _count(self, alive: set[str]) -> list[str]:
        before, self.alive = self.alive or set(), alive
        after = "" if self.draining else "; what ran there runs again elsewhere"
        came = [
            f"{self._shown(name)} joined" for name in sorted(alive - before) if self._concerns(name)
        ]
        went = [
            f"{self._shown(name)} left the cluster{after}"
            for name in sorted(before - alive)
            if self._concerns(name)
        ]
        return came + went

    def _concerns(self, name: str) -> bool:
        return not self.joins or name.endswith(f":{self.allocation.job_id}")

    def _shown(self, name: str) -> str:
        host, _, job = name.partition(":")
        return host if job == self.allocation.job_id else f"{host} (job {job})"

    def missing(self) -> list[str]:
        """The hosts of this job that are not in the cluster."""
        return [
            host
            for host in self.allocation.hosts
            if self.allocation.node_name(host) not in (self.alive or ())
        ]

    def silent(self) -> list[str]:
        """The hosts that started but did not report their end, for they were lost."""
        return [host for host in self.started if host not in self.ended]

    def left(self) -> list[str]:
        """What is left on the nodes, by their own account."""
        return [f"{host}: {what}" for host, said in self.ended.items() for what in said["left"]]
