"""The address of this node that the others can reach: of a named interface, or the one SLURM knows;
never loopback.
"""

import contextlib
import fcntl
import ipaddress
import socket
import struct

from cluster.common.allocation import StartError

SIOCGIFADDR = 0x8915
REMEDY = "choose an interface with --interface NAME or RAYFOLD_INTERFACE"


def interfaces() -> dict[str, str]:
    """IPv4 address by interface name, loopback included."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # down, or without an IPv4 address
                reply = fcntl.ioctl(
                    probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15])
                )
                found[name] = socket.inet_ntoa(reply[20:24])
    return found


def is_loopback(address: str) -> bool:
    """True for 127.0.0.0/8, which Debian also gives to the machine's own name (127.0.1.1)."""
    return ipaddress.ip_address(address).is_loopback


def node_address(interface: str | None, slurm_name: str | None) -> str:
    """The IPv4 address of this node.

    With `interface`, that one's. Else what `slurm_name` (SLURM's NodeAddr) resolves to, if it is
    this machine's and not loopback. Else the only address there is. Raises StartError where that
    leaves none or several.
    """
    known = interfaces()
    usable = {name: address for name, address in known.items() if not is_loopback(address)}
    shown = ", ".join(f"{name} {address}" for name, address in usable.items()) or "none"
    host = socket.gethostname()
    if interface:
        if interface in usable:
            return usable[interface]
        why = "is loopback" if interface in known else "has no IPv4 address here"
        raise StartError(f"interface {interface!r} {why} (on {host}): usable are {shown}")
    if slurm_name:
        with contextlib.suppress(OSError):
            for found in socket.getaddrinfo(slurm_name, None, socket.AF_INET, socket.SOCK_STREAM):
                if (address := str(found[4][0])) in usable.values():
                    return address
    if len(usable) == 1:
        return next(iter(usable.values()))
    raise StartError(
        f"no address of {host} is certain: SLURM's {slurm_name!r} is none of {shown}; {REMEDY}"
    )
