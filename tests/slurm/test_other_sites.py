"""Clusters that are set up in other ways: proxies, whole nodes, bare environments, blind GPUs, a
controller away.
"""

import json
import os
import signal
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from tests.slurm.config import GPUS, LOGIN
from tests.slurm.conftest import Outcomes
from tests.slurm.hosts import Process
from tests.slurm.lab import Lab
from tests.slurm.launcher import (
    DEADLINE,
    DRIVERS,
    EXPERIMENT,
    MEMORY,
    ONCE_MORE,
    SCRIPT,
    ended,
    job_folder,
    launch,
    logs,
    on,
    ready,
    usr1,
)

pytestmark = pytest.mark.slurm
PROXY = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)


def proxied(lab: Lab) -> tuple[str, Path]:
    """A dead proxy everywhere; a submitted job is stopped by the deadline and taken up by the next
    start.
    """
    cwd = lab.folder_for("alice")
    job = lab.submit("alice", *on("n1"), SCRIPT, "--serve", cwd=cwd, environment=PROXY)
    facts = ready(lab, job, cwd)
    client = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": facts["token_path"]}
    # As the output says it, on the node itself instead of through a tunnel.
    direct = {**PROXY, **client, "no_proxy": "127.0.0.1,localhost"}
    work = 'cd "$(dirname $0)"; echo start >> starts; test $(wc -l < starts) -gt 1 || sleep 300\n'
    script = lab.write("alice", cwd / "work.sh", work)
    line = [
        "ray",
        "job",
        "submit",
        "--no-wait",
        "--address",
        facts["dashboard"],
        "--",
        "bash",
        script,
    ]
    lab.run_on("n1", *line, environment=direct)
    story = lambda: lab.describe(job) + logs(cwd, job)  # noqa: E731
    lab.until((cwd / "starts").exists, 60, story)
    usr1(lab, job)
    ready(lab, job, cwd, restart=1)
    lab.until(lambda: (cwd / "starts").read_text().count("start") == 2, 60, story)
    noted = job_folder(cwd, job) / "jobs.json"
    lab.until(lambda: json.loads(noted.read_text()) == [], 60, story)
    usr1(lab, job)
    ended(lab, job, cwd, 0)
    return job, cwd


def exclusive(lab: Lab) -> Path:
    """Whole nodes, with their GPUs, though no option says so."""
    cwd = lab.folder_for("alice")
    job = launch(
        lab,
        "alice",
        [*on("n1", "n2"), "--exclusive"],
        "--",
        "python",
        DRIVERS / "look.py",
        "seen.json",
        cwd=cwd,
    )
    ended(lab, job, cwd, 0, seconds=400)
    return cwd / "seen.json"


def bare(lab: Lab) -> tuple[str, Path]:
    """Nothing of the environment comes along, not even PATH and HOME; the job is submitted by
    rayfold itself.
    """
    cwd = lab.folder_for("alice")
    # Stands for a site whose prolog or shell leaves nothing behind.
    wrap = "unset PATH HOME; exec /bin/bash slurm-jobs/ray_slurm.sh -- /usr/bin/touch driver-ran"
    lab.run_on(LOGIN, sys.executable, "-m", "orchestrator", "slurm-script", "script.sh", cwd=cwd)
    lab.run_on(LOGIN, "mkdir", "slurm-jobs", cwd=cwd)
    lab.run_on(LOGIN, "mv", "script.sh", "slurm-jobs/ray_slurm.sh", cwd=cwd)
    text = (
        "#!/bin/bash\n#SBATCH --signal=B:USR1@120\nexport "
        f"PYTHONPATH='{os.fspath(SCRIPT.parents[1])}'\n{wrap}\n"
    )
    script = lab.write("alice", cwd / "bare.sh", text)
    job = lab.submit("alice", *on("n3"), "--export=NONE", script, cwd=cwd)
    ended(lab, job, cwd, 0)
    return job, cwd


def too_short(lab: Lab) -> str:
    """The deadline comes before the driver has started, twice."""
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n3"), "--", "touch", "driver-ran", cwd=cwd)
    for restart in (0, 1):
        started = job_folder(cwd, job) / f"restart-{restart}" / "head.log"
        lab.until(started.exists, 120, lambda: lab.describe(job) + logs(cwd, job))
        usr1(lab, job)
    told = ended(lab, job, cwd, DEADLINE)
    assert not (cwd / "driver-ran").exists()
    return told


def with_gpus(lab: Lab, *slurm: str) -> tuple[str, str]:
    """An experiment that wants a GPU for each cell; returns the last line and all of the output."""
    cwd = lab.folder_for("alice")
    lab.write(
        "alice", cwd / "experiment.yaml", EXPERIMENT.replace("gpus_per_cell: 0", "gpus_per_cell: 1")
    )
    job = launch(lab, "alice", [*on("n2"), MEMORY, *slurm], "run", "experiment.yaml", cwd=cwd)
    return ended(lab, job, cwd, 2), lab.output(job)


def blind_gpu(lab: Lab) -> tuple[str, str]:
    return with_gpus(lab, "--gres=gpu:1")


def no_gpu(lab: Lab) -> tuple[str, str]:
    return with_gpus(lab)


def wrapped(lab: Lab) -> str:
    """Nodes and driver run inside of something that does not know SLURM, as a container."""
    cwd = lab.folder_for("alice")
    inside = lab.write(
        "alice",
        cwd / "inside the container",
        f'#!/bin/sh\nexport INSIDE=yes PATH={sys.prefix}/bin:"{cwd}"/bin\nexec "$@"\n',
    )
    inside.chmod(0o755)
    (cwd / "bin").mkdir()
    (cwd / "bin" / "bash").symlink_to("/bin/bash")  # Ray's workers begin with it
    look = (
        "import os, ray; ray.init(log_to_driver=False); print(os.environ['INSIDE'], "
        "ray.cluster_resources()['CPU'])"
    )
    job = lab.submit(
        "alice", *on("n1", "n3"), SCRIPT, "--", "python3", "-c", look,
        cwd=cwd, environment={"RAYFOLD_WRAPPER": f"'{inside}'"},
    )  # fmt: skip
    ended(lab, job, cwd, 0)
    return lab.output(job)


SCENARIOS = (proxied, bare, too_short, blind_gpu, no_gpu, wrapped, exclusive)


def test_a_proxy_stands_in_nobodys_way_and_unfinished_jobs_are_taken_up(
    lab: Lab, jobs: Outcomes
) -> None:
    job, _ = jobs[proxied].result()
    assert lab.restarts(job) == 1
    assert "submitted again" in lab.output(job)


def test_gpus_that_came_without_being_asked_for_are_used_on_every_node(jobs: Outcomes) -> None:
    rows = json.loads(jobs[exclusive].result().read_text())
    assert [(row["host"], row["GPU"]) for row in rows] == [("n1", GPUS), ("n2", GPUS)]


def test_a_job_without_path_and_home(jobs: Outcomes) -> None:
    _, cwd = jobs[bare].result()
    assert (cwd / "driver-ran").exists()


def test_a_time_limit_that_lets_no_driver_start_is_told_after_the_second_time(
    jobs: Outcomes,
) -> None:
    assert "for the second time: raise --time" in jobs[too_short].result()


def test_a_gpu_that_tensorflow_does_not_see_is_an_error_before_anything_trains(
    jobs: Outcomes,
) -> None:
    told, output = jobs[blind_gpu].result()
    assert "the driver ended with 2" in told
    assert "granted GPU 0" in output
    assert "started" not in output.partition("ray     joining")[2]


def test_a_request_that_no_node_can_meet_is_one_line(jobs: Outcomes) -> None:
    _, output = jobs[no_gpu].result()
    after = output.partition("ray     joining")[2].splitlines()[1:]
    assert "a cell asks for" in after[0]
    assert after[1].startswith("[")  # the launcher's own


def test_nodes_and_driver_run_inside_of_the_wrapper(jobs: Outcomes) -> None:
    assert "\nyes 2.0\n" in jobs[wrapped].result()


def test_a_controller_that_is_silent_at_the_deadline_is_asked_again(
    lab: Lab, jobs: Outcomes
) -> None:
    wait(jobs.values())  # they need it
    cwd = lab.folder_for("alice")
    job = launch(lab, "alice", on("n1"), *ONCE_MORE, cwd=cwd)
    ready(lab, job, cwd)
    lab.until((cwd / "once").exists, 30, lambda: lab.describe(job))

    def named(host: str, name: str) -> list[Process]:
        return [each for each in lab.hosts[host].processes() if name in each.command]

    (controller,) = [
        each for each in named(LOGIN, "slurmctld") if "slurmscriptd" not in each.command
    ]
    (launcher,) = named("n1", "cluster.launcher.launch")
    os.kill(controller.pid, signal.SIGSTOP)
    try:
        os.kill(launcher.pid, signal.SIGUSR1)
        time.sleep(25)
    finally:
        os.kill(controller.pid, signal.SIGCONT)
    ended(lab, job, cwd, 0)
    assert lab.restarts(job) == 1
