"""The doctor finds what is wrong, names the remedy, and leaves nothing behind."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.doctor import checks, node_view, report
from cluster.doctor.checks import Finding
from tests.conftest import ROOT

GIB = 2**30


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


# --- a finding ------------------------------------------------------------------------------------


def test_a_finding_is_one_line_and_its_remedy_the_next() -> None:
    assert str(Finding("ok", "all is well")) == "ok    all is well"
    assert str(Finding("warn", "it is late", "sleep")) == "warn  it is late\n      sleep"


@pytest.mark.parametrize(("level", "remedy"), [("ok", "do this"), ("warn", ""), ("fail", "")])
def test_what_is_not_ok_has_a_remedy_and_only_that(level: str, remedy: str) -> None:
    with pytest.raises(ValueError, match="remedy exactly when"):
        Finding(level, "something", remedy)  # type: ignore[arg-type]


# --- CPUs and memory ------------------------------------------------------------------------------


def test_cpu_quotas_of_cgroup_version_2_count_at_every_level(tmp_path: Path) -> None:
    group = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
    planted(
        tmp_path, {f"{group}/cpu.max": "max 100000\n", "system.slice/cpu.max": "250000 100000\n"}
    )
    assert checks.cpu_quota(f"0::/{group}\n", tmp_path) == 2.5
    planted(tmp_path, {f"{group}/cpu.max": "100000 100000\n"})
    assert checks.cpu_quota(f"0::/{group}\n", tmp_path) == 1


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_cpu_quotas_of_cgroup_version_1(tmp_path: Path, mount: str) -> None:
    files = {
        "slurm/cpu.cfs_quota_us": "300000\n",
        "slurm/cpu.cfs_period_us": "100000\n",
        "cpu.cfs_quota_us": "-1\n",
    }
    planted(
        tmp_path,
        {
            f"{mount}/{name}": text
            for name, text in (files | {"cpu.cfs_period_us": "100000\n"}).items()
        },
    )
    assert (
        checks.cpu_quota("9:memory:/a\n4:cpu,cpuacct:/slurm\n1:name=systemd:/\n0::/\n", tmp_path)
        == 3
    )


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert checks.cpu_quota("0::/\n", tmp_path) == math.inf
    assert checks.cpu_quota("", tmp_path) == math.inf


@pytest.mark.parametrize(
    ("promised", "affinity", "quota", "level", "says"),
    [
        (8, 8, math.inf, "ok", "SLURM promises 8"),
        (8, 1, math.inf, "warn", "may use 1 (affinity 1"),
        (8, 8, 2.5, "warn", "may use 2.5"),
        (8, 64, math.inf, "ok", "nothing confines"),
        (None, 3, math.inf, "ok", "no SLURM job"),
    ],
)
def test_cpus(promised: int | None, affinity: int, quota: float, level: str, says: str) -> None:
    finding = checks.check_cpus(promised, affinity, quota, 64)
    assert finding.level == level
    assert says in finding.what


@pytest.mark.parametrize(
    ("in_job", "requested", "limit", "level", "says"),
    [
        (True, 16 * GIB, 16 * GIB, "ok", "promises 16.0 GiB, cgroup limit 16.0 GiB"),
        (True, 16 * GIB, 8 * GIB, "warn", "cgroup limit 8.0 GiB"),
        (True, 128 * GIB, None, "warn", "the machine has 64.0 GiB"),
        (True, 16 * GIB, None, "ok", "nothing confines"),
        (True, 0, None, "ok", "promises 64.0 GiB"),
        (True, None, None, "warn", "names no share"),
        (True, None, 8 * GIB, "ok", "promises 8.0 GiB"),
        (False, None, None, "ok", "no SLURM job"),
    ],
)
def test_memory(
    in_job: bool, requested: int | None, limit: int | None, level: str, says: str
) -> None:
    finding = checks.check_memory(in_job, requested, limit, 64 * GIB)
    assert finding.level == level
    assert says in finding.what


def test_shared_memory() -> None:
    assert checks.check_shared_memory(8 * GIB, 4 * GIB).level == "ok"
    assert checks.check_shared_memory(2 * GIB, 4 * GIB).level == "warn"
    assert checks.check_shared_memory(64 << 20, 4 * GIB).level == "fail"


# --- GPUs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [("0,1", 2), ("", 0), ("-1", 0), ("0,-1,1", 1), ("NoDevFiles", 0), ("GPU-1f,MIG-2", 2)],
)
def test_cuda_visible_devices_are_counted_as_cuda_does(text: str, count: int) -> None:
    assert checks.visible_gpus({"CUDA_VISIBLE_DEVICES": text}) == count
    assert checks.visible_gpus({}) is None


def test_slurm_promises_gpus_on_a_node_of_a_job_only() -> None:
    assert checks.promised_gpus({"SLURM_GPUS_ON_NODE": "4"}) is None
    assert checks.promised_gpus({"SLURMD_NODENAME": "n1", "SLURM_GPUS_ON_NODE": "4"}) == 4
    assert checks.promised_gpus({"SLURMD_NODENAME": "n1"}) == 0


@pytest.mark.parametrize(
    ("promised", "visible", "devices", "seen", "level", "says"),
    [
        (2, 2, 4, 2, "ok", "TensorFlow sees 2"),
        (None, None, 0, None, "ok", "not asked"),
        (0, None, 4, None, "warn", "the machine has 4"),
        (2, 1, 4, 1, "warn", "names 1"),
        (2, 2, 2, 0, "fail", "TensorFlow sees 0"),
        (None, None, 2, 1, "fail", "TensorFlow sees 1"),
        (None, 1, 2, 1, "ok", "TensorFlow sees 1"),
        (2, 2, 2, "no answer within 120 s", "fail", "no answer"),
    ],
)
def test_gpus(
    promised: int | None,
    visible: int | None,
    devices: int,
    seen: int | str | None,
    level: str,
    says: str,
) -> None:
    finding = checks.check_gpus(promised, visible, devices, seen)
    assert finding.level == level
    assert says in finding.what


def test_tensorflow_is_asked_in_a_bounded_process_of_its_own() -> None:
    began = time.monotonic()
    assert (
        checks.tensorflow_gpus(0.3, [sys.executable, "-c", "import time; time.sleep(60)"])
        == "no answer within 0.3 s"
    )
    assert time.monotonic() - began < 30
    assert (
        checks.tensorflow_gpus(
            60, [sys.executable, "-c", "print('noise'); print('GPUs', 3, '2.21.0')"]
        )
        == 3
    )
    assert checks.tensorflow_gpus(60, [sys.executable, "-c", "import none_such"]).endswith(
        "'none_such'"
    )  # type: ignore[union-attr]
    assert (
        checks.tensorflow_gpus(60, [sys.executable, "-c", "raise SystemExit(3)"]) == "exit code 3"
    )


# --- limits and names -----------------------------------------------------------------------------


def test_open_files_and_processes() -> None:
    assert [checks.check_open_files(hard).level for hard in (math.inf, 65535, 10000, 1024)] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]
    assert [
        checks.check_processes(soft, math.inf).level for soft in (math.inf, 4096, 2000, 200)
    ] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]
    assert "ulimit -u 4096" in checks.check_processes(200, math.inf).remedy
    assert "admins" in checks.check_processes(200, 200).remedy


@pytest.mark.parametrize(
    ("addresses", "level", "says"),
    [
        (["10.0.0.1"], "ok", "10.0.0.1"),
        (["127.0.1.1", "10.0.0.1"], "ok", "10.0.0.1, 127.0.1.1"),
        (["127.0.1.1"], "warn", "only this node itself"),
        (["::1", "127.0.0.1"], "warn", "only this node itself"),
        (["fe80::1%eth0", "2001:db8::7"], "warn", "no IPv4"),
        ([], "warn", "unknown to the resolver"),
    ],
)
def test_host_names(addresses: list[str], level: str, says: str) -> None:
    finding = checks.check_host_name("node1", addresses)
    assert finding.level == level
    assert says in finding.what


# --- SLURM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "version", "level"),
    [
        ([], "slurm-wlm 22.05.8", "ok"),
        ([], "slurm 20.11.0", "ok"),
        ([], "slurm 20.02.7", "fail"),
        ([], "", "fail"),
        (["srun"], "slurm 22.05.8", "fail"),
    ],
)
def test_slurm_is_there_and_recent_enough(missing: list[str], version: str, level: str) -> None:
    assert report.check_slurm(missing, version).level == level


def test_requeue() -> None:
    job = "JobId=7 JobName=rayfold\n   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0\n"
    assert report.check_requeue(True, job).level == "ok"
    assert report.check_requeue(True, job.replace("Requeue=1", "Requeue=0")).level == "warn"
    assert (
        report.check_requeue(
            False, "JobFileAppend           = 0\nJobRequeue              = 0\n"
        ).level
        == "ok"
    )
    assert report.check_requeue(True, "").level == "fail"


# --- what could mislead Ray -----------------------------------------------------------------------


def test_the_environment_may_not_lead_to_another_cluster(tmp_path: Path) -> None:
    jobs = tmp_path / "slurm-jobs"
    assert report.check_environment({}, tmp_path, jobs).level == "ok"
    found = report.check_environment(
        {"RAY_ADDRESS": "auto", "RAY_AUTH_TOKEN": "secret"}, tmp_path, jobs
    )
    assert found.level == "warn"
    assert "RAY_ADDRESS, RAY_AUTH_TOKEN" in found.what
    assert "secret" not in str(found)
    own = {"RAY_ADDRESS": "10.0.0.1:20000", "RAY_AUTH_TOKEN_PATH": str(jobs / "7" / "token")}
    assert report.check_environment(own, tmp_path, jobs).level == "ok"
    planted(tmp_path, {".ray/auth_token": "secret"})
    assert report.check_environment({}, tmp_path, jobs).level == "warn"


def test_this_python_has_what_a_job_needs() -> None:
    assert report.check_python().level == "ok"
    lacking = report.check_python(lambda module: None if module == "aiohttp_cors" else module)
    assert (lacking.level, "lacks ray[default]" in lacking.what) == ("fail", True)
    assert lacking.remedy == "pip install 'ray[default]'"
    assert "activate" in report.check_python(lambda _module: None).remedy


def test_tokens_that_others_could_read_fail(tmp_path: Path) -> None:
    assert report.check_tokens(tmp_path / "none", os.getuid()).level == "ok"
    planted(tmp_path, {"7/token": "secret"})
    (tmp_path / "7").chmod(0o700)
    (tmp_path / "7/token").chmod(0o600)
    assert "1 in" in report.check_tokens(tmp_path, os.getuid()).what
    assert report.check_tokens(tmp_path, os.getuid()).level == "ok"
    assert report.check_tokens(tmp_path, os.getuid() + 1).level == "fail"
    for path, mode in (("7/token", 0o640), ("7", 0o770)):
        before = (tmp_path / path).stat().st_mode & 0o777
        (tmp_path / path).chmod(mode)
        found = report.check_tokens(tmp_path, os.getuid())
        assert (found.level, f"{mode:04o}" in found.what) == ("fail", True)
        assert "secret" not in str(found)
        (tmp_path / path).chmod(before)


# --- ports and the temp dir -----------------------------------------------------------------------


def test_a_block_of_ports_is_free_and_stays_so() -> None:
    ephemeral = "32768\t60999\n"
    found = report.check_ports(2, {}, ephemeral)
    assert found.level == "ok"
    assert report.check_ports(2, {}, ephemeral).what == found.what  # given back


def test_ports_of_the_ephemeral_range_are_a_risk() -> None:
    with socket.socket() as any_port:
        any_port.bind(("", 0))  # such ports are free here
        low = min(any_port.getsockname()[1], 60000) - 2000
    found = report.check_ports(2, {"RAYFOLD_PORTS": f"{low}-{low + 2000}"}, f"{low + 1000} 60999")
    assert (found.level, f"outside of {low + 1000}-60999" in found.remedy) == ("warn", True)


def test_no_free_port_fails_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        narrow = {"RAYFOLD_PORTS": f"{port}-{port}"}
        found = report.guarded(lambda: report.check_ports(2, narrow, "32768 60999"))
    assert (found.level, "no block of" in found.what, "RAYFOLD_PORTS" in found.remedy) == (
        "fail",
        True,
        True,
    )


def test_a_temp_dir_that_is_too_deep_or_read_only_is_passed_over(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    found = report.check_temporary_folder({"TMPDIR": str(deep)})
    assert (found.level, "'/tmp'" in found.what) == ("ok", True)
    assert not list(deep.iterdir())


# --- the nodes together ---------------------------------------------------------------------------


def test_nodes_see_the_canary_its_clock_and_the_address(tmp_path: Path) -> None:
    folder = tmp_path / 'jobs, "of" mine\n'
    folder.mkdir()
    reports, said = node_view.ask([], folder, "127.0.0.1")
    assert [(report.canary, report.reached) for report in reports] == [("", "")], said
    assert abs(reports[0].skew or 0) < 5
    assert not list(folder.iterdir())


def test_what_a_node_cannot_see_or_reach_is_said(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refused
        seen = node_view.look(
            tmp_path / "none", "word", "127.0.0.1", closed.getsockname()[1], "nope0", seconds=0
        )
    assert (seen.canary, seen.skew, seen.reached) == (
        "No such file or directory",
        None,
        "Connection refused",
    )
    assert "'nope0' has no IPv4 address" in seen.own
    planted(tmp_path, {"canary": "another"})
    assert (
        node_view.look(tmp_path, "word", "", 0, "", seconds=0).canary
        == "the file holds something else"
    )


def test_a_step_that_fails_says_why(tmp_path: Path) -> None:
    reports, said = node_view.ask(
        ["sh", "-c", "echo srun: no such node >&2; echo noise; exit 1"], tmp_path, ""
    )
    assert (reports, said) == ([], "srun: no such node")
    assert not list(tmp_path.iterdir())


def test_reports_are_found_among_other_lines() -> None:
    line = json.dumps({"node": "n1", "canary": "", "skew": 0.25, "own": "", "reached": ""})
    assert node_view.read_views(f'welcome\n{line}\n{{"a": 1}}\n[1]\n') == [
        node_view.NodeView("n1", "", 0.25, "", "")
    ]


def test_silent_and_blind_nodes_are_named(tmp_path: Path) -> None:
    good, blind = (
        node_view.NodeView("n1", "", 0.0, "", ""),
        node_view.NodeView("n2", "No such file or directory", None, "", "timed out"),
    )
    assert node_view.check_canary(tmp_path, [good], ["n1"], "").level == "ok"
    silent = node_view.check_canary(tmp_path, [good], ["n1", "n3"], "srun: error: n3: not found")
    assert (silent.level, "silent: n3: srun: error" in silent.what) == ("fail", True)
    unseen = node_view.check_canary(tmp_path, [good, blind], ["n1", "n2"], "")
    assert (unseen.level, "n2 (No such file or directory)" in unseen.what) == ("fail", True)
    assert node_view.check_reached("10.0.0.1", [good]).level == "ok"
    lone = node_view.NodeView("n3", "", 0.0, "interface 'ib0' has no IPv4 address here", "")
    assert "none on n3 (interface 'ib0'" in node_view.check_reached("10.0.0.1", [good, lone]).what
    assert "n2 (timed out)" in node_view.check_reached("10.0.0.1", [good, blind]).what


def test_clocks_and_the_kind_of_the_jobs_folder() -> None:
    assert node_view.check_clocks({"n1": 0.1, "n2": -1.5}).level == "ok"
    late = node_view.check_clocks({"n1": 0.1, "n2": -30.0})
    assert (late.level, "30.0 s" in late.what, "n2" in late.what) == ("warn", True, True)
    assert node_view.check_shared_kind(Path("/home/me"), "nfs4").level == "ok"
    assert node_view.check_shared_kind(Path("/home/me"), "ext4").level == "warn"
    assert node_view.check_shared_kind(Path("/home/me"), "").level == "warn"


# --- the command ----------------------------------------------------------------------------------

SLURM = {
    "sbatch": "echo slurm 23.11.4",
    "squeue": "",
    "scancel": "",
    "scontrol": """case "$*" in
        "show job 7") echo "JobId=7 Requeue=$REQUEUE Restarts=0" ;;
        *) exit 1 ;;
    esac""",
    # As srun would: options, then the same command on every node.
    "srun": """while [ "${1#--}" != "$1" ]; do shift; done
    for node in $NODES; do SLURMD_NODENAME=$node "$@" || exit; done""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment of a job of two nodes, on a SLURM of shell scripts."""
    for name, text in SLURM.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM", "RAY", "CUDA"))
    }
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURMD_NODENAME": "n1",
        "SLURM_CPUS_ON_NODE": "1",
    }
    job |= {
        "SLURM_MEM_PER_NODE": "1024",
        "NODES": "n1 n2",
        "REQUEUE": "1",
        "HOME": str(tmp_path / "home"),
    }
    return {**kept, **job, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}


def examined(folder: Path, environment: dict[str, str]) -> tuple[int, dict[str, str]]:
    """Exit code, and the level of each finding by the words it begins with."""
    command = [sys.executable, "-m", "cluster.doctor", "--jobs-folder", str(folder)]
    done = subprocess.run(
        command, env=environment, cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert line.startswith(("ok    ", "warn  ", "fail  ", "      "))
        assert following.startswith("      ") == line.startswith(("warn", "fail"))
    return done.returncode, {
        line[6:]: line[:4].strip() for line in lines if not line.startswith("      ")
    }


def level(found: dict[str, str], beginning: str) -> str:
    return next(value for what, value in found.items() if what.startswith(beginning))


def test_the_command_asks_all_nodes_and_leaves_nothing(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "my jobs"
    folder.mkdir()
    code, found = examined(folder, slurm)
    assert code == ("fail" in found.values())
    for beginning in (
        "SLURM: slurm 23.11.4",
        "requeue",
        "Python",
        "environment",
        "tokens",
        "ports",
        "clocks",
    ):
        assert level(found, beginning) == "ok", beginning
    assert level(found, "shared file system: 2 of 2 nodes answered") == "ok"
    assert not list(folder.iterdir())


def test_the_command_fails_for_a_silent_node(slurm: dict[str, str], tmp_path: Path) -> None:
    code, found = examined(tmp_path / "jobs", slurm | {"NODES": "n1", "REQUEUE": "0"})
    assert code == 1
    assert level(found, "shared file system: 1 of 2 nodes") == "fail"
    assert level(found, "requeue") == "warn"
    assert not (tmp_path / "jobs").exists()


def test_the_command_fails_without_slurm_and_says_all_the_rest(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "bin")
    outside = {name: value for name, value in slurm.items() if not name.startswith("SLURM")} | {
        "PATH": "/nowhere"
    }
    code, found = examined(tmp_path / "jobs", outside)
    assert code == 1
    assert level(found, "SLURM: no command sbatch, srun") == "fail"
    assert level(found, "CPUs") == "ok"
