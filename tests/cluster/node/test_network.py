import socket

import pytest

from cluster.common.allocation import StartError
from cluster.node import network

USABLE = {
    name: address
    for name, address in network.interfaces().items()
    if not network.is_loopback(address)
}
needs_network = pytest.mark.skipif(
    not USABLE, reason="this machine has no network interface but loopback"
)


def test_loopback_has_an_address_and_is_never_used() -> None:
    assert network.interfaces()["lo"].startswith("127.")
    with pytest.raises(
        StartError, match=rf"interface 'lo' is loopback \(on {socket.gethostname()}\): usable are"
    ):
        network.node_address("lo", None)


def test_debians_127_0_1_1_is_loopback() -> None:
    assert network.is_loopback("127.0.1.1")
    assert not network.is_loopback("10.127.0.1")


def test_unknown_interface_names_the_usable_ones() -> None:
    with pytest.raises(StartError, match="interface 'ib9' has no IPv4 address here"):
        network.node_address("ib9", None)


@needs_network
def test_chosen_interface_and_slurms_address() -> None:
    for name, address in USABLE.items():
        assert network.node_address(name, None) == address
        assert network.node_address(None, address) == address


@needs_network
@pytest.mark.skipif(len(USABLE) != 1, reason="needs a machine with one address")
@pytest.mark.parametrize(
    "name", ["localhost", "127.0.1.1", "192.0.2.250", "no-such-host.invalid", None]
)
def test_a_wrong_address_gives_way_to_the_only_one(name: str | None) -> None:
    assert network.node_address(None, name) == next(iter(USABLE.values()))


def test_no_certain_address_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        network, "interfaces", lambda: {"lo": "127.0.0.1", "eth0": "10.0.0.1", "ib0": "10.1.0.1"}
    )
    assert network.node_address("ib0", None) == "10.1.0.1"
    with pytest.raises(
        StartError, match=r"none of eth0 10.0.0.1, ib0 10.1.0.1; choose .* --interface"
    ):
        network.node_address(None, "localhost")
