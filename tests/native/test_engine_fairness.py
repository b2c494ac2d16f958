"""Limits of the netstack are each peer's own: one that asks for everything leaves a part."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cext.engine.engine import Endpoint
from tests.support.userspace_pair import Node, echo, read_all, tcp_server

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
