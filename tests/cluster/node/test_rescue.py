import os
import time
from pathlib import Path

import pytest

from cluster.node import rescue
from cluster.node.rescue import Mirror, rescue_logs


def test_all_is_copied_where_it_fits(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "events").mkdir(parents=True)
    (logs / "raylet.out").write_text("raylet\n")
    (logs / "events/event_GCS.log").write_text("gcs\n")
    assert rescue_logs(logs, tmp_path / "rescued", 10) is None
    assert (tmp_path / "rescued/raylet.out").read_text() == "raylet\n"
    assert (tmp_path / "rescued/events/event_GCS.log").read_text() == "gcs\n"


def test_the_small_ones_and_the_ends_of_the_large_ones_are_kept(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "small").write_text("small")
    (logs / "large").write_text("a" * 5000 + "the end")
    note = rescue_logs(logs, tmp_path / "rescued", 10, limit=1000)
    assert (tmp_path / "rescued/small").read_text() == "small"
    kept = (tmp_path / "rescued/large").read_text()
    assert len(kept) == 995
    assert kept.endswith("aathe end")
    assert note == "Ray's logs: 1 of 2 files cut or left behind: large"


def test_no_time_left(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "raylet.out").write_text("raylet\n")
    assert (
        rescue_logs(logs, tmp_path / "rescued", -1)
        == "Ray's logs: 1 of 1 files cut or left behind: raylet.out"
    )
    assert rescue_logs(tmp_path / "none", tmp_path / "rescued", 10) is None


def test_what_has_changed_is_copied_again_and_nothing_else(tmp_path: Path) -> None:
    logs, kept = tmp_path / "logs", tmp_path / "rescued"
    logs.mkdir()
    for name in ("same", "longer", "other"):
        (logs / name).write_text("old")
    assert rescue_logs(logs, kept, 10) is None
    (logs / "longer").write_text("old and new")
    (logs / "other").write_text("new")
    os.utime(logs / "other", (0, time.time() + 1))
    (kept / "same").write_text("own")  # would be gone after a copy
    os.utime(kept / "same", (0, (logs / "same").stat().st_mtime))
    assert rescue_logs(logs, kept, 10) is None
    assert [(kept / name).read_text() for name in ("same", "longer", "other")] == [
        "own",
        "old and new",
        "new",
    ]


def test_logs_are_there_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "PERIOD", 0.05)
    logs, kept = tmp_path / "logs", tmp_path / "rescued"
    mirror = Mirror(logs, kept)  # before there are any
    logs.mkdir()
    (logs / "raylet.out").write_text("raylet\n")
    until = time.monotonic() + 20
    while not (kept / "raylet.out").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    (logs / "raylet.out").write_text("raylet\nthe end\n")
    assert mirror.finish(10) is None
    assert (kept / "raylet.out").read_text() == "raylet\nthe end\n"


def test_a_cause_is_what_ray_says_and_not_what_it_says_around_it(tmp_path: Path) -> None:
    assert rescue.cause(tmp_path) == ""
    (tmp_path / "raylet.out").write_text(
        "[2026-01-01 00:00:00,000 I 1 1] (raylet) main.cc:1: all is well\n[2026-01-01 00:00:01,000 "
        "C 1 1] (raylet) port.cc:2: An unexpected system state has occurred. You have likely "
        "discovered a bug in Ray. Please report this issue at https://example.org/issues and we "
        "will work with you. Timed out waiting for file /tmp/rf1/metrics_export_port\n[2026-01-01 "
        "00:00:02,000 E 1 1] (raylet) m.cc:3: Failed to connect to the metrics exporter agent\n"
    )
    assert rescue.cause(tmp_path).endswith(
        "Timed out waiting for file /tmp/rf1/metrics_export_port"
    )
    assert "a bug in Ray" not in rescue.cause(tmp_path)
