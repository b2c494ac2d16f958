"""The demonstration's web: a page behind the far device, fetched through a SOCKS5 proxy.

fetch() -> SOCKS5 proxy of ours -> left device -> tunnel -> port 80 of the right
device -> forward -> web server on this machine's loopback
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wantastic.device.userspace import TunnelNet
from wantastic.proxy.names import Names
from wantastic.proxy.servers import Dialler, Socks5Listener

if TYPE_CHECKING:
    from wantastic.device.loopback import Pair

PAGE_BYTES = 256 * 1024
WEB_PORT = 80
TIMEOUT_S = 10.0


@dataclass(slots=True)
class Fetches:
    """What was fetched so far, and whether each byte was right."""

    asked: int = 0
    fetched: int = 0
    wrong: int = 0
    last_ms: float = 0.0


class DemoWeb:
    """Server, forward and proxy."""

    def __init__(self, pair: Pair) -> None:
        self.fetches = Fetches()
        self.page = os.urandom(PAGE_BYTES)
        self._pair = pair
        self._server: asyncio.Server
        self._proxy: Socks5Listener
        self._net: TunnelNet

    async def start(self) -> None:
        """Open everything; ports are free ones."""
        pair = self._pair
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        far = TunnelNet(pair.right.engine, (str(pair.right.address),))
        far.forward_tcp(WEB_PORT, "127.0.0.1", port)
        self._net = TunnelNet(pair.left.engine, (str(pair.left.address),))
        self._proxy = Socks5Listener(Dialler(self._net, Names(self._net)), "127.0.0.1", 0, None)
        asyncio.get_running_loop().add_reader(pair.left.engine.event_fd, self._events)

    @property
    def proxy_port(self) -> int:
        return self._proxy.port

    def _events(self) -> None:
        for event in self._pair.left.engine.events():
            self._net.on_event(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.page))
            writer.write(self.page)
            await writer.drain()
        writer.close()

    async def fetch(self) -> None:
        """Fetch the page once, as a client of the proxy does."""
        self.fetches.asked += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                body = await self._fetch()
        except (OSError, EOFError, TimeoutError):
            return
        if hashlib.sha256(body).digest() != hashlib.sha256(self.page).digest():
            self.fetches.wrong += 1
            return
        self.fetches.fetched += 1
        self.fetches.last_ms = (time.monotonic() - started) * 1e3

    async def _fetch(self) -> bytes:
        address = self._pair.right.address
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy_port)
        try:
            writer.write(b"\x05\x01\x00")
            await reader.readexactly(2)
            writer.write(b"\x05\x01\x00\x01" + address.packed + WEB_PORT.to_bytes(2, "big"))
            if (await reader.readexactly(10))[1]:
                raise OSError("the proxy refused")
            writer.write(f"GET / HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            return await reader.read(-1)
        finally:
            writer.close()

    async def close(self) -> None:
        """Close everything but the devices."""
        asyncio.get_running_loop().remove_reader(self._pair.left.engine.event_fd)
        await self._proxy.close()
        self._server.close()
