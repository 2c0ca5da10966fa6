"""Where Ray keeps its sockets: short, and closed to other users whatever they have prepared."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import ROOT
from trainables.core.errors import ResourceError
from trainables.runtime import private_folder
from trainables.runtime.private_folder import PrivateFolder

MAKE = """
import sys
from trainables.runtime.private_folder import PrivateFolder
dead, *pointed_to = [PrivateFolder([sys.argv[1]]) for _ in range(3)]
for folder in pointed_to:
    folder.logs.mkdir()
print(*[each.path for each in (dead, *pointed_to)])
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path."""
    with TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


def test_a_parent_that_does_not_serve_is_passed_over(place: Path) -> None:
    long, blank, file = place / ("long-" * 10), place / "a b", place / "file"
    unsafe, below, line = place / "open", place / "open" / "mine", place / "a\nb"
    for folder in (long, blank, unsafe, below, line):
        folder.mkdir()
    unsafe.chmod(0o777)
    file.touch()
    link = place / "link"
    link.symlink_to(below)
    for parent in (
        None,
        "",
        long,
        blank,
        line,
        file,
        unsafe,
        below,
        link,
        "/no/such/folder",
        place / "\udcff",
    ):
        folder = PrivateFolder([parent and str(parent), str(place)])
        assert folder.path.parent == place
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        folder.remove()
        assert not folder.path.exists()
    with pytest.raises(
        ResourceError,
        match=r"open': other users may move .*: longer than \d+ bytes.*set RAY_TMPDIR",
    ):
        PrivateFolder([str(unsafe), str(long)])


def test_a_folder_of_another_users_is_no_place_for_ours(place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    theirs = place / "theirs"
    theirs.mkdir(0o755)
    os.chown(theirs, 4242, 4242)
    folder = PrivateFolder([str(theirs), str(place)])
    assert folder.path.parent == place
    folder.remove()


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_it_is_private_whatever_the_umask(place: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = PrivateFolder([str(place)])
        assert [stat.S_IMODE(each.stat().st_mode) for each in (folder.path, folder.temporary)] == [
            0o700,
            0o700,
        ]
        folder.remove()
    finally:
        os.umask(before)


def test_the_longest_parent_leaves_room_for_every_socket(place: Path) -> None:
    limit = 107 - len(
        "/rf-12345678/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
    )
    longest = place / ("x" * (limit - len(os.fsencode(place)) - 1))
    longest.mkdir()
    folder = PrivateFolder([str(longest)])
    assert len(os.fsencode(folder.ray)) + len(private_folder._LONGEST_SOCKET) == 107
    folder.remove()


def test_what_dead_runs_left_goes_and_what_living_ones_have_stays(place: Path) -> None:
    foreign = place / "rf-of-others"
    foreign.symlink_to("/")
    first = PrivateFolder([str(place)])
    line = [sys.executable, "-c", MAKE, str(place)]
    dead, logs, old_logs = map(Path, subprocess.check_output(line, cwd=ROOT, text=True).split())
    os.utime(old_logs, (0, time.time() - 90000))
    second = PrivateFolder([str(place)])
    assert {*place.iterdir()} == {foreign, first.path, second.path, logs}
    assert not dead.exists()
    first.remove()
    second.remove()


def test_logs_that_a_message_points_to_stay(place: Path) -> None:
    folder = PrivateFolder([str(place)])
    session = folder.ray / "session_1"
    (session / "logs").mkdir(parents=True)
    (session / "logs" / "gcs_server.out").write_text("why")
    (folder.ray / "session_latest").symlink_to(session)
    folder.remove(keep_logs=True)
    assert (folder.logs / "gcs_server.out").read_text() == "why"
    assert [*folder.path.iterdir()] == [folder.logs]


def test_one_that_somebody_opens_is_closed_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(private_folder, "_LOOK", 0.01)
    folder = PrivateFolder([str(place)])
    with folder.used():
        assert os.environ["TMPDIR"] == str(folder.temporary)
        folder.path.chmod(0o755)
        until = time.monotonic() + 5
        while stat.S_IMODE(folder.path.stat().st_mode) != 0o700:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert "was opened to other users (mode 755) and is closed again" in capsys.readouterr().err
    assert os.environ.get("TMPDIR") != str(folder.temporary)
    folder.remove()


def test_one_that_is_moved_away_stops_the_run(place: Path) -> None:
    code = f"""
import sys, time
from trainables.runtime import private_folder
private_folder._LOOK = 0.01
folder = private_folder.PrivateFolder([{str(place)!r}])
with folder.used():
    folder.path.rename({str(place / "elsewhere")!r})
    time.sleep(20)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -15
    assert "was moved or replaced: stopping" in done.stderr
