"""Whether the Ray cluster that a command works on still lives: the head's GCS, and the raylet of this machine.

Ray itself waits for ever for a lost raylet, and ends its process a minute after the GCS was lost, with exit code 1. So
a thread looks at both and ends the command within 30 seconds of either loss. Nodes other than these may come and go.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

import psutil

from trainables import lifeline
from trainables.address import is_ray

_PERIOD = 1.0  # seconds between two looks
_PATIENCE = 20.0  # seconds without an answer, counted in looks: a machine that slept has not lost its cluster
_ANSWER = 3.0  # seconds for one answer
_DAEMONS = {"gcs_server": "its GCS", "raylet": "its raylet on this machine"}

_current: "Watch | None" = None


class Watch:
    """`died()` says what has ended for good, `mute()` what gives no answer at the moment; both are empty when well."""

    def __init__(self, died: Callable[[], str], mute: Callable[[], str]) -> None:
        self._died, self._mute = died, mute
        self._over, self._one = Event(), Lock()
        self._unanswered = 0.0
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
            mute = self._mute()
            self._unanswered = self._unanswered + max(_PERIOD, _ANSWER) if mute else 0.0
            if self._unanswered >= _PATIENCE:
                _lose(f"{mute} gives no answer")

    def _run(self) -> None:
        while not self._over.wait(_PERIOD):
            self.look()


@contextmanager
def watched(local: bool) -> Iterator[None]:
    """Around what needs the cluster that this process is connected to; `local`: it is this process's own.

    Nothing is watched outside of a command of ours, where nobody could end what hangs.
    """
    global _current
    lifeline.listen()
    if not lifeline.guarded():
        yield
        return
    _current = Watch(*(_own() if local else _joined()))
    _current.start()
    try:
        yield
    except Exception:
        look()  # the error may come of the loss, and would hide it
        raise
    finally:
        _current.stop()
        _current = None


def look() -> None:
    """See at once whether the cluster is lost, and end the command if so; for when something else went wrong."""
    if _current is not None:
        _current.look()


def _lose(what: str) -> None:
    logging.getLogger("rayfold").info(f"the Ray cluster was lost: {what}")
    lifeline.lose(what)


def _own() -> tuple[Callable[[], str], Callable[[], str]]:
    """Our own daemons are children of this process."""
    daemons = {_DAEMONS[each.name()]: each for each in psutil.Process().children() if each.name() in _DAEMONS}

    def found(*states: str) -> str:
        return " and ".join(name for name, process in daemons.items() if _state(process) in states)

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
    """Somebody else's daemons are asked by their ports; a GCS that is started again may answer later."""
    import ray

    context = ray.get_runtime_context()
    own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    addresses = {
        "gcs_server": context.gcs_address,
        "raylet": f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}",
    }

    def mute() -> str:
        return " and ".join(_DAEMONS[name] for name, place in addresses.items() if not is_ray(place, _ANSWER))

    return lambda: "", mute
