from pathlib import Path

from cluster.rescue import rescue_logs


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
    assert rescue_logs(logs, tmp_path / "rescued", -1) == "Ray's logs: 1 of 1 files cut or left behind: raylet.out"
    assert rescue_logs(tmp_path / "none", tmp_path / "rescued", 10) is None
