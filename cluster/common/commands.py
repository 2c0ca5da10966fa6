"""The exact command lines and environments of everything that is started: pure functions."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.common.allocation import NodeResources, worker_gpus

# What stands before every command of nodes, driver and clients, such as `apptainer exec --nv
# image.sif`. The launcher itself runs outside, where SLURM's commands are.
WRAPPER = tuple(shlex.split(os.environ.get("RAYFOLD_WRAPPER", "")))
EXECUTABLE = (*WRAPPER, "python3" if WRAPPER else sys.executable)
# -P: a folder of the user's that happens to be called `cluster` must not shadow this package.
PYTHON = (*EXECUTABLE, "-P", "-u")
RAY_START = ("-P", "-m", "ray.scripts.scripts", "start")

# What still names the job inside Ray's processes. The rest describes SLURM's tasks, which Ray's
# workers are not: MPI, Lightning and others would take every worker for rank 0 of a job that does
# not exist.
SLURM_KEPT = frozenset(
    {
        "SLURM_CONF",
        "SLURM_CLUSTER_NAME",
        "SLURM_JOB_ID",
        "SLURM_JOB_NAME",
        "SLURM_JOB_USER",
        "SLURM_JOB_NODELIST",
        "SLURM_JOB_NUM_NODES",
        "SLURM_SUBMIT_DIR",
        "SLURM_RESTART_COUNT",
        "SLURMD_NODENAME",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_ARRAY_TASK_ID",
    }
)
SLURM_PREFIXES = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "PMI", "OMPI_")

# srun takes these for options. What the job asked for per task or in all need not fit a step of one
# task on each of some of its nodes; without them the step gets all that the job has there. The
# memory per node or CPU holds as it is.
STEP_KEPT = SLURM_KEPT | {
    "SLURM_JOBID",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
}


@dataclass(frozen=True)
class RayNode:
    """All that `ray start` is told; `head` is the address of the head's GCS, None for the head
    itself.
    """

    name: str
    address: str
    ports: Mapping[str, int]
    resources: NodeResources
    temp: Path
    head: str | None


def ray_start(node: RayNode, python: Sequence[str] = (sys.executable,)) -> list[str]:
    """The command of one Ray node, with every port and resource said."""
    ports, resources = node.ports, node.resources
    head = [
        "--head",
        f"--port={ports['gcs']}",
        f"--ray-client-server-port={ports['client_server']}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ports['dashboard']}",
        "--include-dashboard=true",
    ]
    return [
        *python,
        *RAY_START,
        "--block",
        *([f"--address={node.head}"] if node.head else head),
        f"--node-name={node.name}",
        f"--node-ip-address={node.address}",
        f"--temp-dir={node.temp}",
        f"--num-cpus={resources.cpus}",
        f"--num-gpus={resources.gpus}",
        f"--memory={resources.memory - resources.object_store}",
        f"--object-store-memory={resources.object_store}",
        f"--node-manager-port={ports['node_manager']}",
        f"--object-manager-port={ports['object_manager']}",
        f"--dashboard-agent-listen-port={ports['agent_http']}",
        f"--dashboard-agent-grpc-port={ports['agent_grpc']}",
        f"--runtime-env-agent-port={ports['runtime_env_agent']}",
        f"--min-worker-port={ports['worker_min']}",
        f"--max-worker-port={ports['worker_max']}",
        "--disable-usage-stats",
        "--log-color=false",
    ]


def ray_settings(
    token: Path, environ: Mapping[str, str], hosts: Sequence[str], address: str = ""
) -> dict[str, str]:
    """What every process of the cluster and every client has in its environment; the token itself
    only in its file.

    No proxy stands between them: libraries ask for `address`, the head's, and the nodes' names
    without one.
    """
    own = ["127.0.0.1", "localhost", *hosts, *filter(None, [address.rpartition(":")[0]])]
    said = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    direct = ",".join(
        [*filter(None, [said]), *(name for name in own if name not in said.split(","))]
    )
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Whoever is stopped saves first, a submitted job and a driver whose cells end their epoch:
        # the launcher, and not Ray or rayfold by itself, sets the bound.
        "RAY_JOB_STOP_WAIT_TIME_S": "3600",
        "RAYFOLD_STOP_SECONDS": "3600",
        "no_proxy": direct,
        "NO_PROXY": direct,
    }


def node_settings(temporary: Path) -> dict[str, str]:
    """What the processes of one Ray node have in their environment besides `ray_settings`."""
    return {
        # ended is ended: the launcher drains where there is time
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # else threads grow with the machine's cores, not the job's
        "RAY_worker_num_grpc_internal_threads": "1",
        "RAY_num_server_call_thread": "1",
        # Metrics are served to anyone who asks, and nobody reads them. There is no switch for the
        # last two servers: a port that does not exist keeps them from starting.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "65536",
        "DASHBOARD_METRIC_PORT": "65536",
        # Private; and multiprocessing leaves folders behind when it is killed.
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
    }


def ray_environment(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of Ray's own processes and so of all tasks.

    Without another cluster's settings, without SLURM's and MPI's words on tasks, and without
    OMP_NUM_THREADS: Ray sets it for each task to the CPUs that the task asked for, but only if the
    shell that submitted had it not set.
    """
    dropped = {"OMP_NUM_THREADS", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"}
    kept = {
        name: value
        for name, value in environ.items()
        if name not in dropped and (name in SLURM_KEPT or not name.startswith(SLURM_PREFIXES))
    }
    return {**kept, **settings, "PATH": path(environ)}


def path(environ: Mapping[str, str]) -> str:
    """PATH with our own Python first, so that `python` and `ray` are the cluster's in drivers and
    submitted jobs.
    """
    own = str(Path(sys.executable).parent)
    return os.pathsep.join(
        dict.fromkeys([own, *filter(None, environ.get("PATH", "").split(os.pathsep))])
    )


def step_environment(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of srun, so that the step takes its shape from the command line alone."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in STEP_KEPT or not name.startswith(("SLURM", "SRUN_", "SBATCH_"))
    }
    kept.pop("RAY_AUTH_TOKEN", None)
    return {**kept, **settings}


def driver_environment(
    environ: Mapping[str, str], settings: Mapping[str, str], address: str, dashboard: str
) -> dict[str, str]:
    """The environment of the driver: SLURM's stays, for a driver may use srun itself."""
    kept = {name: value for name, value in environ.items() if name != "RAY_AUTH_TOKEN"}
    return {
        **kept,
        **settings,
        "PATH": environ.get("PATH", "") if WRAPPER else path(environ),
        "RAY_ADDRESS": address,
        "RAY_API_SERVER_ADDRESS": dashboard,
        "PYTHONUNBUFFERED": "1",
    }


def node(
    folder: Path, name_suffix: str, interface: str | None, patience: float, head: str | None
) -> list[str]:
    """The command that owns one Ray node; `head` is the address of the head's GCS, None for the
    head itself.
    """
    return [
        *PYTHON,
        "-m",
        "cluster.node.ray_node",
        *(["--head", head] if head else []),
        *(["--interface", interface] if interface else []),
        f"--job={name_suffix}",
        f"--patience={patience:g}",
        f"--folder={folder}",
    ]


def worker_steps(
    hosts: Sequence[str],
    command: Sequence[str],
    environ: Mapping[str, str],
    granted: Mapping[str, int],
    first: bool,
) -> list[list[str]]:
    """The sruns that start `command` once on each host.

    Hosts of equal numbers of GPUs share one, since srun divides a number among unlike nodes
    wrongly. `granted`: the job's GPUs by host, where SLURM says them; `first`: the job has a node
    before these, the head.
    """
    numbers = sorted({granted.get(host, 0) for host in hosts}, reverse=True)
    groups = [[host for host in hosts if granted.get(host, 0) == number] for number in numbers]
    return [
        workers(group, command, worker_gpus(environ, granted, group, without_first=first))
        for group in groups
    ]


def workers(hosts: Sequence[str], command: Sequence[str], gpus: str | None = None) -> list[str]:
    """One srun that starts `command` once on each host; `gpus`: how many it has there in all, where
    that must be said.

    --overlap: the batch script's step holds the same resources. --no-kill, --kill-on-bad-exit=0 and
    --wait=0: a lost node takes no other with it. --cpu-bind=none: the job's CPUs are the limit, not
    one task's share. --input=all: the end of our standard input reaches every node, which is the
    order to stop.
    """
    return [
        "srun",
        "--overlap",
        "--no-kill",
        "--kill-on-bad-exit=0",
        "--wait=0",
        "--cpu-bind=none",
        "--mpi=none",
        "--export=ALL",
        "--input=all",
        "--job-name=ray-workers",
        f"--nodes={len(hosts)}",
        f"--ntasks={len(hosts)}",
        "--ntasks-per-node=1",
        f"--nodelist={','.join(hosts)}",
        *([f"--gpus={gpus}"] if gpus else []),
        *command,
    ]


def driver(words: Sequence[str], is_rayfold: bool) -> list[str]:
    """The command of the driver: a rayfold subcommand, or any other."""
    return [*PYTHON, "-m", "orchestrator", *words] if is_rayfold else [*WRAPPER, *words]


def gcs(*arguments: str) -> list[str]:
    """The command of the one module that imports Ray."""
    return [*PYTHON, "-m", "cluster.launcher.gcs", *arguments]


def submit_lines(token: Path, host: str, port: int) -> str:
    """What to copy and paste to reach the cluster from a login node or one's own machine."""
    address = f"http://127.0.0.1:{port}"
    return "\n".join(
        [
            "to submit work to this cluster, from where the token's file can be read:",
            f"    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={shlex.quote(str(token))}",
            "    export no_proxy=127.0.0.1,localhost${no_proxy:+,$no_proxy}",
            # Not where the port is somebody else's: the token would be his.
            f"    ssh -fN -o ExitOnForwardFailure=yes -L {port}:127.0.0.1:{port} {host} &&",
            f"    ray job submit --address {address} -- python my_script.py",
        ]
    )
