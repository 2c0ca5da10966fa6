"""What is no address of a Ray cluster is told apart from what is one, in seconds."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from trainables.core.errors import ResourceError
from trainables.runtime import address as module
from trainables.runtime.address import check_answer, check_form, check_own


@pytest.mark.parametrize(
    "address", ["auto", "head:6379", "10.0.0.1:6379", "node-1.cluster.example:1", "[::1]:65535"]
)
def test_addresses_of_a_head(address: str) -> None:
    check_form(address)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("http://127.0.0.1:8265", "ray job submit"),
        ("HTTPS://head/dashboard", "ray job submit"),
        ("ray://head:10001", "Ray Client"),
        ("localhost", "host:port"),
        ("10.0.0.1", "host:port"),
        (":6379", "host:port"),
        ("head:", "host:port"),
        ("head:port", "host:port"),
        ("head:0", "host:port"),
        ("head:65536", "host:port"),
        ("head:٦٣٧٩", "host:port"),
        ("head:6379 ", "host:port"),
        ("::1:6379", "host:port"),
        ("a:6379,b:6379", "host:port"),
        ("redis://head:6379", "host:port"),
        ("local", "host:port"),
    ],
)
def test_what_cannot_be_one_says_what_could(address: str, word: str) -> None:
    with pytest.raises(ResourceError) as refusal:
        check_form(address)
    text = str(refusal.value)
    assert word in text
    assert repr(address) in text
    assert "host:6379" in text
    assert "\n" not in text


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Listens, and answers whatever comes with the same bytes, or keeps silent."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            open_ones.append(connection)
            if answer is not None:
                connection.recv(1024)
                connection.sendall(answer)

    open_ones: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    for connection in open_ones:
        connection.close()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", None]
)
def test_another_server_or_a_hanging_one_is_no_cluster(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    with (
        server(answer) as address,
        pytest.raises(ResourceError, match="not the head of a Ray cluster, or it hangs"),
    ):
        check_answer(address, address)


def test_a_port_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"no Ray cluster answers at .*'localhost:1', which is 127.*refused"
    ):
        check_answer(address, "localhost:1")
    assert time.monotonic() - began < 5


def test_a_head_that_starts_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    def answer() -> None:
        time.sleep(1)
        with socket.create_server(("127.0.0.1", port)) as listening:
            connection, _ = listening.accept()
            connection.recv(1024)
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")  # an empty SETTINGS frame
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    check_answer(f"127.0.0.1:{port}", "a head")
    thread.join()


@pytest.mark.parametrize("uid", [None, 4301], ids=["ours", "of another user"])
def test_auto_joins_only_what_runs_as_us(uid: int | None, tmp_path: Path) -> None:
    if uid and os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    shutil.copy("/bin/sh", tmp_path / "raylet")
    tmp_path.chmod(0o755)
    command = ["./raylet", "-c", "read line", "sh", "--gcs-address=127.0.0.1:6379"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, user=uid) as process:
        try:
            with (
                pytest.raises(ResourceError, match="if you trust whoever runs it")
                if uid
                else nullcontext()
            ):
                check_own("127.0.0.1:6379")
            with pytest.raises(ResourceError, match="no node on this machine is yours"):
                check_own("127.0.0.1:637")
        finally:
            process.kill()
