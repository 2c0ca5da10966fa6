import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.common.allocation import StartError
from cluster.node import temp

MAKE = (
    "import sys; from cluster.node.temp import TempFolder; print(TempFolder('7', "
    "[sys.argv[1]]).path, flush=True)"
)


def short(tmp_path: Path) -> Path:
    """A short way to a test's own folder, as sockets need one."""
    link = Path(f"/tmp/rfs{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    return link


def test_private_short_and_gone_afterwards() -> None:
    folder = temp.TempFolder("4711", [None, "/tmp"])
    assert folder.path.name.startswith("rf4711-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(folder.ray)) + len(temp.LONGEST_SOCKET) <= 107
    (folder.path / "session").mkdir()
    assert folder.remove()
    assert not folder.path.exists()


def test_a_long_or_missing_parent_gives_way_to_the_next(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    folder = temp.TempFolder("1", [str(long), str(tmp_path / "none"), "/tmp"])
    assert folder.path.parent == Path("/tmp")
    assert not list(long.iterdir())
    assert folder.remove()


def test_a_parent_in_which_others_may_move_the_folder_gives_way(tmp_path: Path) -> None:
    parent = short(tmp_path)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "mine").mkdir()
    for below in ("open", "open/mine"):
        with pytest.raises(
            StartError, match=r"other users may move what lies in .*/open; set TMPDIR"
        ):
            temp.TempFolder("1", [str(parent / below)])
    parent.unlink()


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_it_stays_private_whatever_the_umask_and_whoever_opens_it(mask: int) -> None:
    before = os.umask(mask)
    try:
        folder = temp.TempFolder("1", ["/tmp"])
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder.path, folder.temporary)] == [
        0o700,
        0o700,
    ]
    assert folder.close_again() is None
    folder.path.chmod(0o707)
    assert "was opened to other users (mode 707)" in str(folder.close_again())
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.there()
    moved = folder.path.rename(folder.path.with_name(f"{folder.path.name}-moved"))
    folder.path.mkdir()
    assert not folder.there()
    assert folder.remove()
    shutil.rmtree(moved)


def test_no_parent_serves(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with pytest.raises(
        StartError, match=r"longer than 107 bytes.*No such file.*set TMPDIR to a short path"
    ):
        temp.TempFolder("1", [str(long), str(tmp_path / "none")])


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    parent = short(tmp_path)
    left = Path(
        subprocess.check_output([sys.executable, "-c", MAKE, str(parent)], text=True).strip()
    )
    (left / "r").mkdir(exist_ok=True)
    theirs = [parent / "rf-of-the-user", parent / "rf7-my_files", parent / "rf-results"]
    theirs[0].write_text("a file")
    for folder in theirs[1:]:
        (folder / "deep").mkdir(parents=True)
    assert left.is_dir()
    first = temp.TempFolder("8", [str(parent)])
    second = temp.TempFolder("9", [str(parent)])
    assert sorted(parent.iterdir()) == sorted([first.path, second.path, *theirs])
    assert first.remove()
    assert second.remove()
    parent.unlink()


def test_file_systems() -> None:
    assert temp.file_system("/proc/self") == "proc"
    assert temp.file_system("/nowhere/at/all") == temp.file_system("/")
