import json

from cluster.common.allocation import Allocation
from cluster.launcher.roster import Roster

JOB = Allocation("7", 0, ("n1", "n2"))


def said(event: str, host: str, **facts: object) -> str:
    return json.dumps({"event": event, "host": host, **facts})


def nodes(*names: str) -> str:
    return json.dumps([{"name": name, "address": "10.0.0.1"} for name in names])


def started(host: str) -> str:
    return said("started", host, address="10.0.0.1", cpus=2, gpus=1, temp="/tmp/rf7-a", ports={})


def test_from_start_to_end() -> None:
    roster = Roster(JOB, joins=False)
    assert roster.missing() == ["n1", "n2"]
    assert roster.hear("head", started("n1")) == [
        "n1: starts Ray, address=10.0.0.1 cpus=2 gpus=1 temp=/tmp/rf7-a"
    ]
    roster.hear("workers", started("n2"))
    assert roster.alive is None
    assert roster.hear("watcher", nodes("n1:7")) == ["n1 joined"]
    assert roster.missing() == ["n2"]
    assert roster.hear("watcher", nodes("n1:7", "n2:7", "n2:8")) == [
        "n2 joined",
        "n2 (job 8) joined",
    ]
    assert roster.missing() == []
    assert roster.hear("watcher", nodes("n1:7", "n2:8")) == [
        "n2 left the cluster; what ran there runs again elsewhere"
    ]
    roster.hear("head", said("ended", "n1", left=["raylet (12)"], note=None))
    assert roster.left() == ["n1: raylet (12)"]
    assert roster.silent() == ["n2"]


def test_a_start_that_failed_and_a_head_that_was_lost() -> None:
    roster = Roster(JOB, joins=False)
    roster.hear("workers", said("failed", "n2", reason="no free port"))
    assert roster.failed == {"n2": "no free port"}
    roster.hear("workers", said("lost", "n2", reason="its raylet ended"))
    assert roster.failed == {"n2": "its raylet ended"}
    assert roster.hear("workers", said("again", "n2", reason="start 2 of 3")) == [
        "n2: start 2 of 3"
    ]
    assert roster.head_lost == roster.head_again == ""
    roster.hear("head", said("again", "n1", reason="start 2 of 3"))
    assert roster.head_again == "start 2 of 3"
    roster.hear("head", said("started", "n1", address="10.0.0.1", cpus=1, gpus=0, temp="/tmp/x"))
    assert roster.head_again == ""
    assert roster.hear("head", said("opened", "n1", reason="it is closed again")) == [
        "n1: it is closed again"
    ]
    assert roster.head_lost == ""
    roster.hear("head", said("lost", "n1", reason="its gcs_server ended"))
    assert roster.head_lost == "its gcs_server ended"


def test_a_drained_node_leaves_without_alarm() -> None:
    roster = Roster(JOB, joins=False)
    roster.hear("watcher", nodes("n1:7", "n2:7"))
    roster.draining = True
    assert roster.hear("workers", said("lost", "n2", reason="its raylet ended")) == []
    assert roster.hear("watcher", nodes("n1:7")) == ["n2 left the cluster"]


def test_a_joined_job_minds_its_own_nodes() -> None:
    roster = Roster(Allocation("8", 0, ("n2",)), joins=True)
    assert roster.hear("watcher", nodes("n1:7", "n2:7")) == []
    assert roster.missing() == ["n2"]
    assert roster.hear("watcher", nodes("n1:7", "n2:7", "n2:8")) == ["n2 joined"]


def test_other_lines_are_passed_on_and_never_believed() -> None:
    roster = Roster(JOB, joins=False)
    assert roster.hear("workers", "srun: error: Node failure on n3") == [
        "workers: srun: error: Node failure on n3"
    ]
    assert roster.hear("drain", "[1, 2]") == ["drain: [1, 2]"]
    assert roster.hear("head", '{"a": 1}') == ['head: {"a": 1}']
    assert roster.hear("head", "  ") == []
