"""Limits of the netstack are each peer's own, and what they cost is counted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from cext.engine.engine import Endpoint
from tests.support.engine_pair import Host, wait_until
from tests.support.userspace_pair import Node, echo, read_all, tcp_server
from wantastic.device.loopback import ip_packet

DIALS = 120  # more than a third of the 256 that may be half-open


@contextmanager
def silent_server() -> Iterator[Endpoint]:
    """A port of 127.0.0.1 where connections neither open nor fail."""
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())  # the queue is full with it
        yield Endpoint("127.0.0.1", listener.getsockname()[1])


def test_half_open_dials_of_one_peer_leave_room_for_another() -> None:
    gateway, greedy, modest = Node(1), Node(2), Node(3)
    try:
        for node in (greedy, modest):
            node.knows(gateway)
            gateway.knows(node)
        with silent_server() as silent, tcp_server(echo) as target:
            gateway.stack.forward_tcp(80, silent)
            gateway.stack.forward_tcp(81, target)
            with greedy.dial(gateway.v4, 81):
                pass  # the sessions are there
            for _ in range(DIALS):
                greedy.stack.dial_tcp(gateway.v4, 80)
            # A dial behind them on the same way: those before it were taken or dropped.
            with modest.dial(gateway.v4, 81) as ours:
                ours.sendall(b"still served")
                ours.shutdown(socket.SHUT_WR)
                assert read_all(ours) == b"still served"
            waiting = gateway.flows() - 2  # its listeners
            assert 64 < waiting <= 256 // 3 + 1
    finally:
        for node in (gateway, greedy, modest):
            node.engine.stop()


def test_what_the_stack_drops_is_among_the_engines_counters() -> None:
    with Host(1) as host:
        node = Node(2)
        try:
            host.engine.up()
            node.engine.set_peer(host.public, allowed_ips=("10.9.0.1/32",))
            host.engine.set_peer(
                node.public,
                endpoint=Endpoint("127.0.0.1", node.port),
                allowed_ips=(f"{node.v4}/32",),
            )
            # Two bytes are no TCP header.
            host.inner.send(ip_packet(IPv4Address("10.9.0.1"), IPv4Address(node.v4), 6, b"no"))
            wait_until(lambda: node.engine.drops().get("ns_bad_header") == 1)
        finally:
            node.engine.stop()
