"""What `--dry-run` prints: the very commands and environments, and what is assumed where there is
no job.
"""

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cluster.common import commands, slurm
from cluster.common.allocation import StartError, gpus_by_host, read_allocation
from cluster.common.folder import JobFolder, read_cluster
from cluster.launcher import precheck
from cluster.launcher.options import LaunchOptions
from cluster.node import network, ray_node

ASSUMED = {
    "SLURM_JOB_ID": "0",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_MEM_PER_NODE": "16000",
}


def text(options: LaunchOptions, environ: Mapping[str, str]) -> str:
    """Commands and environments of head, workers and driver, as a shell would take them; nothing is
    run.
    """
    in_job = bool(environ.get("SLURM_JOB_ID"))
    assumed = (
        {} if in_job else {name: value for name, value in ASSUMED.items() if not environ.get(name)}
    )
    environ = {**environ, **assumed}
    allocation = read_allocation(environ)
    folder = JobFolder(options.jobs_folder, allocation)
    settings = partial(commands.ray_settings, environ=environ, hosts=allocation.hosts)
    lines = [
        f"# assumed, for this is no SLURM job: {name}={value}" for name, value in assumed.items()
    ]
    lines += [f"# folder of the job: {folder.restart}"]
    if options.join:
        facts = read_cluster(options.join)
        address, token, hosts = facts["address"], Path(facts["token_path"]), allocation.hosts
    else:
        token, hosts = folder.token, allocation.hosts[1:]
        head, address = _head(options, environ, in_job)
        lines += _section(
            f"head, on {allocation.hosts[0]}",
            settings(token),
            commands.node(
                folder.restart, allocation.job_id, options.interface, 0.6 * slurm.kill_wait(), None
            ),
        )
        started = commands.ray_start(head, commands.EXECUTABLE)
        lines += _section("which runs", commands.node_settings(head.temp.parent / "tmp"), started)
        dropped = sorted(set(environ) - set(commands.ray_environment(environ, settings(token))))
        lines += [f"# without these variables: {' '.join(dropped)}"] if dropped else []
    if hosts:
        worker = commands.node(
            folder.restart, allocation.job_id, options.interface, 0.6 * slurm.kill_wait(), address
        )
        title = (
            f"workers, on {' '.join(hosts)}: the same with ports, temp, address, resources of each "
            "node's own"
        )
        granted = gpus_by_host(slurm.details(allocation.job_id)) if in_job else {}
        for step in commands.worker_steps(hosts, worker, environ, granted, first=not options.join):
            lines += _section(title, settings(token, address=address), step)
    if options.command:
        command = commands.driver(options.words(allocation), options.is_rayfold)
        dashboard = f"http://127.0.0.1:{head.ports['dashboard']}"
        given = settings(token, address=address)
        environment = commands.driver_environment(environ, given, address, dashboard)
        environment = {
            name: value
            for name, value in environment.items()
            if environ.get(name) != value or name in given
        }
        lines += _section(
            f"driver, on {allocation.hosts[0]}, once all nodes have joined", environment, command
        )
    return "\n".join(lines)


def check(options: LaunchOptions, environ: Mapping[str, str]) -> tuple[int, str]:
    """Whether the driver's command could run, as far as that can be seen here: an exit code and a
    line.
    """
    asked = precheck.command(
        options.words(read_allocation({**ASSUMED, **environ})), options.is_rayfold
    )
    if asked is None:
        return 0, ""
    code, line = precheck.ask(asked)
    return (
        code,
        line or "the experiment can run, as far as its file, data path, weights and builders tell",
    )


def _head(
    options: LaunchOptions, environ: Mapping[str, str], in_job: bool
) -> tuple[commands.RayNode, str]:
    """The head's node as it would be now, and its address; in a job this is the head's node
    itself.
    """
    allocation = read_allocation(environ)
    host = allocation.hosts[0]
    try:
        place = network.node_address(options.interface, slurm.node_addr(host))
    except StartError:
        if in_job:
            raise
        place = f"ADDRESS-OF-{host}"
    resources = ray_node.measure(environ)
    block = ray_node.take_ports(environ, resources, allocation.job_id)
    block.close()
    temp = Path(f"/tmp/rf{allocation.job_id}-XXXXXXXX/r")
    head = commands.RayNode(allocation.node_name(host), place, block.ports, resources, temp, None)
    return head, f"{place}:{block.ports['gcs']}"


def _section(title: str, environment: Mapping[str, str], command: Sequence[str]) -> list[str]:
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return [f"\n# {title}", " \\\n    ".join(["env", *settings, shlex.join(command)])]
