"""Two engines over TUN between network namespaces: every offload, lost and changed sources."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cext.crypto.primitives import x25519_public
from cext.engine import engine as module
from tests.support import old_kernel
from tests.support.engine_pair import secret, wait_until
from tests.support.engine_process import EngineProcess
from tests.support.netns import Lab, Namespace, available, pair
from tests.support.peers import wireguard_go_debian
from tests.support.transfer import __file__ as TRANSFER

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not available(), reason="needs root, /dev/net/tun and ip"),
]

PORT = 51820
EVERYTHING = ["vnet_hdr", "tso", "uso", "gso_max", "udp_gso", "udp_gro", "mmsg", "pktinfo"]


@dataclass
class Side:
    """One namespace, its engine, and addresses: outer 192.168.77.N, inner 10.9.0.N, fd09::N."""

    number: int
    space: Namespace
    engine: EngineProcess

    @property
    def public(self) -> bytes:
        return x25519_public(secret(self.number))

    def bring_up(self, mtu: int = 1420) -> None:
        self.engine.open_tun("wt0", mtu)
        self.engine.set_private_key(secret(self.number))
        for address in (f"10.9.0.{self.number}/24", f"fd09::{self.number}/64"):
            nodad = ["nodad"] if ":" in address else []
            self.space.run("ip", "addr", "add", address, "dev", "wt0", *nodad)
        self.space.run("ip", "link", "set", "wt0", "up")
        self.engine.set_listen_port(PORT)
        self.engine.up()

    def knows(self, other: Side, host: str | None) -> None:
        self.engine.set_peer(
            other.public,
            endpoint=[host, PORT] if host else None,
            allowed_ips=[f"10.9.0.{other.number}/32", f"fd09::{other.number}/128"],
        )

    def ping(self, host: str, count: int = 3) -> None:
        self.space.run("ping", "-n", "-c", str(count), "-i", "0.05", "-W", "3", host)

    def events(self, kind: int) -> list[list[object]]:
        return [event for event in self.engine.events() if event[0] == kind]


class Sides:
    """Both sides, joined by veth."""

    def __init__(self, left: list[str], right: list[str], outer: int = 4, **more: object) -> None:
        self.disable = (left, right)
        self.outer = outer
        self.more = more

    def __enter__(self) -> tuple[Side, Side]:
        self.pair = pair("eng")
        _, *spaces = self.pair.__enter__()
        self.engines: list[EngineProcess] = []
        sides = []
        for i, space in enumerate(spaces):
            engine = EngineProcess(space.name, disable=self.disable[i], **self.more)
            self.engines.append(engine)
            sides.append(Side(i + 1, space, engine))
            sides[-1].bring_up()
        a, b = sides
        a.knows(b, "192.168.77.2" if self.outer == 4 else "fd77::2")
        b.knows(a, None)
        return a, b

    def __exit__(self, *error: object) -> None:
        for engine in self.engines:
            engine.close()
        self.pair.__exit__(None, None, None)


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    with Sides([], []) as both:
        yield both


def carry(sender: Side, receiver: Side, host: str, size: int) -> None:
    """Send random bytes by TCP and compare their digests."""
    command = [sys.executable, TRANSFER]
    there = subprocess.Popen(
        receiver.space.command(*command, "recv", host, "5000"), stdout=subprocess.PIPE, text=True
    )
    assert there.stdout
    try:
        assert there.stdout.readline() == "listening\n"
        sent = sender.space.run(*command, "send", host, "5000", str(size), "1").strip()
        assert there.stdout.readline().strip() == sent
    finally:
        there.kill()
        there.wait()
        there.stdout.close()


def datagrams(sender: Side, receiver: Side, host: str) -> float:
    """Send UDP by iperf3 for a second; return the share that was lost."""
    import json

    server = subprocess.Popen(
        receiver.space.command("iperf3", "-s", "-1", "--forceflush"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    try:
        while "listening" not in server.stdout.readline():
            pass
        out = sender.space.run(
            *("iperf3", "-c", host, "-u", "-l", "400", "-b", "4M", "-t", "1", "-J")
        )
        return float(json.loads(out)["end"]["sum"]["lost_percent"])
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


COMBINATIONS = [
    ([], []),
    (["uso"], []),
    (["tso", "uso"], []),
    (["vnet_hdr"], []),
    (["gso_max"], []),
    (["udp_gso"], []),
    (["udp_gro"], []),
    (["mmsg"], []),
    (EVERYTHING, []),
    (EVERYTHING, EVERYTHING),
]


@pytest.mark.parametrize(
    ("left", "right"), COMBINATIONS, ids=lambda names: "-".join(names) or "all"
)
def test_traffic_with_and_without_each_offload(left: list[str], right: list[str]) -> None:
    with Sides(left, right) as (a, b):
        a.ping("10.9.0.2")
        b.ping("fd09::1")
        carry(a, b, "10.9.0.2", 4 << 20)
        carry(b, a, "fd09::1", 4 << 20)
        assert datagrams(a, b, "10.9.0.2") < 20
        features = a.engine.features()
        assert not any(features[name] for name in left)
        for side in (a, b):
            unexpected = set(side.engine.drops()) - {"wg_no_route", "host_send_buffer_full"}
            assert not unexpected, side.engine.drops()


def test_over_outer_ipv6() -> None:
    with Sides([], [], outer=6) as (a, b):
        carry(a, b, "10.9.0.2", 4 << 20)
        carry(b, a, "fd09::1", 4 << 20)


@pytest.mark.parametrize("outer", [4, 6])
def test_congestion_notification_is_shown_outside(outer: int) -> None:
    """The inner ECN codepoint goes into the outer header, the DSCP does not."""
    with Sides([], [], outer=outer) as (a, b):
        for side in (a, b):
            side.space.run("sysctl", "-qw", "net.ipv4.tcp_ecn=1")
        a.ping("10.9.0.2")
        what = "ip[1] == 2" if outer == 4 else "ip6[0:2] & 0xfff0 == 0x6020"
        filter_text = f"udp port {PORT} and {what}"
        seen = subprocess.Popen(
            b.space.command("tcpdump", "-n", "-i", "eth0", "-c", "5", filter_text),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert seen.stderr
        try:
            while "listening" not in seen.stderr.readline():
                pass
            carry(a, b, "10.9.0.2", 1 << 20)
            carry(a, b, "fd09::2", 1 << 20)
            assert seen.wait(10) == 0
        finally:
            seen.kill()
            seen.wait()
            seen.stderr.close()
        assert a.engine.drops().get("host_send_failed", 0) == 0


def test_super_packets_are_used(sides: tuple[Side, Side]) -> None:
    a, b = sides
    if not a.engine.features()["tso"]:
        pytest.skip("this kernel's TUN has no TSO")
    carry(a, b, "10.9.0.2", 16 << 20)
    sent, received = a.engine.statistics(), b.engine.statistics()
    assert sent["tx_packets"] > 4 * sent["inner_reads"]
    assert sent["tx_packets"] > 4 * sent["udp_send_calls"]
    assert received["rx_packets"] > 4 * received["inner_writes"]
    assert received["rx_packets"] > 4 * received["udp_receive_buffers"]


def test_memory_does_not_grow_under_load(sides: tuple[Side, Side]) -> None:
    def rss_kib(side: Side) -> int:
        with open(f"/proc/{side.engine.pid}/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    a, b = sides
    a.ping("10.9.0.2")
    before = [rss_kib(side) for side in sides]
    carry(a, b, "10.9.0.2", 64 << 20)
    carry(b, a, "10.9.0.1", 64 << 20)
    after = [rss_kib(side) for side in sides]
    assert max(y - x for x, y in zip(before, after, strict=True)) <= 2048


def test_a_source_address_that_goes_away(sides: tuple[Side, Side]) -> None:
    """The peer reached us at an address that is removed while packets flow."""
    a, b = sides
    b.space.run("ip", "addr", "add", "192.168.77.3/24", "dev", "eth0")
    a.engine.set_peer(b.public, endpoint=["192.168.77.3", PORT])
    a.ping("10.9.0.2")
    assert a.engine.status()[4][0][2][0] == "192.168.77.3"
    b.space.run("ip", "addr", "del", "192.168.77.3/24", "dev", "eth0")
    b.ping("10.9.0.1")
    assert [event[1] for event in b.events(module.EVENT_SOURCE_LOST)] == [a.public]
    a.ping("10.9.0.2")
    assert a.engine.status()[4][0][2][0] == "192.168.77.2"


def test_a_source_address_that_changes(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.ping("10.9.0.2")
    a.space.run("ip", "addr", "add", "192.168.77.9/24", "dev", "eth0")
    a.space.run("ip", "addr", "del", "192.168.77.1/24", "dev", "eth0")
    a.space.run("ip", "addr", "replace", "192.168.77.9/24", "dev", "eth0")
    a.ping("10.9.0.2")
    wait_until(lambda: b.engine.status()[4][0][2][0] == "192.168.77.9")


def test_an_answer_comes_from_the_address_that_was_asked(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.space.run("ip", "addr", "add", "192.168.77.3/24", "dev", "eth0")
    a.engine.set_peer(b.public, endpoint=["192.168.77.3", PORT])
    a.ping("10.9.0.2")
    b.ping("10.9.0.1")
    # A wrong source would have made us roam to it.
    assert a.engine.status()[4][0][2][0] == "192.168.77.3"


def test_no_ipv6_on_the_host() -> None:
    with Lab("eng") as lab:
        space = lab.namespace("a")
        space.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        with EngineProcess(space.name) as engine:
            assert engine.up() > 0


def test_bind_interface_and_fwmark(sides: tuple[Side, Side]) -> None:
    a, _ = sides
    a.engine.set_bind_interface("eth0")
    a.ping("10.9.0.2")
    a.engine.set_bind_interface("lo")
    with pytest.raises(RuntimeError):
        a.space.run("ping", "-c", "1", "-W", "1", "10.9.0.2")
    # With a bound interface Linux does without a route, so that no rule would matter.
    a.engine.set_bind_interface(None)
    a.engine.set_fwmark(0x77)
    a.ping("10.9.0.2")
    a.space.run("ip", "rule", "add", "fwmark", "0x77", "unreachable")
    a.space.run("ping", "-c", "1", "-W", "1", "10.9.0.2", check=False)
    assert a.engine.drops()["host_send_failed"] > 0
    a.engine.set_fwmark(0)
    a.ping("10.9.0.2")


def test_the_device_going_away_is_told(sides: tuple[Side, Side]) -> None:
    a, _ = sides
    a.ping("10.9.0.2")
    a.space.run("ip", "link", "del", "wt0")
    wait_until(lambda: a.events(module.EVENT_INNER_CLOSED))
    a.engine.open_tun("wt0", 1400)
    a.space.run("ip", "addr", "add", "10.9.0.1/24", "dev", "wt0")
    a.space.run("ip", "link", "set", "wt0", "up")
    a.ping("10.9.0.2")


def test_another_namespace_holds_the_device() -> None:
    with Lab("eng") as lab:
        space = lab.namespace("a")
        fd = os.open(f"/run/netns/{space.name}", os.O_RDONLY)
        try:
            engine = module.Engine()
            engine.start()
            info = engine.open_tun("wt0", 1300, fd)
            assert "mtu 1300" in space.run("ip", "link", "show", "wt0")
            assert "qlen 1000" in space.run("ip", "link", "show", "wt0")
            engine.set_mtu(1280)
            assert "mtu 1280" in space.run("ip", "link", "show", "wt0")
            assert info.ifindex > 0
            engine.stop()
        finally:
            os.close(fd)


def gso_max(space: Namespace) -> int:
    (link,) = json.loads(space.run("ip", "-j", "-d", "link", "show", "wt0"))
    return int(link["gso_max_size"])


def test_super_packets_are_bounded_anew_with_the_mtu() -> None:
    with Lab("eng") as lab:
        space = lab.namespace("a")
        fd = os.open(f"/run/netns/{space.name}", os.O_RDONLY)
        engine = module.Engine()
        try:
            engine.start()
            engine.open_tun("wt0", 1420, fd)
            at_1420 = gso_max(space)
            assert at_1420 < 65536
            engine.set_mtu(600)
            assert gso_max(space) < at_1420 * 2 // 3, "64 segments, no more"
            engine.set_mtu(1420)
            assert gso_max(space) == at_1420
        finally:
            engine.stop()
            os.close(fd)


def test_a_device_that_is_moved_is_found_again() -> None:
    with Lab("eng") as lab:
        first, second = lab.namespace("a"), lab.namespace("b")
        fd = os.open(f"/run/netns/{first.name}", os.O_RDONLY)
        engine = module.Engine()
        try:
            engine.start()
            info = engine.open_tun("wt0", 1420, fd)
            assert engine.inner_link() == (info.ifindex, 1420, False)
            first.run("ip", "link", "set", "wt0", "up")
            assert engine.inner_link() == (info.ifindex, 1420, True)
            first.run("ip", "link", "set", "wt0", "netns", second.name, "name", "wt1")
            # Not the one that has its name now.
            veth = ("type", "veth", "peer", "name", "wt9")
            first.run("ip", "link", "add", "wt0", "mtu", "1111", *veth)
            second.run("ip", "link", "set", "wt1", "mtu", "1333")
            link = engine.inner_link()
            assert link is not None
            assert (link.mtu_bytes, link.is_up) == (1333, False)
            second.run("ip", "link", "set", "wt1", "up")
            assert engine.inner_link() == (link.ifindex, 1333, True)
            engine.set_mtu(1300)
            assert "mtu 1300" in second.run("ip", "link", "show", "wt1")
            assert "mtu 1111" in first.run("ip", "link", "show", "wt0")
            second.run("ip", "link", "del", "wt1")
            with pytest.raises(OSError, match="bad state"):
                engine.inner_link()
            engine.detach_inner()
            assert engine.inner_link() is None
        finally:
            engine.stop()
            os.close(fd)


def test_a_device_without_checksum_offload(tmp_path: Path) -> None:
    """UDP_SEGMENT fails with EIO there: the run goes out one by one, and so does the rest."""
    library = tmp_path / "eio.so"
    source = Path(__file__).parents[1] / "support" / "no_checksum_offload.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    with Sides([], [], preload=str(library)) as (a, b):
        assert a.engine.features()["udp_gso"]
        carry(a, b, "10.9.0.2", 4 << 20)
        assert not a.engine.features()["udp_gso"]
        assert a.engine.drops().get("host_send_failed", 0) == 0


def test_a_path_smaller_than_the_segments(sides: tuple[Side, Side]) -> None:
    """UDP_SEGMENT fails with EINVAL there: the datagrams are fragmented, GSO stays."""
    a, b = sides
    for side in sides:
        side.space.run("ip", "link", "set", "eth0", "mtu", "1300")
    carry(a, b, "10.9.0.2", 1 << 20)
    carry(b, a, "fd09::1", 1 << 20)
    assert a.engine.features()["udp_gso"]
    assert a.engine.drops().get("host_send_failed", 0) == 0


@pytest.mark.skipif(not old_kernel.available(), reason="no system call numbers for this machine")
def test_on_a_kernel_of_the_3_10_era() -> None:
    with Sides(["vnet_hdr", "tso", "uso", "gso_max"], [], old_kernel=True) as (a, b):
        features = a.engine.features()
        assert not any(features[name] for name in ("mmsg", "udp_gso", "udp_gro"))
        a.ping("10.9.0.2")
        carry(a, b, "10.9.0.2", 2 << 20)
        carry(b, a, "fd09::1", 2 << 20)
        statistics = a.engine.statistics()
        assert statistics["udp_receive_calls"] >= statistics["udp_receive_buffers"]


def test_wireguard_go_at_the_other_end() -> None:
    peer = wireguard_go_debian()
    if peer is None:
        pytest.skip("wireguard-go is not installed")
    with pair("eng") as (_, left, right):
        import base64

        from tests.support.peers import start

        with EngineProcess(left.name) as engine:
            a = Side(1, left, engine)
            a.bring_up()
            node = start(peer, right, "wt1", ("10.9.0.2/24", "fd09::2/64"))
            try:
                theirs = base64.b64decode(node.public_key)
                engine.set_peer(
                    theirs,
                    endpoint=["192.168.77.2", 51820],
                    allowed_ips=["10.9.0.2/32", "fd09::2/128"],
                )
                node.add_peer(base64.b64encode(a.public).decode(), "10.9.0.1/32,fd09::1/128")
                b = Side(2, right, engine)
                a.ping("10.9.0.2")
                carry(a, b, "10.9.0.2", 4 << 20)
                carry(b, a, "fd09::1", 4 << 20)
            finally:
                node.stop()
