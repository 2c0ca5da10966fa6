"""The launcher on one node, in an environment such as SLURM makes, without SLURM; tests/slurm/ has
the real one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.launcher import launch
from cluster.launcher.job import driver_ending
from cluster.node import network
from orchestrator.experiment.templates import text
from tests.conftest import ROOT
from trainables.runtime import lifeline

SCRIPT = ROOT / "cluster/ray_slurm.sh"
HAS_NETWORK = any(not network.is_loopback(address) for address in network.interfaces().values())
needs_network = pytest.mark.skipif(
    not HAS_NETWORK, reason="this machine has no network interface but loopback"
)
INTERFACE = next(
    (name for name, place in network.interfaces().items() if not network.is_loopback(place)), "none"
)

DRIVER = """
import json, os, pathlib, signal, stat, sys, time
import ray
if os.fork() == 0:  # a daemon that the driver forgets
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
ray.init(log_to_driver=False, logging_level="error")

@ray.remote
def seen():
    names = [name for name in os.environ if name.startswith("SLURM")]
    return os.environ["OMP_NUM_THREADS"], sorted(names), os.environ["TMPDIR"], os.sysconf("SC_OPEN_MAX")

threads, slurm, temp, files = ray.get(seen.remote())
folder = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
cluster = folder / "cluster.json"
token = folder / "token"
print(json.dumps({
    "resources": ray.cluster_resources(), "threads": threads, "slurm": slurm, "temp": temp, "files": files,
    "cluster": json.loads(cluster.read_text()), "argv": [p.read_bytes().decode(errors="replace")
        for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if token.read_bytes() in p.read_bytes()],
    "modes": [oct(stat.S_IMODE(path.stat().st_mode)) for path in (folder, token, cluster)],
}))
sys.exit(7)
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script on one node."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RAY"))
    }
    return {
        **kept,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "OMP_NUM_THREADS": "13",
        "RAYFOLD_INTERFACE": INTERFACE,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node1",
        "SLURMD_NODENAME": "node1",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_MEM_PER_NODE": "1500",
        "SLURM_PROCID": "0",
    }


def run(
    environ: Mapping[str, str], cwd: Path, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_the_script_is_clean() -> None:
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert shellcheck
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("site", "code", "words"),
    [
        ("export HERE=1\n", 0, []),
        (
            "module_load_of_nothing\nexport HERE=1\n",
            0,
            ["`module_load_of_nothing` failed with 127"],
        ),
        ("export HERE=1\nfalse\n", 70, ["ended with 1 (exit 70)"]),
        ("exit 3\n", 70, ["ended with 3 (exit 70)"]),
    ],
)
def test_what_fails_in_a_site_file_is_told(
    environ: dict[str, str], tmp_path: Path, site: str, code: int, words: list[str]
) -> None:
    file = tmp_path / "site.sh"
    file.write_text(site)
    done = run({**environ, "RAYFOLD_SITE": str(file)}, tmp_path, "--help")
    assert done.returncode == code, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout


def test_exit_codes_are_documented_where_they_say() -> None:
    from cluster.common import endings

    for name, value in vars(endings).items():
        if isinstance(value, int):
            assert f"{value}" in (launch.__doc__ or ""), name


@pytest.mark.parametrize(
    ("code", "is_rayfold", "expected"),
    [(75, True, 73), (75, False, 75), (0, True, 0), (1, True, 1)],
)
def test_only_rayfold_itself_can_say_that_the_cluster_was_lost(
    code: int, is_rayfold: bool, expected: int
) -> None:
    assert driver_ending(code, is_rayfold).code == expected
    assert lifeline.CLUSTER_LOST == 75


# --- the command line -----------------------------------------------------------------------------


def test_help_needs_no_slurm(tmp_path: Path, environ: dict[str, str]) -> None:
    bare = {name: value for name, value in environ.items() if not name.startswith("SLURM")}
    done = run(bare, tmp_path, "--help")
    assert done.returncode == 0
    for word in (
        "--dry-run",
        "--interface",
        "--jobs-folder",
        "--join-timeout",
        "--max-requeues",
        "--serve",
        "--join",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "command", "is_rayfold"),
    [
        (["run", "a b.yaml", "--run", "x"], ["run", "a b.yaml", "--run", "x"], True),
        (["--interface", "ib0", "demo"], ["demo"], True),
        (["--interface=ib0", "--", "python", "--", "x"], ["python", "--", "x"], False),
        (["--", "--odd"], ["--odd"], False),
        (["--serve"], [], True),
        (["--join-timeout", "5", "--join", "a.json"], [], True),
    ],
)
def test_options_end_where_the_command_begins(
    arguments: list[str], command: list[str], is_rayfold: bool
) -> None:
    _, found, rayfold = launch.parse(arguments)
    assert found == command
    assert rayfold == is_rayfold


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--"],
        ["--serve", "run", "x"],
        ["--serve", "--join", "a"],
        ["--frobnicate"],
        ["--join-timeout", "0", "demo"],
    ],
)
def test_bad_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert launch.main(arguments) == 2
    assert re.fullmatch(r"rayfold cluster: .* \(exit 2\)", last_line(capfd.readouterr().out))


def test_outside_a_job(tmp_path: Path, environ: dict[str, str]) -> None:
    del environ["SLURM_JOB_ID"]
    done = run(environ, tmp_path, "demo")
    assert done.returncode == 70
    assert last_line(done.stdout).startswith(
        "rayfold cluster: SLURM_JOB_ID is not set: start through sbatch"
    )
    assert not list(tmp_path.iterdir())


def test_a_signal_that_comes_before_python_is_heard(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "site.sh").write_text("ended() { true; }\nreadonly python=1\ncd /\nkill -TERM $$\n")
    done = run({**environ, "RAYFOLD_SITE": str(tmp_path / "site.sh")}, tmp_path, "--", "true")
    assert done.returncode == 143
    assert last_line(done.stdout) == "rayfold cluster: stopped by SIGTERM (exit 143)"


# --- dry run --------------------------------------------------------------------------------------


def test_dry_run_outside_a_job_says_what_it_assumes(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    bare = {name: value for name, value in environ.items() if not name.startswith("SLURM")}
    folder = tmp_path / "my study"
    folder.mkdir()
    (folder / "an experiment.yaml").write_text(text("demo.yaml"))
    done = run(bare, folder, "--dry-run", "run", "an experiment.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "# assumed, for this is no SLURM job: SLURM_JOB_NODELIST=node[1-2]",
        "# head, on node1",
        "# workers, on node2: ",
        "# driver, on node1, once all nodes have joined",
    ):
        assert line in done.stdout
    assert "-m orchestrator run 'an experiment.yaml'" in done.stdout
    assert f"RAY_AUTH_TOKEN_PATH='{folder}/slurm-jobs/0/token'" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["an experiment.yaml"]


@needs_network
def test_dry_run_sees_whether_the_experiment_could_run(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "experiment.yaml").write_text(text("demo.yaml").replace("epochs", "epocs", 1))
    done = run(environ, tmp_path, "--dry-run", "run", "experiment.yaml")
    assert done.returncode == 2
    assert "did you mean" in last_line(done.stdout)


def test_dry_run_in_a_job_has_its_resources_and_address(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    environ["SLURM_JOB_NODELIST"] = "node[1,4-5]"
    done = run(environ, tmp_path, "--dry-run", "--", "python", "x.py")
    assert "assumed" not in done.stdout
    assert "--num-cpus=2 --num-gpus=0" in done.stdout
    assert f"--node-ip-address={network.interfaces()[INTERFACE]}" in done.stdout
    assert "--nodelist=node4,node5" in done.stdout
    assert "# without these variables: OMP_NUM_THREADS SLURM_CPUS_ON_NODE" in done.stdout
    assert done.stdout.endswith("    python x.py\n")


# --- starts that cannot work ----------------------------------------------------------------------


def test_wrong_interface(tmp_path: Path, environ: dict[str, str]) -> None:
    done = run(environ, tmp_path, "--interface", "lo", "demo")
    assert done.returncode == 70
    assert "interface 'lo' is loopback" in last_line(done.stdout)
    assert last_line(done.stdout).endswith("(exit 70)")


@needs_network
def test_no_srun_means_no_workers(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["SLURM_JOB_NODELIST"] = "node[1-2]"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "readlink", "dirname", "sed", "head"):
        (tools / name).symlink_to(shutil.which(name) or "")
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{tools}"
    done = run(environ, tmp_path, "demo")
    assert done.returncode == 70
    assert "workers could not start" in last_line(done.stdout)
    assert "nothing left behind" in done.stdout


def test_join_of_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    done = run(environ, tmp_path, "--join", tmp_path / "cluster.json")
    assert done.returncode == 70
    assert "names no running cluster" in last_line(done.stdout)


# --- one node -------------------------------------------------------------------------------------


@needs_network
def test_a_driver_on_one_node(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "my 'study' ü"
    folder.mkdir()
    (folder / "my driver.py").write_text(DRIVER)
    done = run(environ, folder, "--jobs-folder", "jobs here", "--", "python", "my driver.py")
    assert done.returncode == 7, done.stdout + done.stderr
    assert last_line(done.stdout) == "rayfold cluster: the driver ended with 7 (exit 7)"
    assert "nothing left behind" in done.stdout
    assert re.search(
        r"ready: 1 nodes after [\d.]+ s \(allocation .* ports .* head up .* all joined ",
        done.stdout,
    )

    seen = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith('{"resources"'))
    )
    assert seen["resources"]["CPU"] == 2
    assert seen["resources"]["memory"] + seen["resources"]["object_store_memory"] <= 1500 * 1024**2
    assert seen["threads"] == "1"  # the task's CPUs, not the shell's 13
    assert "SLURM_PROCID" not in seen["slurm"]
    assert "SLURM_JOB_ID" in seen["slurm"]
    assert seen["modes"] == ["0o700", "0o600", "0o600"]
    assert seen["argv"] == []  # the token is on no command line
    assert not Path(seen["temp"]).exists()
    hard = os.sysconf("SC_OPEN_MAX")
    assert seen["files"] >= min(hard, 65535)

    facts = seen["cluster"]
    address = network.interfaces()[INTERFACE]
    assert facts["address"] == f"{address}:{facts['ports']['gcs']}"
    assert facts["nodes"] == [{"host": "node1", "address": address, "cpus": 2, "gpus": 0}]
    job = folder / "jobs here" / environ["SLURM_JOB_ID"]
    assert facts["token_path"] == str(job / "token")
    # Cluster.json is gone.
    assert sorted(path.name for path in job.iterdir()) == [
        "restart-0",
        "slurm-cluster",
        "token",
    ]
    restart = job / "restart-0"
    assert (restart / "driver.log").read_text().count('{"resources"') == 1
    assert "Ray runtime started" in (restart / "head.log").read_text()
    assert (restart / "ray/node1/raylet.out").exists()
    assert "nothing left behind" in (restart / "launch.log").read_text()


@needs_network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_during_bring_up(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals
) -> None:
    with subprocess.Popen(
        [SCRIPT, "demo"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as launched:
        assert launched.stdout
        for line in launched.stdout:
            if "starts Ray" in line:
                break
        launched.send_signal(number)
        said = launched.stdout.read()
    assert "nothing left behind" in said, said
    if number == signal.SIGTERM:
        assert launched.returncode == 143
        assert last_line(said) == "rayfold cluster: stopped by SIGTERM (exit 143)"
    else:
        assert launched.returncode == 72
        assert re.fullmatch(
            r"rayfold cluster: .*not requeued.*submit the same command again.*\(exit 72\)",
            last_line(said),
        )
