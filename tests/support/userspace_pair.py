"""Engines without TUN and root: a netstack on each inner side, loopback outside."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from cext.crypto.primitives import x25519_public
from cext.engine.engine import Endpoint, Engine
from cext.engine.userspace import Userspace
from tests.support.engine_pair import secret, wait_until


class Node:
    """One engine with a netstack at 10.9.0.N and fd09::N."""

    def __init__(self, number: int, *, memory: int = 8 << 20, mtu: int = 1420) -> None:
        self.number = number
        self.private = secret(number)
        self.public = x25519_public(self.private)
        self.engine = Engine(memory_limit_bytes=memory, mtu=mtu)
        self.engine.start()
        self.engine.set_private_key(self.private)
        self.port = self.engine.up()
        self.stack = Userspace(self.engine, (self.v4, self.v6))
        self.dialled: dict[int, int] = {}

    @property
    def v4(self) -> str:
        return f"10.9.0.{self.number}"

    @property
    def v6(self) -> str:
        return f"fd09::{self.number}"

    def knows(self, other: Node) -> None:
        self.engine.set_peer(
            other.public,
            endpoint=Endpoint("127.0.0.1", other.port),
            allowed_ips=(f"{other.v4}/32", f"{other.v6}/128"),
        )

    def result(self, flow: int, seconds: float = 10.0) -> int:
        """Return the errno that a dial ended with."""

        def ended() -> bool:
            self.dialled.update(self.stack.dialled())
            return flow in self.dialled

        wait_until(ended, seconds)
        return self.dialled.pop(flow)

    def dial(self, host: str, port: int, early: bytes = b"") -> socket.socket:
        """Return one end of a socket pair whose other end is a port in the tunnel."""
        flow = self.stack.dial_tcp(host, port)
        error = self.result(flow)
        if error:
            raise OSError(error, os.strerror(error))
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self.stack.splice(flow, theirs.detach(), early)
        return ours

    def flows(self) -> int:
        return self.stack.statistics()["flows"]


class Pair:
    """Two nodes that know each other."""

    def __init__(self, **arguments: int) -> None:
        self.left, self.right = Node(1, **arguments), Node(2, **arguments)
        self.left.knows(self.right)
        self.right.knows(self.left)

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.left.engine.stop()
        self.right.engine.stop()


@contextmanager
def tcp_server(answer: object) -> Iterator[Endpoint]:
    """Run `answer(connection)` on a thread for each connection to a port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)  # type: ignore[operator]

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(2)


def echo(connection: socket.socket) -> None:
    """Send everything back, then end the stream."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the end of the stream."""
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)
