"""Where Ray keeps its sockets, and what of its words reaches the user."""

import os
from pathlib import Path

import pytest

from trainables import connection


def test_a_temporary_folder_too_long_for_sockets_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long-" * 18)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    assert connection._ray_folder() == "/tmp/ray"
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert connection._ray_folder() == "/var/tmp/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/dev/shm")
    assert connection._ray_folder() == "/dev/shm/ray"
    monkeypatch.setenv("RAY_TMPDIR", "/no/such/folder")
    assert connection._ray_folder() == "/var/tmp/ray"


def failing() -> None:
    with connection._standard_error() as written:
        os.write(2, b"InvalidAuthToken\n")
        assert written() == "InvalidAuthToken\n"
        raise KeyError


def test_what_ray_writes_is_passed_on_unless_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with connection._standard_error():
        os.write(2, b"from C++\n")
    assert capfd.readouterr().err == "from C++\n"
    with pytest.raises(KeyError):
        failing()
    assert capfd.readouterr().err == ""
