"""Connections into the tunnel for asyncio: dial, then a stream or a descriptor handed over.

    dial() -> flow id -> splice(flow, socket)      the native thread moves the bytes
                      -> open_connection()         the same, into a socket pair of ours
    open_datagrams()                               UDP, into a socket pair of ours

A dial ends by EVENT_DIALLED, which the owner of the engine's events passes to
on_event(). A dial that nobody waits for any more is closed when its result comes. The
same event brings names that SOCKS clients send datagrams to; name_asked() gets them and
answers with learn_name().
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cext.engine.engine import EVENT_DIALLED, Endpoint, EngineStopped
from cext.engine.userspace import Userspace, is_host

if TYPE_CHECKING:
    import ssl

    from cext.engine.engine import Engine, Event

DIAL_TIMEOUT_S = 30.0


class TunnelNet:
    """The netstack of a running engine."""

    def __init__(self, engine: Engine, addresses: tuple[str, ...]) -> None:
        self.stack = Userspace(engine, addresses)
        self.addresses = addresses
        self.name_asked: Callable[[bytes], None] = lambda name: self.learn_name(name, None, 1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    @staticmethod
    def reaches(address: str) -> bool:
        """Return whether an address can be one host in a tunnel, for TCP and UDP alike."""
        return is_host(address)

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Replace our addresses in the tunnel."""
        if addresses != self.addresses:
            self.stack.set_addresses(addresses)
            self.addresses = addresses

    def set_mtu(self, mtu_bytes: int) -> None:
        """Follow the tunnel's MTU; OSError where it grew beyond what there is room for."""
        self.stack.set_mtu(mtu_bytes)

    def on_event(self, event: Event) -> None:
        """Tell those who wait how their dials ended, and ask for names."""
        if event.kind != EVENT_DIALLED:
            return
        for flow, error in self.stack.dialled():
            waiter = self._waiting.pop(flow, None)
            if waiter is None or waiter.done():
                if not error:
                    self.stack.close(flow)
            elif error:
                waiter.set_exception(OSError(error, os.strerror(error)))
            else:
                waiter.set_result(None)
        for name in self.stack.asked_names():
            self.name_asked(name)

    def learn_name(self, name: bytes, address: str | None, ttl_s: int) -> None:
        """Say where SOCKS datagrams to a name go for so long; None: nowhere."""
        with suppress(EngineStopped):
            self.stack.learn_name(name, address, ttl_s)

    def forget_names(self) -> None:
        """Have every name asked for again."""
        self.stack.forget_names()

    async def dial(self, host: str, port: int, timeout_s: float = DIAL_TIMEOUT_S) -> int:
        """Connect to an address in the tunnel; return the flow for splice() or close().

        OSError tells why not: ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, ENOBUFS and others.
        """
        flow = self.stack.dial_tcp(host, port)
        waiter = self._waiting[flow] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            self._abandon(flow)
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except asyncio.CancelledError:
            self._abandon(flow)
            raise
        return flow

    def _abandon(self, flow: int) -> None:
        self._waiting.pop(flow, None)
        self.close(flow)

    def splice(
        self,
        flow: int,
        connection: socket.socket,
        early: bytes = b"",
        request: tuple[int, int | None] | None = None,
    ) -> None:
        """Hand a stream socket over to the native thread, which owns it from here on.

        `request`: only one HTTP request passes; see Userspace.splice().
        """
        self.stack.splice(flow, connection.detach(), early, request)

    def close(self, flow: int) -> None:
        """Reset a connection or end a forward; nothing when it is gone already."""
        try:
            self.stack.close(flow)
        except EngineStopped:
            return

    def forward_tcp(self, port: int, host: str, target_port: int) -> int:
        """Let connections to a port of our tunnel addresses reach one of the host's."""
        return self.stack.forward_tcp(port, Endpoint(host, target_port))

    def forward_udp(self, port: int, host: str, target_port: int) -> int:
        """The same for datagrams."""
        return self.stack.forward_udp(port, Endpoint(host, target_port))

    def associate(self, host: str, port: int, target: str, target_port: int) -> int:
        """Carry datagrams to a UDP port of the host to an address in the tunnel, and back."""
        return self.stack.associate(Endpoint(host, port), Endpoint(target, target_port))[0]

    def associate_socks(self, host: str, client: str, client_port: int) -> tuple[int, int]:
        """Bind a UDP port at `host` for one SOCKS client; return the flow and the port."""
        return self.stack.associate_socks(Endpoint(host, 0), Endpoint(client, client_port))

    @contextmanager
    def open_datagrams(self, host: str, port: int) -> Iterator[socket.socket]:
        """Yield a socket whose datagrams go to an address in the tunnel, and back.

        It is not blocking: for asyncio's sock_sendall() and sock_recv().
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours:
            flow = self.stack.open_udp(Endpoint(host, port), theirs.detach())
            try:
                ours.setblocking(False)
                yield ours
            finally:
                self.close(flow)

    async def open_connection(
        self,
        host: str,
        port: int,
        timeout_s: float = DIAL_TIMEOUT_S,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to an address in the tunnel; return streams as asyncio's do.

        With `tls` the peer must prove to be `server_name`: ssl.SSLError otherwise.
        """
        flow = await self.dial(host, port, timeout_s)
        ours, theirs = socket.socketpair()
        try:
            self.splice(flow, theirs)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return await asyncio.open_connection(
            sock=ours, ssl=tls, server_hostname=server_name if tls else None
        )
