from pathlib import Path

from cluster.common import commands
from cluster.common.allocation import NodeResources
from cluster.node import ports

PORTS = {
    name: 20000 + offset for offset, name in enumerate((*ports.FIXED, "worker_min", "worker_max"))
}
STEP = {
    "PATH": "/usr/bin",
    "HOME": "/home/a",
    "OMP_NUM_THREADS": "16",
    "RAY_ADDRESS": "other:6379",
    "RAY_AUTH_TOKEN": "secret",
    "SLURM_JOB_ID": "7",
    "SLURMD_NODENAME": "n1",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_CPUS_PER_TASK": "2",
    "SRUN_CPUS_PER_TASK": "2",
    "SLURM_GPUS_PER_TASK": "1",
    "SLURM_MEM_PER_CPU": "500",
    "SLURM_EXPORT_ENV": "NONE",
    "PMIX_RANK": "0",
}


def ray_node(head: str | None) -> commands.RayNode:
    return commands.RayNode(
        "n1:7", "10.0.0.1", PORTS, NodeResources(4, 2, 1000, 300), Path("/tmp/rf7-a"), head
    )


def test_every_port_of_ray_is_said_exactly_once() -> None:
    command = commands.ray_start(ray_node(None))
    said = [word.partition("=")[2] for word in command if "port" in word.partition("=")[0]]
    assert sorted(said) == sorted(map(str, PORTS.values()))


def test_head_and_worker() -> None:
    head, worker = (
        commands.ray_start(ray_node(None)),
        commands.ray_start(ray_node("10.0.0.9:20000")),
    )
    assert "--head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "--head" not in worker
    assert "--address=10.0.0.9:20000" in worker
    # Ray would refuse.
    assert not [word for word in worker if word.startswith(("--port", "--include-dashboard"))]
    for command in (head, worker):
        assert {"--num-cpus=4", "--num-gpus=2", "--memory=700", "--object-store-memory=300"} <= set(
            command
        )


def test_rays_environment_knows_the_job_and_no_tasks() -> None:
    environment = commands.ray_environment(STEP, {"TMPDIR": "/tmp/rf7-a"})
    kept = {"HOME", "PATH", "TMPDIR", "SLURM_JOB_ID", "SLURMD_NODENAME"}
    assert set(environment) == kept
    assert environment["PATH"].endswith(":/usr/bin")


def test_the_step_takes_its_shape_from_the_command_line_alone() -> None:
    environment = commands.step_environment(STEP, {})
    slurm = {name for name in environment if name.startswith(("SLURM", "SRUN"))}
    assert slurm == {"SLURM_JOB_ID", "SLURMD_NODENAME", "SLURM_MEM_PER_CPU"}
    command = commands.workers(["n2", "n3"], ["python"])
    assert {
        "--overlap",
        "--no-kill",
        "--kill-on-bad-exit=0",
        "--cpu-bind=none",
        "--nodes=2",
    } <= set(command)
    assert {"--nodelist=n2,n3", "--ntasks=2"} <= set(command)


def test_the_driver_keeps_slurms_variables_and_gets_the_cluster() -> None:
    settings = commands.ray_settings(
        Path("/jobs/7/token"), {"no_proxy": "site"}, ["n1"], "10.0.0.1:20000"
    )
    environment = commands.driver_environment(
        STEP, settings, "10.0.0.1:20000", "http://127.0.0.1:20001"
    )
    assert environment["SLURM_NTASKS"] == "4"
    assert environment["RAY_ADDRESS"] == "10.0.0.1:20000"
    assert environment["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:20001"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/jobs/7/token"
    assert (
        environment["no_proxy"] == environment["NO_PROXY"] == "site,127.0.0.1,localhost,n1,10.0.0.1"
    )
    assert "RAY_AUTH_TOKEN" not in environment  # it would win over the path


def test_submit_lines_can_be_pasted() -> None:
    lines = commands.submit_lines(Path("/my jobs/7/token"), "n1", 20001)
    assert "RAY_AUTH_TOKEN_PATH='/my jobs/7/token'" in lines
    assert (
        "ssh -fN -o ExitOnForwardFailure=yes -L 20001:127.0.0.1:20001 n1 &&\n    ray job submit"
        in lines
    )
