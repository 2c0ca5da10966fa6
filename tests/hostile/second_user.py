"""A second user of the machine, who knows what anybody can know, tries everything on a run of the
first.

python second_user.py UID FOLDER…    the uid of the first user, and where the run's files are known
to lie

Prints JSON: `tried` (a number), `succeeded` (what did, in words), `listeners` (addresses),
`command_lines`.
"""

import contextlib
import itertools
import json
import os
import re
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

WRONG = "Bearer " + "0" * 64
# Of every service of Ray, something that would tell or do something.
METHODS = (
    "NodeInfoGcsService/GetAllNodeInfo", "JobInfoGcsService/GetAllJobInfo", "InternalKVGcsService/InternalKVKeys",
    "InternalKVGcsService/InternalKVPut", "ActorInfoGcsService/GetAllActorInfo", "NodeInfoGcsService/RegisterNode",
    "NodeInfoGcsService/GetClusterId", "RuntimeEnvGcsService/PinRuntimeEnvURI", "NodeManagerService/GetNodeStats",
    "NodeManagerService/ShutdownRaylet", "NodeManagerService/RequestWorkerLease", "CoreWorkerService/PushTask",
    "CoreWorkerService/GetCoreWorkerStats", "CoreWorkerService/KillActor", "CoreWorkerService/Exit",
    "ObjectManagerService/Push", "ObjectManagerService/Pull", "ReporterService/GetTraceback", "LogService/ListLogs",
    "RayletDriver/Init", "RayletDriver/ClusterInfo", "RayletDriver/KVList", "events.EventAggregatorService/AddEvents",
)  # fmt: skip
PAGES = (
    "/metrics", "/api/version", "/api/jobs/", "/api/job_agent/jobs/", "/get_or_create_runtime_env", "/api/v0/logs/file",
    "/api/cluster_status", "/nodes?view=summary", "/logs/",
)  # fmt: skip


class Attempts:
    """What was tried and what succeeded."""

    def __init__(self) -> None:
        self.tried = 0
        self.succeeded: list[str] = []

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Success is whatever raises nothing and gives something."""
        self.tried += 1
        with contextlib.suppress(OSError, grpc.RpcError, urllib.error.URLError):
            if (got := action()) not in (None, False, b"", ""):
                self.succeeded.append(f"{what}: {str(got)[:100]}")


def processes(uid: int) -> Iterator[Path]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                yield entry


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""


def inside_processes(tries: Attempts, found: list[Path]) -> None:
    for process in found:
        name = f"{process.name} {command_line(process)[:40]}"
        for part in ("environ", "maps"):
            tries.attempt(f"read {part} of {name}", (process / part).read_bytes)
        tries.attempt(f"list files of {name}", lambda: [*(process / "fd").iterdir()])  # noqa: B023
        tries.attempt(f"enter the folder of {name}", (process / "cwd").readlink)
        tries.attempt(f"signal {name}", lambda: os.kill(int(process.name), 0) or True)  # noqa: B023


def closed_folders(tries: Attempts, paths: set[Path]) -> None:
    """What nobody else may even see: all that command lines name of Ray's, and each folder on the
    way to it.
    """
    for path in sorted(paths):
        tries.attempt(f"list {path}", lambda: [*path.iterdir()])  # noqa: B023
        tries.attempt(f"read {path}", path.read_bytes)
        tries.attempt(f"see {path}", (path / "session_latest").lstat)
        tries.attempt(f"connect to {path}", lambda: connect(path))  # noqa: B023
        spoil(tries, path)


def spoil(tries: Attempts, path: Path) -> None:
    """Change, replace and open what somebody else owns."""
    tries.attempt(f"write into {path}", lambda: (path / "planted.py").open("x"))
    tries.attempt(f"append to {path}", lambda: path.open("ab"))
    tries.attempt(f"move {path}", lambda: path.rename(f"{path}.moved"))
    tries.attempt(f"open {path} to others", lambda: path.chmod(0o777) or True)
    if not os.path.isdir(path):  # noqa: PTH112  (False where nobody may look)
        tries.attempt(f"delete {path}", lambda: path.unlink() or True)


def connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    return True


def listeners(uid: int) -> list[tuple[str, int]]:
    """Addresses and ports on which the user's processes wait for TCP connections or UDP packets."""
    found = []
    for table, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[7]) == uid and fields[3] == waiting:
                host, port = fields[1].split(":")
                words = struct.pack(
                    f"={len(host) // 8}I",
                    *(int(host[i : i + 8], 16) for i in range(0, len(host), 8)),
                )
                family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
                found.append(
                    (socket.inet_ntop(family, words).removeprefix("::ffff:"), int(port, 16))
                )
    return found


def ask(tries: Attempts, host: str, port: int) -> None:
    """Everything that a listener could answer or do, without a token and with a wrong one."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)
    place = f"{reached}:{port}"
    for token in (None, WRONG):
        channel = grpc.insecure_channel(place, options=[("grpc.enable_http_proxy", 0)])
        for method in METHODS:
            metadata = [("authorization", token)] if token else []
            call = channel.unary_unary(f"/ray.rpc.{method}")
            tries.attempt(
                f"{method} of {place}",
                lambda: str(call(b"", timeout=3, metadata=metadata)) + "!",  # noqa: B023
            )
        channel.close()
        for page, data in itertools.product(PAGES, (None, b'{"entrypoint": "true"}')):
            headers = {"Authorization": token} if token else {}
            request = urllib.request.Request(f"http://{place}{page}", data, headers)
            tries.attempt(
                f"{'post to' if data else 'get'} {page} of {place}",
                lambda: page_of(request),  # noqa: B023
            )


def page_of(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=3) as answer:
            return bytes(answer.read(200))
    except Exception as error:  # http.client's, where what answers speaks something else
        raise OSError(str(error)) from error


def with_ray(tries: Attempts, head: str) -> None:
    """Connect as a driver and join as a node, with a token of one's own."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    drive = f"import ray; ray.init(address={head!r}, log_to_driver=False); print(len(ray.nodes()))"
    start = ["-m", "ray.scripts.scripts", "start", "--block", f"--address={head}"]
    running = []
    for line in (["-c", drive], start):
        for settings in (own, {"RAY_AUTH_MODE": "disabled"}):
            command = ["timeout", "-k", "1", "30", sys.executable, *line]
            environment = {**os.environ, **settings}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            running.append((line[0], subprocess.Popen(command, env=environment, **pipes)))
    for name, process in running:  # side by side, since most of their time is waiting
        printed, _ = process.communicate()
        tries.attempt(f"{name} on {head}", lambda: process.returncode == 0 and printed)  # noqa: B023


def main(uid: int, folders: list[Path]) -> None:
    tries = Attempts()
    found = list(processes(uid))
    lines = [command_line(each) for each in found]
    named = {Path(path) for line in lines for path in re.findall(r"(?<==)/[^\s:,]+", line)}
    rays = {path for path in named if "/session_" in f"{path}/" or path.name == "r"}
    private = {way for path in rays for way in (path, *path.parents) if len(way.parts) > 2}
    private |= {
        path for place in ("/tmp", "/var/tmp", "/dev/shm") for path in Path(place).glob("rf-*")
    }
    inside_processes(tries, found)
    closed_folders(tries, private)
    for folder in folders:
        spoil(tries, folder)
        for place, below, files in os.walk(folder):  # what cannot be listed is passed over
            for name in (*below, *files):
                spoil(tries, Path(place) / name)
    for path in Path("/dev/shm").iterdir():
        if path.lstat().st_uid == uid:
            tries.attempt(f"read {path}", path.read_bytes)
            spoil(tries, path)
    places = listeners(uid)
    for host, port in places:
        ask(tries, host, port)
    heads = {head for line in lines for head in re.findall(r"--gcs-address=(\S+)", line)}
    for head in sorted(heads):
        with_ray(tries, head)
    told = {
        "tried": tries.tried,
        "succeeded": tries.succeeded,
        "listeners": [f"{host}:{port}" for host, port in places],
        "private": sorted(map(str, private)),
        "heads": sorted(heads),
        "command_lines": lines,
    }
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]])
