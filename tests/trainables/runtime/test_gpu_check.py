"""A GPU that is granted and not seen is an error with its remedy; one that is only a number of
Ray's is not.
"""

from pathlib import Path

import pytest

from trainables.runtime import gpu_check
from trainables.runtime.gpu_check import blind_reason


def test_nothing_is_asked_where_no_device_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "DEVICES", tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "nvidiactl").touch()
    assert blind_reason(["0"], always=False) is None
    assert blind_reason([], always=True) is None
    monkeypatch.setenv("SLURM_JOB_ID", "4711")  # where a container may hide the device
    assert "no NVIDIA device" in (blind_reason(["0"], always=False) or "")


def test_a_device_that_tensorflow_does_not_see_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "DEVICES", tmp_path)
    (tmp_path / "nvidia0").touch()
    reason = blind_reason(["0"], always=False)
    assert reason is not None
    for word in ("granted GPU 0", "the machine has nvidia0", "sees none", "tensorflow[and-cuda]"):
        assert word in reason
    assert "\n" not in reason
    (tmp_path / "nvidia0").unlink()
    assert "no NVIDIA device" in (blind_reason(["0", "1"], always=True) or "")
