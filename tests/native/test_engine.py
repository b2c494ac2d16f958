"""The engine on loopback without root: traffic, fall-backs, commands, memory, a busy GIL."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cext.engine import engine as module
from cext.engine.engine import Endpoint, Engine, EngineStopped
from cext.engine.testing import put_events
from tests.support import packets
from tests.support.engine_pair import Host, Two, secret, wait_until
from tests.support.packets import Segment

HAS_IPV6 = socket.has_ipv6 and os.path.exists("/proc/net/if_inet6")  # noqa: PTH110


@pytest.fixture
def two() -> Iterator[tuple[Host, Host]]:
    with Two() as hosts:
        yield hosts


def exchange(a: Host, b: Host, n: int = 40, size: int = 700) -> None:
    """Send both ways, in bursts, both families; everything arrives as it was."""
    for family in (4, 6):
        there = [a.packet(b, bytes([i]) * size, family) for i in range(n)]
        a.send(*there)
        assert b.receive(n) == there
        back = [b.packet(a, bytes([i]) * (size + i), family) for i in range(n)]
        b.send(*back)
        assert a.receive(n) == back


@pytest.mark.parametrize("outer", [4, pytest.param(6, marks=pytest.mark.skipif(
    not HAS_IPV6, reason="this host has no IPv6"))])  # fmt: skip
def test_traffic_both_ways(outer: int) -> None:
    with Two(outer) as (a, b):
        exchange(a, b)
        assert a.engine.drops() == {}
        assert b.engine.drops() == {}
        status = b.engine.status().peers[0]
        assert status.endpoint is not None
        assert (":" in status.endpoint.host) == (outer == 6)
        assert status.rx_bytes > 40 * 700
        assert status.last_handshake_unix_ns > 1_600_000_000 * 10**9


def test_a_full_ring_of_events_has_room_for_what_must_not_be_lost() -> None:
    noise, vital = module.EVENT_HANDSHAKE, [module.EVENT_TIMESTAMP_FLOOR, module.EVENT_INNER_CLOSED]
    assert put_events([noise] * 300 + vital) == [noise] * 248 + vital
    assert put_events(vital * 200) == vital * 128


def test_a_lone_packet_leaves_at_once(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    times = []
    for _ in range(50):
        started = time.monotonic()
        a.send(a.packet(b, b"ping"))
        assert b.receive()
        times.append(time.monotonic() - started)
    assert sorted(times)[25] < 0.02


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1391, 1392])
def test_sizes_up_to_the_mtu(two: tuple[Host, Host], size: int) -> None:
    a, b = two
    packet = a.packet(b, os.urandom(size))
    a.send(packet)
    assert b.receive() == [packet]


FALLBACKS = [
    (),
    ("udp_gso",),
    ("udp_gro",),
    ("mmsg",),
    ("udp_gso", "mmsg"),
    ("pktinfo",),
    ("ipv6",),
    ("udp_gso", "udp_gro", "mmsg", "pktinfo", "ipv6", "vnet_hdr", "tso", "uso", "gso_max"),
]


@pytest.mark.parametrize("left", FALLBACKS)
@pytest.mark.parametrize("right", [FALLBACKS[0], FALLBACKS[-1]])
def test_without_a_host_feature(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    with Two(4, {"disable": frozenset(left)}, {"disable": frozenset(right)}) as (a, b):
        found = a.engine.features()
        assert not any(found[name] for name in left)
        exchange(a, b, 100, 300)
        statistics = a.engine.statistics()
        if "udp_gso" in left and "mmsg" in left:
            assert statistics["udp_send_calls"] >= statistics["tx_packets"]
        elif not left:
            assert statistics["udp_send_calls"] < statistics["tx_packets"]


def test_threads_keep_the_order() -> None:
    with Two(4, {"threads": 3}, {"threads": 3}) as (a, b):
        exchange(a, b, 1)
        want = [a.packet(b, i.to_bytes(2, "big") * 600) for i in range(600)]
        got: list[bytes] = []
        for at in range(0, len(want), 100):
            a.send(*want[at : at + 100])
            got += b.receive(100)
        assert got == want


def test_many_peers_at_once() -> None:
    hosts = [Host(i) for i in range(1, 6)]
    try:
        for host in hosts:
            host.engine.up()
        hub, *spokes = hosts
        for spoke in spokes:
            spoke.knows(hub)
            hub.knows(spoke, None)
            spoke.send(spoke.packet(hub, b"hello"))
            assert hub.receive()
        mixed = [hub.packet(spokes[i % 4], bytes([i]) * (i + 1)) for i in range(120)]
        hub.send(*mixed)
        for i, spoke in enumerate(spokes):
            assert spoke.receive(30) == mixed[i::4]
    finally:
        for host in hosts:
            host.__exit__(None, None, None)


# -- commands --


def test_listen_port_rules(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 2)
    port = a.port
    assert port > 0
    assert a.engine.up() == port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        number = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            a.engine.set_listen_port(number)
        assert a.port == port
        exchange(a, b, 2)
    fresh = a.engine.set_listen_port(number)
    assert fresh == number == a.port
    exchange(a, b, 2)  # the peer follows
    a.engine.down()
    assert a.port == 0
    assert a.engine.set_listen_port(port) == port
    assert a.engine.up() == port
    with pytest.raises(ValueError, match="port"):
        a.engine.set_listen_port(65536)


def test_both_families_share_the_port() -> None:
    with Host(1) as host:
        port = host.engine.up()
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            if family == socket.AF_INET6 and not HAS_IPV6:
                continue
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                with pytest.raises(OSError, match="in use"):
                    probe.bind((address, port))


def test_roaming_is_followed_and_told(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 2)
    b.saw(module.EVENT_ENDPOINT)
    b.events.clear()
    port = a.engine.set_listen_port(0)
    exchange(a, b, 2)
    assert b.engine.status().peers[0].endpoint == Endpoint("127.0.0.1", port)
    assert b.saw(module.EVENT_ENDPOINT)[0].public_key == a.public


def test_an_idle_engine_sleeps(two: tuple[Host, Host]) -> None:
    """What it makes ahead of handshakes comes to an end."""
    a, b = two
    exchange(a, b, 1)

    def turns() -> int:
        return a.engine.statistics()["turns"]

    def is_asleep() -> bool:
        before = turns()
        time.sleep(0.1)
        # One for the question itself, one for a timer.
        return turns() - before <= 3

    wait_until(is_asleep)


def test_events_wake_the_reader(two: tuple[Host, Host]) -> None:
    a, b = two
    a.engine.events()
    assert not select.select([a.engine.event_fd], [], [], 0)[0]
    exchange(a, b, 1)
    assert select.select([a.engine.event_fd], [], [], 5)[0]
    wait_until(lambda: a.saw(module.EVENT_HANDSHAKE))
    made = a.saw(module.EVENT_HANDSHAKE)[0]
    assert made.public_key == b.public
    assert abs(made.value - time.time_ns()) < 60 * 10**9


def test_peers_are_changed_under_traffic(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    stop = threading.Event()
    sent = 0

    def pump() -> None:
        nonlocal sent
        while not stop.is_set():
            a.send(a.packet(b, sent.to_bytes(4, "big")))
            sent += 1
            time.sleep(0.0002)

    thread = threading.Thread(target=pump)
    thread.start()
    slowest = 0.0
    for i in range(100):
        started = time.monotonic()
        extra = bytes([i, *range(31)])
        assert a.engine.set_peer(extra, allowed_ips=(f"10.20.{i}.0/24", f"fd20:{i}::/32"))
        assert len(a.engine.status().peers) == 2
        assert a.engine.remove_peer(extra)
        slowest = max(slowest, time.monotonic() - started)
    stop.set()
    thread.join()
    assert len(b.receive(sent, 3)) == sent
    assert slowest < 1.0


def test_status_tells_what_was_set() -> None:
    with Host(1) as host:
        psk = bytes(range(32))
        many = tuple(f"10.{i // 250}.{i % 250}.0/24" for i in range(1300))
        keys = [bytes([2, i, *range(30)]) for i in range(70)]
        for key in keys:
            host.engine.set_peer(key, preshared_key=psk, keepalive_s=25)
        host.engine.set_peer(keys[3], endpoint=Endpoint("fe80::1", 7, 1), allowed_ips=many)
        host.engine.set_peer(keys[69], allowed_ips=("fd00::/8", "10.200.0.1/32", "0.0.0.0/0"))
        host.engine.set_fwmark(0)
        status = host.engine.status()
        assert status.private_key == host.private
        assert status.public_key == host.public
        assert {p.public_key for p in status.peers} == set(keys)
        by_key = {p.public_key: p for p in status.peers}
        assert by_key[keys[3]].allowed_ips == many
        assert by_key[keys[3]].endpoint == Endpoint("fe80::1", 7, 1)
        assert by_key[keys[69]].allowed_ips == ("0.0.0.0/0", "10.200.0.1/32", "fd00::/8")
        assert by_key[keys[9]].keepalive_s == 25
        assert by_key[keys[9]].preshared_key == psk
        host.engine.set_peer(keys[3], replace_allowed_ips=True, allowed_ips=("10.0.0.0/8",))
        host.engine.set_peer(keys[69], removed_allowed_ips=("fd00::/8",))
        by_key = {p.public_key: p for p in host.engine.status().peers}
        assert by_key[keys[3]].allowed_ips == ("10.0.0.0/8",)
        assert by_key[keys[69]].allowed_ips == ("0.0.0.0/0", "10.200.0.1/32")
        assert not host.engine.set_peer(bytes([9] * 32), update_only=True)
        host.engine.remove_all_peers()
        assert host.engine.status().peers == ()


def test_a_status_is_of_one_moment() -> None:
    """It is read in parts; another thread adds and removes peers all the while."""
    with Host(1) as host:
        passing = [bytes([3, i, *range(30)]) for i in range(8)]
        staying = [bytes([2, i, *range(30)]) for i in range(120)]
        for key in passing + staying:
            host.engine.set_peer(key, allowed_ips=(f"10.{key[0]}.{key[1]}.0/24",))
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                for key in passing:
                    host.engine.remove_peer(key)
                for key in passing:
                    host.engine.set_peer(key, allowed_ips=(f"10.{key[0]}.{key[1]}.0/24",))

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(400):
                peers = [p for p in host.engine.status().peers if p.public_key not in passing]
                assert [p.public_key for p in peers] == staying
                assert all(len(p.allowed_ips) == 1 for p in peers)
        finally:
            stop.set()
            thread.join()


def test_the_devices_own_key_is_no_peer() -> None:
    with Host(1) as host:
        assert not host.engine.set_peer(host.public)
        assert host.engine.status().peers == ()


WRONG = [
    ("disable", lambda: Engine(disable=frozenset({"udp_gsx"}))),
    ("memory_limit_bytes", lambda: Engine(memory_limit_bytes=1000)),
    ("threads", lambda: Engine(threads=0)),
    ("mtu", lambda: Engine(mtu=10)),
]


@pytest.mark.parametrize(("name", "make"), WRONG)
def test_wrong_arguments_are_named(name: str, make: object) -> None:
    with pytest.raises(ValueError, match=name):
        make()  # type: ignore[operator]


def test_wrong_arguments_of_commands_are_named() -> None:
    with Host(1) as host:
        engine, key = host.engine, bytes(32)
        for name, call in {
            "public_key": lambda: engine.set_peer(b"short"),
            "preshared_key": lambda: engine.set_peer(key, preshared_key=b"x"),
            "private_key": lambda: engine.set_private_key(b"x"),
            "keepalive_s": lambda: engine.set_peer(key, keepalive_s=65536),
            "endpoint": lambda: engine.set_peer(key, endpoint=Endpoint("host.example", 1)),
            "endpoint: port": lambda: engine.set_peer(key, endpoint=Endpoint("1.2.3.4", 0)),
            "allowed_ips": lambda: engine.set_peer(key, allowed_ips=("10.0.0.0/33",)),
            "mark": lambda: engine.set_fwmark(1 << 32),
            "mtu": lambda: engine.set_mtu(1),
        }.items():
            with pytest.raises(ValueError, match=name):
                call()
        engine.up()
        with pytest.raises(OSError, match="no-such"):
            engine.set_bind_interface("no-such")


def test_a_stopped_engine_says_so() -> None:
    engine = Engine()
    with pytest.raises(EngineStopped):
        engine.up()
    engine.start()
    engine.stop()
    engine.stop()
    with pytest.raises(EngineStopped):
        engine.status()
    with pytest.raises(EngineStopped):
        engine.start()
    assert engine.events() == []


def test_nothing_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = descriptors()
    for _ in range(5):
        with Two() as (a, b):
            exchange(a, b, 1)
    assert descriptors() == before


# -- the inner side --


def test_the_inner_socket_going_away_is_told() -> None:
    with Host(1) as host:
        host.inner.close()
        wait_until(lambda: host.saw(module.EVENT_INNER_CLOSED))
        host.engine.detach_inner()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        host.engine.attach_inner(theirs.detach(), 1420)
        host.inner = ours
        ours.send(host.packet(host, b"nobody"))
        wait_until(lambda: host.engine.drops().get("wg_no_route"))


def test_a_descriptor_that_is_not_taken_over_stays_its_owners() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        engine = Engine()
        with pytest.raises(EngineStopped):
            engine.attach_inner(theirs.fileno(), 1420)
        theirs.send(b"still open")
        assert ours.recv(100) == b"still open"
        with Host(1) as host:
            unfit = os.open("/dev/null", os.O_RDWR)
            with pytest.raises(OSError, match="socket"):
                host.engine.attach_inner(unfit, 1420)
            os.close(unfit)
            host.engine.attach_inner(theirs.fileno(), 1420)
            fd = theirs.detach()
            with pytest.raises(OSError, match="busy"):
                host.engine.attach_inner(fd, 1420)
            # What it carried before goes on.
            ours.send(host.packet(host, b"nobody"))
            wait_until(lambda: host.engine.drops().get("wg_no_route"))


def test_without_an_inner_port_packets_are_counted(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    b.engine.detach_inner()
    a.send(a.packet(b, b"x"))
    wait_until(lambda: b.engine.drops().get("engine_no_inner_port") == 1)


def test_no_route_is_answered_with_icmp(two: tuple[Host, Host]) -> None:
    a, _ = two
    lost = bytes(Segment(source=a.v4, destination="10.99.0.1", payload=b"x"))
    a.send(lost)
    (error,) = a.receive()
    assert error[9] == 1
    assert error[20:22] == b"\x03\x01"
    assert error[28:] == lost
    assert packets.checksum(error[20:]) == 0
    lost = bytes(Segment(source=a.v6, destination="fd99::1", payload=b"x"))
    a.send(lost)
    (error,) = a.receive()
    assert error[40:42] == b"\x01\x03"
    assert a.engine.drops()["wg_no_route"] == 2
    a.send(*[lost] * 200)
    assert 0 < len(a.receive(200, 0.5)) < 100  # rate limited
    wait_until(lambda: a.engine.drops()["wg_no_route"] == 202)


def test_a_packet_above_the_mtu_is_answered(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    a.send(a.packet(b, bytes(1400)))
    (error,) = a.receive()
    assert error[20:22] == b"\x03\x04"
    assert int.from_bytes(error[26:28], "big") == 1420
    assert a.engine.drops()["engine_too_big"] == 1
    assert b.receive(1, 0.1) == []


def test_what_is_no_ip_packet_is_counted(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    a.send(b"x", b"\x45", bytes(100), b"\x60" * 41)
    wait_until(lambda: sum(a.engine.drops().values()) == 4)
    assert a.receive(1, 0.05) == []
    exchange(a, b, 1)


def test_the_mtu_can_grow(two: tuple[Host, Host]) -> None:
    a, b = two
    for host in two:
        host.engine.set_mtu(9000)
    big = a.packet(b, bytes(8900))
    a.send(a.packet(b, b"first"))
    assert b.receive()
    a.send(big)
    assert b.receive() == [big]


def test_a_full_inner_socket_drops_and_counts(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    packet = a.packet(b, bytes(1300))
    for _ in range(2000):
        a.send(packet)
    wait_until(lambda: b.engine.drops().get("host_tun_write_failed", 0) > 0)
    assert len(b.receive(10)) == 10
    assert b.engine.status().peers


# -- limits --


@pytest.mark.parametrize("limit", [1 << 20, 2 << 20, 8 << 20])
def test_memory_stays_below_the_limit(limit: int) -> None:
    with Two(4, {"memory_limit_bytes": limit}, {"memory_limit_bytes": limit}) as (a, b):
        exchange(a, b)
        used = a.engine.statistics()["memory_bytes"]
        assert 0 < used <= limit
        a.engine.remove_all_peers()
        for i in range(20):
            key = bytes([7, i, *range(30)])
            a.engine.set_peer(key, allowed_ips=(f"10.50.{i}.0/24",))
            a.engine.set_peer(key, endpoint=Endpoint("127.0.0.1", 9))
            for _ in range(100):
                a.send(bytes(Segment(destination=f"10.50.{i}.1", payload=bytes(1000))))
        wait_until(lambda: a.engine.drops().get("wg_staged_full", 0) > 1000)
        assert a.engine.statistics()["memory_bytes"] <= limit


def test_a_busy_interpreter_loses_no_packet(two: tuple[Host, Host]) -> None:
    """The GIL is held for five seconds; a process of its own sends and receives."""
    a, b = two
    exchange(a, b, 1)
    rate, seconds = 200, 5.0
    packet = a.packet(b, bytes(500))
    child = os.fork()
    if child == 0:
        got = 0
        for _ in range(int(rate * (seconds - 1))):
            a.inner.send(packet)
            time.sleep(1 / rate)
            while select.select([b.inner], [], [], 0)[0]:
                got += b.inner.recv(2048) == packet
        deadline = time.monotonic() + 1
        while got < int(rate * (seconds - 1)) and time.monotonic() < deadline:
            if select.select([b.inner], [], [], 0.1)[0]:
                got += b.inner.recv(2048) == packet
        os._exit(0 if got == int(rate * (seconds - 1)) else 1)
    hold_the_gil(seconds)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert a.engine.drops() == {}


def hold_the_gil(seconds: float) -> None:
    """Call into C code that keeps the GIL, and prove that it was kept."""
    # A static interpreter has none; what is proved does not depend on the CPU.
    ctypes = pytest.importorskip("ctypes")

    ticks: list[float] = []
    running = threading.Event()

    def ticker() -> None:
        running.set()
        while len(ticks) < 10_000_000:
            ticks.append(time.monotonic())
            time.sleep(0.01)
            if stop.is_set():
                return

    stop = threading.Event()
    thread = threading.Thread(target=ticker)
    thread.start()
    running.wait()
    library = ctypes.PyDLL(None)  # PyDLL does not release the GIL
    library.usleep.argtypes = [ctypes.c_uint]
    library.usleep(int(seconds * 1e6))
    stop.set()
    thread.join()
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(gaps, default=0.0) > seconds * 0.9


def test_the_private_key_can_be_removed(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    a.engine.set_private_key(None)
    assert a.engine.status().private_key is None
    a.send(a.packet(b, b"x"))
    assert b.receive(1, 0.2) == []
    a.engine.set_private_key(secret(1))
    exchange(a, b, 1)


def test_a_source_change_keeps_traffic(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    b.engine.source_changed()
    exchange(a, b, 1)


def test_down_and_up_again(two: tuple[Host, Host]) -> None:
    a, b = two
    exchange(a, b, 1)
    a.engine.down()
    a.send(a.packet(b, b"lost"))
    assert b.receive(1, 0.1) == []
    b.engine.set_peer(a.public, endpoint=Endpoint("127.0.0.1", a.engine.up()))
    exchange(a, b, 1)
