"""Whether the Ray cluster that a command works on still lives: the head's GCS, and the raylet of
this machine.

Ray itself waits for ever for a lost raylet, and ends its process a minute after the GCS was lost,
with exit code 1. So a thread looks at both, and ends the command within a minute of either loss,
while Ray starts within three. Nodes other than these may come and go.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread

import psutil

from trainables.runtime import lifeline
from trainables.runtime.address import is_ray

_PERIOD = 1.0  # seconds between two looks
_PATIENCE = 20.0  # seconds without an answer
_PATIENCE_AT_START = 120.0  # Ray's own is 90, and then it can be started once more
_ANSWER = 3.0  # seconds for one answer
# seconds between two looks that count at most: a machine that slept has not lost its cluster
_LOOK = 8.0
_DAEMONS = {"gcs_server": "its GCS", "raylet": "its raylet on this machine"}

_current: "Watch | None" = None


class Watch:
    """`died()` says what has ended for good, `mute()` what gives no answer at the moment; both are
    empty when well.
    """

    def __init__(
        self, died: Callable[[], str], mute: Callable[[], str], patience: float | None = None
    ) -> None:
        self._died, self._mute = died, mute
        self._patience = _PATIENCE if patience is None else patience
        self._over, self._one = Event(), Lock()
        self._unanswered, self._looked = 0.0, time.monotonic()
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        with self._one:  # no look is under way that could still find the end of what is ended now
            pass

    def look(self) -> None:
        """Look once; does not return where the cluster is lost."""
        with self._one:
            if self._over.is_set():
                return
            if died := self._died():
                _lose(f"{died} died")
            mute, before, self._looked = self._mute(), self._looked, time.monotonic()
            self._unanswered = self._unanswered + min(self._looked - before, _LOOK) if mute else 0.0
            if self._unanswered >= self._patience:
                _lose(f"no answer from {mute}")

    def _run(self) -> None:
        while not self._over.wait(_PERIOD):
            self.look()


@contextmanager
def starting() -> Iterator[None]:
    """Around the start of a cluster of our own: a daemon that dies meanwhile gives no answer.

    On a busy machine daemons die at times; Ray notices after a minute or so and can be started once
    more.
    """
    died, mute = _own()
    with _watching(Watch(_nothing, lambda: died() or mute(), _PATIENCE_AT_START)):
        yield


@contextmanager
def joining(address: str) -> Iterator[None]:
    """Around the connection to somebody else's cluster, whose GCS is at `address`."""
    with _watching(Watch(_nothing, lambda: _silent({"gcs_server": address}))):
        yield


@contextmanager
def watched(local: bool, end: Callable[[], object]) -> Iterator[None]:
    """Around what needs the cluster that this process is connected to; `local`: it is this
    process's own.

    `end` ends the connection: Ray waits for that as long as a daemon hangs, but one that has died
    is no loss then.
    """
    lifeline.listen()
    died = mute = _nothing
    try:
        died, mute = _own() if local else _joined()
        with _watching(Watch(died, mute)):
            try:
                yield
            except Exception:
                look()  # the error may come of the loss, and would hide it
                raise
    finally:
        with _watching(Watch(_nothing, mute)):
            end()


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    """Nothing is watched outside of a command of ours, where nobody could end what hangs."""
    global _current
    if not lifeline.guarded():
        yield
        return
    _current = watch
    watch.start()
    lifeline.connected(True)
    try:
        yield
    finally:
        lifeline.connected(False)
        watch.stop()
        _current = None


def look() -> None:
    """See at once whether the cluster is lost, and end the command if so; for when something else
    went wrong.
    """
    if _current is not None:
        _current.look()


def _nothing() -> str:
    return ""


def _lose(what: str) -> None:
    logging.getLogger("rayfold").info(f"the Ray cluster was lost: {what}")
    lifeline.lose(what)


def _own() -> tuple[Callable[[], str], Callable[[], str]]:
    """Our own daemons are children of this process; those that have been seen are not forgotten."""
    daemons: dict[psutil.Process, str] = {}

    def found(*states: str) -> str:
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if child not in daemons and child.name() in _DAEMONS:
                    daemons[child] = _DAEMONS[child.name()]
        return " and ".join(name for process, name in daemons.items() if _state(process) in states)

    return (
        lambda: found(psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD),
        lambda: found(psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP),
    )


def _state(process: psutil.Process) -> str:
    try:
        return process.status() if process.is_running() else psutil.STATUS_DEAD
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def _joined() -> tuple[Callable[[], str], Callable[[], str]]:
    """Somebody else's daemons are asked by their ports; a GCS that is started again may answer
    later.
    """
    import ray

    context = ray.get_runtime_context()
    own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    addresses = {
        "gcs_server": context.gcs_address,
        "raylet": f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}",
    }

    return _nothing, lambda: _silent(addresses)


def _silent(addresses: dict[str, str]) -> str:
    """Which of these daemons, by their addresses, do not answer."""
    return " and ".join(
        _DAEMONS[name] for name, place in addresses.items() if not is_ray(place, _ANSWER)
    )
