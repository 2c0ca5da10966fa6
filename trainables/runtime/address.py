"""The address of somebody else's Ray cluster: whether it can be one, and whether such a cluster
answers there.
"""

import os
import re
import socket
import time

from trainables.core.errors import ResourceError

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,@\[\]]+):([0-9]{1,5})")
_WANTED = "host:port of the head node, usually host:6379, or leave it out to use this machine alone"
_PATIENCE = (
    10.0  # seconds for a head that is about to start; Ray itself would go on for seven minutes
)
# of every gRPC client: RFC 9113, 3.4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS = 4  # the type of frame that every server answers with


def check_form(address: str) -> None:
    """Raise ResourceError where this is no address of a cluster's head; 'auto' is what Ray finds on
    this machine.
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in ("http", "https"):
        raise ResourceError(
            f"RAY_ADDRESS or --address is {address!r}, a dashboard, which takes only `ray job "
            f"submit --address`: set it to {_WANTED}"
        )
    if scheme == "ray":
        raise ResourceError(
            f"RAY_ADDRESS or --address is {address!r}, for Ray Client, through which rayfold "
            "cannot run: start it on a node of the cluster, by `ray job submit` for instance, with "
            f"{_WANTED}"
        )
    found = _HOST_AND_PORT.fullmatch(address)
    if address != "auto" and not (found and 0 < int(found[2]) < 65536):
        raise ResourceError(
            f"RAY_ADDRESS or --address must be host:port or auto, got {address!r}: set it to "
            f"{_WANTED}"
        )


def check_answer(address: str, asked: str) -> None:
    """Raise ResourceError where no gRPC server answers at host:port within seconds; `asked`: what
    the user wrote.

    Looks at it as Ray's client would begin, but without Ray's patience. TLS (RAY_USE_TLS) is left
    to Ray.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            speaks = _speaks_grpc(address, _PATIENCE)
            break
        except OSError as error:
            unknown = isinstance(error, socket.gaierror)
            if unknown or time.monotonic() >= until:
                reason = "no host has that name" if unknown else error.strerror or str(error)
                raise ResourceError(
                    f"no Ray cluster answers at {asked_for(asked, address)} ({reason}): it has "
                    f"ended or the address is another one; set it to {_WANTED}"
                ) from None
        time.sleep(0.5)
    if not speaks:
        raise ResourceError(
            f"what answers at {asked_for(asked, address)} is not the head of a Ray cluster, or it "
            f"hangs: set RAY_ADDRESS or --address to {_WANTED}"
        )


def check_own(address: str) -> None:
    """Raise ResourceError unless a node of the cluster at host:port runs on this machine under our
    user.

    Ray's `auto` believes whatever stands in a file of /tmp or in anybody's command line, and who
    joins a cluster runs what its head sends.
    """
    import psutil

    for process in psutil.process_iter(["name", "uids", "cmdline"]):
        name, owner, words = (process.info[key] for key in ("name", "uids", "cmdline"))
        if (
            name == "raylet"
            and owner
            and owner.real == os.getuid()
            and f"--gcs-address={address}" in (words or ())
        ):
            return
    raise ResourceError(
        f"RAY_ADDRESS or --address auto finds a Ray cluster at {address}, of which no node on this "
        f"machine is yours: set it to {address} if you trust whoever runs it, or leave it out to "
        "use this machine alone"
    )


def asked_for(asked: str, address: str) -> str:
    """The address as it was written, and what Ray makes of it where that is another."""
    return f"RAY_ADDRESS or --address {asked!r}" + (
        "" if asked == address else f", which is {address}"
    )


def is_ray(address: str, seconds: float) -> bool:
    """Whether a gRPC server answers at host:port in about so many seconds."""
    try:
        return _speaks_grpc(address, seconds)
    except OSError:
        return False


def _speaks_grpc(address: str, seconds: float) -> bool:
    """Raises OSError where nobody listens; False where what listens is no gRPC server, or hangs."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return True
        try:
            connection.sendall(_PREFACE)
            answer = b""
            while len(answer) < 4 and (more := connection.recv(9)):
                answer += more
        except OSError:  # reset, or nothing before the time is over
            return False
    return len(answer) >= 4 and answer[3] == _SETTINGS
