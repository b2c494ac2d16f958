"""The netstack inside the engine: TCP both ways, ends, refusals, leaks."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cext.engine.engine import Endpoint, Engine
from cext.engine.userspace import Userspace
from tests.support.engine_pair import wait_until
from tests.support.userspace_pair import Pair, echo, read_all, tcp_server


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


def test_2_bytes_pass_in_both_directions_with_half_close(pair: Pair) -> None:
    data = os.urandom(3_000_000)
    with tcp_server(echo) as target:
        pair.right.stack.forward_tcp(80, target)
        for host in (pair.right.v4, pair.right.v6):
            with pair.left.dial(host, 80, early=data[:100_000]) as ours:

                def send(ours: socket.socket = ours) -> None:
                    ours.sendall(data[100_000:])
                    ours.shutdown(socket.SHUT_WR)

                thread = threading.Thread(target=send)
                thread.start()
                got = read_all(ours)
                thread.join()
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    # The listener is left.
    wait_until(lambda: (pair.left.flows(), pair.right.flows()) == (0, 1))


def test_3_a_slow_reader_stops_the_sender(pair: Pair) -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        connection.settimeout(0.5)
        total = 0
        try:
            while total < 64 << 20:
                total += connection.send(bytes(65536))
        except TimeoutError:
            pass
        sent.append(total)
        connection.settimeout(20)

    with tcp_server(pour) as target:
        pair.right.stack.forward_tcp(80, target)
        with pair.left.dial(pair.right.v4, 80) as ours:
            wait_until(lambda: sent, 20)
            assert sent[0] < 32 << 20
            assert len(read_all(ours)) == sent[0]


@pytest.mark.parametrize(
    ("number", "host", "port", "error"),
    [
        (1, "10.9.0.2", 81, errno.ECONNREFUSED),
        (2, "fd09::2", 81, errno.ECONNREFUSED),
        (3, "10.9.0.99", 80, errno.EHOSTUNREACH),
    ],
)
def test_4_dials_that_fail(pair: Pair, number: int, host: str, port: int, error: int) -> None:
    assert pair.left.result(pair.left.stack.dial_tcp(host, port)) == error
    assert pair.left.flows() == 0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refusal(port: int) -> int:
    """Return SO_ERROR of a connection that a closed port of 127.0.0.1 refused."""
    with socket.socket() as dialled:
        dialled.setblocking(False)
        assert dialled.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        select.select([], [dialled], [], 5)
        return dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize(
    ("number", "target", "error"),
    [
        (1, "127.0.0.1", errno.ECONNREFUSED),
        # No such address can be routed: ICMP, as a router would send it.
        (2, "fe80::1", errno.EHOSTUNREACH),
    ],
)
@pytest.mark.parametrize("host", ["10.9.0.2", "fd09::2"])
def test_5_a_forward_to_nowhere_refuses(
    pair: Pair, number: int, target: str, error: int, host: str
) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    if error == errno.ECONNREFUSED and refusal(port) != error:
        pytest.skip("this emulator gives the host's error numbers in SO_ERROR")
    pair.right.stack.forward_tcp(80, Endpoint(target, port))
    assert pair.left.result(pair.left.stack.dial_tcp(host, 80)) == error
    wait_until(lambda: (pair.left.flows(), pair.right.flows()) == (0, 1))


def test_14_the_tunnel_side_is_answered_when_the_host_side_is_connected(pair: Pair) -> None:
    with socket.socket() as server, socket.socket() as filler:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # The queue of the target is full: its kernel answers no SYN.
        filler.connect(server.getsockname())
        pair.right.stack.forward_tcp(80, Endpoint(*server.getsockname()))
        flow = pair.left.stack.dial_tcp(pair.right.v4, 80)
        wait_until(lambda: pair.right.flows() == 2)
        time.sleep(0.3)
        assert pair.left.stack.dialled() == []
        server.accept()[0].close()
        assert pair.left.result(flow) == 0
        accepted, _ = server.accept()
        with accepted:
            ours, theirs = socket.socketpair()
            pair.left.stack.splice(flow, theirs.detach(), b"hello")
            assert accepted.recv(100) == b"hello"
            # What the target says first, and the end of its stream, are not lost.
            accepted.sendall(b"bye")
            accepted.shutdown(socket.SHUT_WR)
            assert read_all(ours) == b"bye"
            ours.close()
    wait_until(lambda: (pair.left.flows(), pair.right.flows()) == (0, 1))


def test_17_a_flood_of_connections_to_a_silent_target_is_bounded(pair: Pair) -> None:
    with socket.socket() as server, socket.socket() as filler:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        filler.connect(server.getsockname())
        pair.right.stack.forward_tcp(80, Endpoint(*server.getsockname()))
        before = descriptors()
        flows = [pair.left.stack.dial_tcp(pair.right.v4, 80) for _ in range(200)]
        # The listener, and a third of what all peers together may have.
        wait_until(lambda: pair.right.flows() == 1 + 256 // 3)
        time.sleep(0.3)
        assert pair.right.flows() == 1 + 256 // 3
        assert descriptors() <= before + 256 // 3
        for flow in flows:
            pair.left.stack.close(flow)


def test_15_a_port_is_forwarded_once(pair: Pair) -> None:
    forward = pair.right.stack.forward_tcp(80, Endpoint("127.0.0.1", 9))
    with pytest.raises(OSError, match="in use"):
        pair.right.stack.forward_tcp(80, Endpoint("127.0.0.1", 10))
    pair.right.stack.close(forward)
    more = [pair.right.stack.forward_tcp(1 + n, Endpoint("127.0.0.1", 9)) for n in range(64)]
    with pytest.raises(OSError, match="buffer"):
        pair.right.stack.forward_tcp(100, Endpoint("127.0.0.1", 9))
    for forward in more:
        pair.right.stack.close(forward)
    assert pair.right.flows() == 0


def test_6_a_reset_at_one_end_is_one_at_the_other(pair: Pair) -> None:
    seen = threading.Event()

    def wait_for_reset(connection: socket.socket) -> None:
        connection.sendall(b"ready")
        try:
            connection.recv(100)
        except ConnectionResetError:
            seen.set()

    with tcp_server(wait_for_reset) as target:
        pair.right.stack.forward_tcp(80, target)
        flow = pair.left.stack.dial_tcp(pair.right.v4, 80)
        assert pair.left.result(flow) == 0
        ours, theirs = socket.socketpair()
        pair.left.stack.splice(flow, theirs.detach())
        assert ours.recv(100) == b"ready"
        pair.left.stack.close(flow)
        assert seen.wait(5)
        ours.close()


def test_7_the_host_is_not_reachable_without_a_forward(pair: Pair) -> None:
    with tcp_server(echo) as target:
        assert (
            pair.left.result(pair.left.stack.dial_tcp(pair.right.v4, target.port))
            == errno.ECONNREFUSED
        )


def test_8_connections_come_and_go_without_a_leak(pair: Pair) -> None:
    before = descriptors()
    with tcp_server(echo) as target:
        pair.right.stack.forward_tcp(80, target)
        for _ in range(20):
            flows = [pair.left.stack.dial_tcp(pair.right.v4, 80) for _ in range(50)]
            ends = []
            for flow in flows:
                assert pair.left.result(flow) == 0
                ours, theirs = socket.socketpair()
                ours.settimeout(20)
                pair.left.stack.splice(flow, theirs.detach(), b"early")
                ends.append(ours)
            for ours in ends:
                ours.shutdown(socket.SHUT_WR)
            for ours in ends:
                assert read_all(ours) == b"early"
                ours.close()
        wait_until(lambda: (pair.left.flows(), pair.right.flows()) == (0, 1))
        wait_until(lambda: descriptors() <= before + 1)


def test_9_stop_closes_open_flows() -> None:
    with tcp_server(echo) as target, Pair() as pair:
        pair.right.stack.forward_tcp(80, target)
        ours = pair.left.dial(pair.right.v4, 80)
        ours.sendall(b"hello")
        assert ours.recv(100) == b"hello"
        pair.left.engine.stop()
        assert ours.recv(100) == b""
        ours.close()


def test_10_memory_comes_out_of_the_limit() -> None:
    engine = Engine(memory_limit_bytes=1 << 20)
    engine.start()
    try:
        with pytest.raises(ValueError, match="memory_limit_bytes"):
            Userspace(engine, ("10.9.0.1",))
    finally:
        engine.stop()
    with Pair(memory=8 << 20) as pair:
        used = pair.left.engine.statistics()["memory_bytes"]
        assert pair.left.stack.statistics()["memory_bytes"] < used <= 8 << 20


def test_11_a_reset_local_client_resets_the_tunnel_side(pair: Pair) -> None:
    seen = threading.Event()

    def wait_for_reset(connection: socket.socket) -> None:
        connection.sendall(b"ready")
        try:
            while connection.recv(100):
                pass
        except ConnectionResetError:
            seen.set()

    with tcp_server(wait_for_reset) as target, socket.create_server(("127.0.0.1", 0)) as server:
        pair.right.stack.forward_tcp(80, target)
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        flow = pair.left.stack.dial_tcp(pair.right.v4, 80)
        assert pair.left.result(flow) == 0
        pair.left.stack.splice(flow, accepted.detach())
        assert client.recv(100) == b"ready"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert seen.wait(5)


def bounce(connection: socket.socket, data: bytes) -> bool:
    """Whether what is sent comes back the same."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    got = bytearray()
    while len(got) < len(data):
        got += connection.recv(65536)
    sender.join()
    return got == data


@pytest.mark.parametrize(
    ("number", "host", "mtus"),
    [(1, "10.9.0.2", (1420, 576, 1500, 700)), (2, "fd09::2", (1420, 1280, 1500, 1400))],
)
def test_16_the_mtu_changes_under_open_connections(
    pair: Pair, number: int, host: str, mtus: tuple[int, ...]
) -> None:
    data = os.urandom(1_000_000)
    with tcp_server(echo) as target:
        pair.right.stack.forward_tcp(80, target)
        with pair.left.dial(host, 80) as opened:
            for mtu in mtus:
                for node in (pair.left, pair.right):
                    node.stack.set_mtu(mtu)
                    node.engine.set_mtu(mtu)
                assert bounce(opened, data)
                before = pair.right.stack.statistics()["packets_in"]
                with pair.left.dial(host, 80) as fresh:
                    assert bounce(fresh, data)
                packets = pair.right.stack.statistics()["packets_in"] - before
                assert packets >= len(data) // mtu
        for wrong in (1700, 9001):
            with pytest.raises(OSError, match=f"mtu {wrong}") as refused:
                pair.left.stack.set_mtu(wrong)
            assert refused.value.errno == errno.EMSGSIZE


def udp_echo() -> tuple[socket.socket, Endpoint]:
    """Return a UDP socket that sends everything back in capitals."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                data, source = server.recvfrom(65536)
                if data == b"end":
                    return
                server.sendto(data.upper(), source)

    threading.Thread(target=serve, daemon=True).start()
    return server, Endpoint("127.0.0.1", server.getsockname()[1])


def udp_client() -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("127.0.0.1", 0))
    client.settimeout(5)
    return client


def test_12_datagrams_pass_forwards_in_both_ways(pair: Pair) -> None:
    server, target = udp_echo()
    pair.right.stack.forward_udp(7, target)
    flow, port = pair.left.stack.associate(Endpoint("127.0.0.1", 0), Endpoint(pair.right.v4, 7))
    clients = [udp_client() for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendto(b"hello %d" % number, ("127.0.0.1", port))
    for number, client in enumerate(clients):
        assert client.recvfrom(100) == (b"HELLO %d" % number, ("127.0.0.1", port))
    # Larger than the tunnel's MTU: in fragments.
    clients[0].sendto(b"x" * 5000, ("127.0.0.1", port))
    assert clients[0].recv(65536) == b"X" * 5000
    # One association, its clients; one listener, its flows.
    assert (pair.left.flows(), pair.right.flows()) == (21, 21)
    pair.left.stack.close(flow)
    assert pair.left.flows() == 0
    for client in clients:
        client.close()
    server.close()


def test_13_socks_datagrams(pair: Pair) -> None:
    server, target = udp_echo()
    pair.right.stack.forward_udp(7, target)
    flow, port = pair.left.stack.associate_socks(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 0))
    at = ("127.0.0.1", port)
    v4 = b"\0\0\0\x01" + bytes((10, 9, 0, 2)) + b"\0\x07"
    v6 = b"\0\0\0\x04" + socket.inet_pton(socket.AF_INET6, "fd09::2") + b"\0\x07"
    client, other = udp_client(), udp_client()
    client.sendto(v4 + b"one", at)
    assert client.recv(100) == v4 + b"ONE"
    client.sendto(v6 + b"two", at)
    assert client.recv(100) == v6 + b"TWO"
    # Nobody but the client, no fragments, no names, nothing cut off, nothing of the host's.
    other.sendto(v4 + b"three", at)
    loopback = b"\0\0\0\x01" + bytes((127, 0, 0, 1)) + target.port.to_bytes(2, "big")
    for wrong in (b"", v4[:9], b"\0\0\1" + v4[3:] + b"x", loopback + b"x", v6[:21], b"\0\0\0\x03"):
        client.sendto(wrong, at)
    client.sendto(v4 + b"last", at)
    assert client.recv(100) == v4 + b"LAST"
    other.settimeout(0.05)
    with pytest.raises(TimeoutError):
        other.recv(100)
    assert pair.left.flows() == 3
    pair.left.stack.close(flow)
    assert pair.left.flows() == 0
    client.close()
    other.close()
    server.close()
