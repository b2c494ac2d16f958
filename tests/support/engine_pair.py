"""Engines without root: the inner side is a socket pair, the outer side is loopback."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cext.crypto.primitives import x25519_public
from cext.engine.engine import Endpoint, Engine, Event
from tests.support.packets import UDP, Segment

LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def secret(number: int) -> bytes:
    """Return a private key that is the same in every run."""
    return bytes([number * 8, *range(1, 31), 64 + number])


def wait_until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)


class Host:
    """One engine, started, with its inner socket; tunnel addresses 10.9.0.N and fd09::N."""

    def __init__(self, number: int, mtu: int = 1420, **arguments: Any) -> None:
        self.number = number
        self.private = secret(number)
        self.public = x25519_public(self.private)
        self.engine = Engine(mtu=mtu, **arguments)
        self.engine.start()
        self.inner, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.inner, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.engine.attach_inner(theirs.detach(), mtu)
        self.engine.set_private_key(self.private)
        self.events: list[Event] = []

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.engine.stop()
        self.inner.close()

    @property
    def v4(self) -> str:
        return f"10.9.0.{self.number}"

    @property
    def v6(self) -> str:
        return f"fd09::{self.number}"

    @property
    def port(self) -> int:
        return self.engine.status().listen_port

    def knows(self, other: Host, outer: int | None = 4, **more: Any) -> None:
        """Add the other one as a peer; `outer` is the IP version of its endpoint."""
        endpoint = None
        if outer:
            endpoint = Endpoint(LOOPBACK[outer], other.port)
        self.engine.set_peer(
            other.public,
            endpoint=endpoint,
            allowed_ips=(f"{other.v4}/32", f"{other.v6}/128"),
            **more,
        )

    def packet(self, other: Host, payload: bytes, family: int = 4, **more: Any) -> bytes:
        """A UDP packet from this host to the other."""
        source, destination = (self.v4, other.v4) if family == 4 else (self.v6, other.v6)
        return bytes(
            Segment(source=source, destination=destination, protocol=UDP, payload=payload, **more)
        )

    def send(self, *packets: bytes) -> None:
        for packet in packets:
            self.inner.send(packet)

    def receive(self, n: int = 1, seconds: float = 5.0) -> list[bytes]:
        """Return the next `n` inner packets, or fewer when the time is over."""
        got: list[bytes] = []
        end = time.monotonic() + seconds
        while len(got) < n:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.inner], [], [], left)[0]:
                break
            got.append(self.inner.recv(65536))
        return got

    def saw(self, kind: int) -> list[Event]:
        """Return the events of this kind up to now."""
        self.events += self.engine.events()
        return [event for event in self.events if event.kind == kind]


class Two:
    """Two hosts that know each other and are up."""

    def __init__(self, outer: int = 4, left: Any = None, right: Any = None) -> None:
        self.a = Host(1, **(left or {}))
        self.b = Host(2, **(right or {}))
        self.outer = outer

    def __enter__(self) -> tuple[Host, Host]:
        self.a.engine.up()
        self.b.engine.up()
        self.a.knows(self.b, self.outer)
        self.b.knows(self.a, None)
        return self.a, self.b

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.a.__exit__(kind, error, trace)
        self.b.__exit__(kind, error, trace)
