import signal
import subprocess
import sys
import time

import pytest

from cluster.node import teardown

# A subreaper whose child starts a daemon, by fork, setsid, fork, that ignores SIGTERM; then it ends
# all it has.
ESCAPE = """
import os, signal, subprocess, sys, time
from cluster.node import teardown
teardown.become_subreaper()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
kept = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
while len(found := teardown.descendants(os.getpid(), without={{kept.pid}})) != 1:
    time.sleep(0.02)
print(found[0], flush=True)
began = time.monotonic()
left = teardown.end_descendants({{kept.pid}}, grace={grace}, bound=10)
print(left, kept.poll(), round(time.monotonic() - began, 1), flush=True)
kept.kill()
"""


@pytest.mark.parametrize("grace", [0.0, 0.5])
def test_a_daemon_cannot_get_away(grace: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ESCAPE.format(grace=grace)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    daemon, result = done.stdout.splitlines()
    assert result.startswith("[] None ")  # nothing left, the kept one lives
    assert float(result.split()[-1]) >= grace
    assert not teardown.is_alive(int(daemon))


def test_a_zombie_is_not_alive_and_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        until = time.monotonic() + 20
        while teardown.is_alive(child.pid) and time.monotonic() < until:
            time.sleep(0.02)
        assert not teardown.is_alive(child.pid)
        teardown.reap(keep={child.pid})
        assert child.wait() == 0  # it was left to its Popen


def test_name_of_a_process_and_of_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        until = time.monotonic() + 20
        while teardown.name(child.pid) != "sleep" and time.monotonic() < until:
            time.sleep(0.02)
        assert teardown.name(child.pid) == "sleep"
        child.kill()
    assert teardown.name(child.pid) == ""


def test_a_session_is_all_that_a_shell_started() -> None:
    with subprocess.Popen(
        ["bash", "-c", "sleep 60 & sleep 60; true"], start_new_session=True
    ) as child:
        until = time.monotonic() + 20
        names: list[str] = []
        while names != ["bash", "sleep", "sleep"] and time.monotonic() < until:
            time.sleep(0.02)
            found = teardown.session(child.pid)
            names = sorted(teardown.name(pid) for pid in found)
        assert names == ["bash", "sleep", "sleep"]
        assert child.pid in found
        teardown.send(found, signal.SIGTERM)
        while teardown.session(child.pid) and time.monotonic() < until:
            time.sleep(0.02)
        assert teardown.session(child.pid) == []
