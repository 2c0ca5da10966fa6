"""Where Ray keeps its sockets."""

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
