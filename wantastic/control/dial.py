"""TCP connections of the control plane that stay outside the tunnel, and grpcio's way to one.

While a default route leads into the tunnel, only marked packets keep out of it. A socket of
our own gets the mark before it connects. grpcio makes its sockets by itself and offers no
mark, so it is given a Unix socket that only this process may use, and a Relay carries the bytes
to the marked connection; TLS ends in grpcio as ever.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from wantastic.control.transport import Address

Mark = Callable[[], int]
CHUNK_BYTES: Final = 64 << 10
_PEER = struct.Struct("=iII")


def no_mark() -> int:
    """No default route leads into the tunnel."""
    return 0


async def dial(address: Address, mark: int = 0) -> socket.socket:
    """Return a connected socket. OSError."""
    family = socket.AF_INET6 if address.is_ipv6 else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setblocking(False)
        if mark:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        # Numeric: nobody is asked, and nothing blocks.
        numeric = socket.getaddrinfo(
            address.host, address.port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        await loop.sock_connect(found, numeric[0][4])
    except BaseException:
        found.close()
        raise
    return found


class Relay:
    """One connection behind a name that grpcio can dial."""

    def __init__(self, outer: socket.socket) -> None:
        self._outer = outer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        # The abstract name space: nothing to remove, and nothing written to flash.
        name = f"wantastic-{os.urandom(16).hex()}"
        self.target = f"unix-abstract:{name}"
        try:
            self._listener.bind(f"\0{name}")
            self._listener.listen(4)
        except BaseException:
            self._listener.close()
            raise
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        inner: socket.socket | None = None
        try:
            inner = await self._accept()
            self._listener.close()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(inner, self._outer))
                both.create_task(self._carry(self._outer, inner))
        except* OSError:
            pass
        finally:
            for end in (self._listener, self._outer, inner):
                if end is not None:
                    end.close()

    async def _accept(self) -> socket.socket:
        """Return the connection of this very process; anybody else's is closed."""
        loop = asyncio.get_running_loop()
        while True:
            inner, _ = await loop.sock_accept(self._listener)
            peer = inner.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            if _PEER.unpack(peer)[0] == os.getpid():
                return inner
            inner.close()

    @staticmethod
    async def _carry(source: socket.socket, sink: socket.socket) -> None:
        """Carry bytes one way to their end. OSError."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, CHUNK_BYTES):
            await loop.sock_sendall(sink, data)
        sink.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Drop both ends. Idempotent."""
        self._task.cancel()
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            # A task that never began has closed nothing.
            self._listener.close()
            self._outer.close()
