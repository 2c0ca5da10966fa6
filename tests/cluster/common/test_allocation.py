from pathlib import Path

import pytest

from cluster.common import allocation
from cluster.common.allocation import MIB, StartError

NODE = """NodeName=n1 Arch=x86_64 CoresPerSocket=1
   CPUAlloc=0 CPUEfctv=4 CPUTot=4 CPULoad=0.63
   Gres=gpu:fake:2
   NodeAddr=10.78.0.1 NodeHostName=n1 Version=22.05.8
   RealMemory=6000 AllocMem=0 FreeMem=18811 Sockets=4 Boards=1"""

JOB = """JobId=123 JobName=rayfold
   UserId=alice(2001) GroupId=alice(2001) MCS_label=N/A
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   StartTime=1795450000 EndTime=1795453600 Deadline=N/A
   Command=/home/alice/a b/cluster/ray_slurm.sh run x.yaml"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", ["n1"]),
        ("n1,login", ["n1", "login"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("gpu-[08-10]x,cpu1", ["gpu-08x", "gpu-09x", "gpu-10x", "cpu1"]),
        ("r[1-2]n[1,3]", ["r1n1", "r1n3", "r2n1", "r2n3"]),
        ("node[0998-1001]", ["node0998", "node0999", "node1000", "node1001"]),
    ],
)
def test_host_lists(text: str, expected: list[str]) -> None:
    assert allocation.hostnames(text) == expected


def test_allocation() -> None:
    found = allocation.read_allocation(
        {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_RESTART_COUNT": "3"}
    )
    assert (found.job_id, found.restart, found.hosts) == ("12", 3, ("n1", "n2"))
    assert found.node_name("n2") == "n2:12"
    assert (
        allocation.read_allocation({"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n1"}).restart == 0
    )
    with pytest.raises(StartError, match="SLURM_JOB_ID is not set: start through sbatch"):
        allocation.read_allocation({})


def test_fields_of_scontrol() -> None:
    assert allocation.field(NODE, "NodeAddr") == "10.78.0.1"
    assert allocation.field(JOB, "Requeue") == "1"
    assert allocation.field(JOB, "EndTime") == "1795453600"
    assert allocation.field(JOB, "Deadline") is None  # N/A
    assert allocation.field("KillWait                = 30 sec", "KillWait") == "30"
    assert allocation.field("UnkillableKillWait = 1\nKillWait = 3 sec", "KillWait") == "3"


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({}, 0),
        ({"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"SLURM_GPUS_ON_NODE": "2"}, 2),
        ({"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0"}, 1),  # Ray would refuse 4
        ({"CUDA_VISIBLE_DEVICES": "GPU-8c1a,MIG-77,3"}, 3),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, 1),
        ({"SLURM_GPUS_ON_NODE": "", "CUDA_VISIBLE_DEVICES": "0,2"}, 2),
    ],
)
def test_gpus(environ: dict[str, str], gpus: int) -> None:
    assert allocation.gpus(environ) == gpus


def test_cpus_are_slurms_or_nothing() -> None:
    assert allocation.cpus({"SLURM_CPUS_ON_NODE": "6"}) == 6
    with pytest.raises(StartError, match="SLURM_CPUS_ON_NODE must be a number, got ''"):
        allocation.cpus({})


@pytest.mark.parametrize(
    ("environ", "requested"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "6000"}, 6000 * MIB),
        ({"SLURM_MEM_PER_NODE": "2G"}, 2048 * MIB),
        ({"SLURM_MEM_PER_NODE": "0"}, 0),
        ({"SLURM_MEM_PER_CPU": "500"}, 4 * 500 * MIB),
        ({"SLURM_MEM_PER_GPU": "8000"}, 2 * 8000 * MIB),
    ],
)
def test_requested_memory(environ: dict[str, str], requested: int | None) -> None:
    assert allocation.requested_memory(environ, cpus=4, gpus=2) == requested


def test_memory_is_the_jobs_never_the_machines() -> None:
    machine = 100_000
    assert allocation.memory(4000, 3000, machine, 0.5) == 3000
    assert allocation.memory(4000, None, machine, 0.5) == 4000
    assert allocation.memory(None, 3000, machine, 0.5) == 3000
    assert allocation.memory(0, None, machine, 0.5) == machine  # --mem=0: all of the node
    assert allocation.memory(0, 3000, machine, 0.5) == 3000
    # SLURM manages no memory: the CPUs' share.
    assert allocation.memory(None, None, machine, 0.25) == 25_000


def test_object_store_fits_the_job_and_shm() -> None:
    assert allocation.object_store(1000 * MIB, 10_000 * MIB) == 300 * MIB
    assert allocation.object_store(1000 * MIB, 200 * MIB) == 160 * MIB
    assert allocation.object_store(100 * MIB, 1 * MIB) == 80 * MIB  # Ray's least


def test_cgroup_v1_limit_of_the_job_not_of_the_root(tmp_path: Path) -> None:
    job = tmp_path / "memory/slurm/uid_2001/job_7"
    (job / "step_batch").mkdir(parents=True)
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (job / "memory.limit_in_bytes").write_text("6291456000\n")
    (job / "step_batch/memory.limit_in_bytes").write_text("9223372036854771712\n")
    membership = "11:cpu:/other\n9:memory:/slurm/uid_2001/job_7/step_batch\n0::/unified\n"
    assert allocation.cgroup_limit(membership, tmp_path) == 6291456000


def test_cgroup_v2_limit_is_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    step = tmp_path / "system.slice/job_7/step_0"
    step.mkdir(parents=True)
    (step / "memory.max").write_text("max\n")
    (step.parent / "memory.max").write_text("2000\n")
    (step.parent.parent / "memory.max").write_text("5000\n")
    assert allocation.cgroup_limit("0::/system.slice/job_7/step_0\n", tmp_path) == 2000
    assert allocation.cgroup_limit("0::/nowhere\n", tmp_path) is None


@pytest.mark.parametrize(
    ("asked", "without_first", "said"),
    [
        ("3", True, "1"),
        ("3", False, "3"),
        ("a100:3", True, "a100:1"),
        ("", True, None),
        ("a100:2,v100:1", True, None),
    ],
)
def test_gpus_of_the_worker_nodes(asked: str, without_first: bool, said: str | None) -> None:
    environ = {"SLURM_GPUS": asked, "SLURM_GPUS_ON_NODE": "2"}
    assert allocation.worker_gpus(environ, {}, [], without_first) == said


DETAILS = """JobId=7 JobName=x
   Nodes=n1 CPU_IDs=0-7 Mem=10000 GRES=gpu:fake:2(IDX:0-1)
   Nodes=n[2-3] CPU_IDs=0-7 Mem=10000 GRES=gpu:a:1(IDX:0),gpu:b:3(IDX:1-3),shard:4
   Nodes=n4 CPU_IDs=0 Mem=0 GRES=
   MinCPUsNode=1 MinMemoryCPU=1000M MinTmpDiskNode=0
"""


def test_gpus_that_nobody_asked_for_are_taken_as_slurm_granted_them() -> None:
    granted = allocation.gpus_by_host(DETAILS)
    assert granted == {"n1": 2, "n2": 4, "n3": 4, "n4": 0}
    assert allocation.worker_gpus({}, granted, ["n2", "n3"], True) == "8"
    assert allocation.worker_gpus({}, granted, ["n4"], True) is None
    assert allocation.worker_gpus({"SLURM_GPUS": "a:6"}, granted, ["n2"], True) == "a:4"


def test_a_task_of_an_array_fills_in_its_command_and_names_its_folder() -> None:
    environ = {"SLURM_JOB_ID": "13", "SLURM_JOB_NODELIST": "n1", "SLURM_ARRAY_JOB_ID": "11"}
    task = allocation.read_allocation({**environ, "SLURM_ARRAY_TASK_ID": "2"})
    assert task.label == "11_2"
    assert [task.filled_in(word) for word in ("arr%a.yaml", "%j")] == ["arr2.yaml", "%j"]
    assert allocation.read_allocation(environ).label == "13"
    assert allocation.read_allocation(environ).filled_in("arr%a.yaml") == "arr%a.yaml"


def test_a_jobs_name_is_no_field() -> None:
    text = (
        "JobId=7 JobName=x Requeue=0 JobState=FAILED\n   JobState=RUNNING Reason=None\n   "
        "Requeue=1 Restarts=0\n"
    )
    text += "   Comment=Requeue=0\n   StdOut=/a folder/slurm-7.out\n"
    assert (allocation.field(text, "Requeue"), allocation.field(text, "JobState")) == (
        "1",
        "RUNNING",
    )
    assert allocation.line_field(text, "StdOut") == "/a folder/slurm-7.out"
