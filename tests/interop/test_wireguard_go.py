"""Our device against Debian's wireguard-go, and against itself, in TUN mode.

Both ends are configured by `wg`, as an operator would. Everything crosses a veth
between two namespaces.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support import netns, peers
from tests.support.netns import Namespace
from tests.support.peers import Implementation, Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not netns.available(), reason="needs root, ip and /dev/net/tun"),
]

OUTER = {"v4": ("192.168.77.1", "192.168.77.2"), "v6": ("fd77::1", "fd77::2")}
PAIRS = ("ours-theirs", "theirs-ours", "ours-ours")


def implementations(pair: str) -> tuple[Implementation, Implementation]:
    theirs = peers.wireguard_go_debian()
    if theirs is None:
        pytest.skip("wireguard-go is not installed")
    by_name = {"ours": peers.ours(), "theirs": theirs}
    left, right = pair.split("-")
    return by_name[left], by_name[right]


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace]]:
    with netns.pair("go") as (_, left, right):
        yield left, right


def ping(space: Namespace, host: str, count: int = 3, size: int = 56) -> None:
    """Fail unless every ping is answered."""
    out = space.run("ping", "-q", "-c", str(count), "-i", "0.05", "-W", "5", "-s", str(size), host)
    assert " 0% packet loss" in out, out


def transfer(sender: Namespace, receiver: Namespace, host: str, size: int) -> None:
    """Fail unless `size` bytes arrive as they were sent."""
    tool = (sys.executable, "-m", "tests.support.transfer")
    receiving = receiver.start(*tool, "recv", host, "7000", stdout=subprocess.PIPE)
    assert receiving.stdout is not None
    assert receiving.stdout.readline() == b"listening\n"
    sent = sender.run(*tool, "send", host, "7000", str(size), "7", timeout=120).strip()
    assert receiving.stdout.readline().decode().strip() == sent
    receiver.stop(receiving)


def handshakes(node: Node) -> int:
    """Return when the last handshake was, in unix seconds."""
    return int(node.wg("show", node.interface, "latest-handshakes").split()[1])


@pytest.mark.parametrize("psk", [False, True], ids=["nopsk", "psk"])
@pytest.mark.parametrize("outer", ["v4", "v6"])
@pytest.mark.parametrize("pair", PAIRS)
def test_traffic_passes_in_every_combination(
    pair: str, outer: str, psk: bool, spaces: tuple[Namespace, Namespace]
) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces, OUTER[outer], psk=psk)
    ping(a.space, "10.9.0.2")
    ping(b.space, "10.9.0.1")
    ping(a.space, "fd09::2")
    ping(b.space, "fd09::1", size=1300)
    transfer(a.space, b.space, "10.9.0.2", 4_000_000)
    transfer(b.space, a.space, "fd09::1", 4_000_000)
    received, sent = a.transfer()
    assert received > 4_000_000
    assert sent > 4_000_000
    shown = a.wg("show", a.interface, "dump").splitlines()[1].split()
    assert (shown[1] != "(none)") == psk


@pytest.mark.parametrize("pair", PAIRS)
def test_large_transfers_arrive_whole(pair: str, spaces: tuple[Namespace, Namespace]) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces)
    transfer(a.space, b.space, "10.9.0.2", 100_000_000)
    transfer(b.space, a.space, "10.9.0.1", 100_000_000)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_other_end_follows_a_changed_port(
    pair: str, spaces: tuple[Namespace, Namespace]
) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces)
    ping(a.space, "10.9.0.2")
    a.wg("set", a.interface, "listen-port", "51999")
    ping(a.space, "10.9.0.2")
    assert "192.168.77.1:51999" in b.wg("show", b.interface, "endpoints")
    ping(b.space, "10.9.0.1")


@pytest.mark.parametrize("pair", ["ours-theirs", "ours-ours"])
def test_a_lost_source_address_is_replaced_at_once(
    pair: str, spaces: tuple[Namespace, Namespace]
) -> None:
    """wireguard-go as the end that loses its address fails here."""
    a, b = peers.tunnel(*implementations(pair), spaces)
    ping(a.space, "10.9.0.2")
    ping(b.space, "10.9.0.1")
    a.space.run("ip", "addr", "del", "192.168.77.1/24", "dev", "eth0")
    a.space.run("ip", "addr", "add", "192.168.77.9/24", "dev", "eth0")
    ping(a.space, "10.9.0.2")
    assert "192.168.77.9:51820" in b.wg("show", b.interface, "endpoints")
    ping(b.space, "10.9.0.1")


@pytest.mark.parametrize("pair", PAIRS)
def test_a_new_handshake_under_traffic_loses_nothing_that_tcp_would_notice(
    pair: str, spaces: tuple[Namespace, Namespace]
) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces)
    ping(a.space, "10.9.0.2")
    first = handshakes(a)
    time.sleep(1.1)  # `wg` shows whole seconds
    b.wg("set", b.interface, "peer", a.public_key, "remove")
    b.add_peer(a, "10.9.0.1/32,fd09::1/128", "192.168.77.1:51820")
    ping(b.space, "10.9.0.1")
    ping(a.space, "10.9.0.2")
    assert handshakes(a) > first


@pytest.mark.parametrize("pair", ["ours-theirs", "ours-ours"])
def test_a_changed_psk_keeps_the_session_until_the_next_handshake(
    pair: str, spaces: tuple[Namespace, Namespace]
) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces)
    ping(a.space, "10.9.0.2")
    before = handshakes(a)
    a.space.run(
        *(
            "sh",
            "-c",
            f"wg genpsk | wg set {a.interface} peer {b.public_key} preshared-key /dev/stdin",
        )
    )
    ping(a.space, "10.9.0.2")
    assert handshakes(a) == before


@pytest.mark.parametrize("pair", ["ours-theirs", "theirs-ours", "ours-ours"])
def test_what_a_peer_may_not_send_is_dropped(
    pair: str, spaces: tuple[Namespace, Namespace]
) -> None:
    a, b = peers.tunnel(*implementations(pair), spaces)
    ping(a.space, "10.9.0.2")
    b.wg("set", b.interface, "peer", a.public_key, "allowed-ips", "10.9.0.77/32")
    out = a.space.run("ping", "-q", "-c", "2", "-i", "0.1", "-W", "1", "10.9.0.2", check=False)
    assert "100% packet loss" in out


@pytest.mark.parametrize("pair", ["ours-theirs", "ours-ours"])
def test_a_restarted_far_end_is_found_again(pair: str, spaces: tuple[Namespace, Namespace]) -> None:
    left, right = implementations(pair)
    a, b = peers.tunnel(left, right, spaces)
    ping(a.space, "10.9.0.2")
    private = b.wg("show", b.interface, "private-key").strip()
    b.stop()
    c = peers.start(right, spaces[1], b.interface, ("10.9.0.2/24", "fd09::2/64"))
    c.space.run("sh", "-c", f"echo {private} | wg set {c.interface} private-key /dev/stdin")
    c.add_peer(a, "10.9.0.1/32,fd09::1/128")
    # Data sent into the void for KEEPALIVE_TIMEOUT + REKEY_TIMEOUT makes a new handshake.
    out = a.space.run(
        "ping", "-q", "-c", "100", "-i", "0.25", "-w", "25", "10.9.0.2", check=False, timeout=40
    )
    found = re.search(r"(\d+) received", out)
    assert found, out
    assert int(found.group(1)) > 10, out
