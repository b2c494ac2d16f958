"""The demonstration's web site, and a visitor who comes to it through a SOCKS5 proxy.

The site listens on loopback as a service behind the gateway would; that a page came
through the tunnel shows in the peer's counters, and that it is whole in its digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from ipaddress import ip_address

GREETING = "Hello from behind the gateway: this page came through the WireGuard tunnel."
PAGE = """<!doctype html>
<html lang="en"><title>wantasticd demonstration</title>
<h1>It works</h1>
<p>{greeting}</p>
<p><a href="/data">256 KiB of noise</a></p>
</html>
"""
DATA_BYTES = 256 * 1024
WEB_PORT = 80
TIMEOUT_S = 10.0


class Site:
    """A page at / and noise at /data."""

    def __init__(self) -> None:
        self.port = 0
        self.pages = {"/": PAGE.format(greeting=GREETING).encode(), "/data": os.urandom(DATA_BYTES)}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                page = self.pages.get(head.split(b" ", 2)[1].decode("ascii", "replace"))
                status = "404 Not Found" if page is None else "200 OK"
                kind = "text/html" if page == self.pages["/"] else "application/octet-stream"
                body = page or b""
                writer.write(
                    f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        writer.close()


class Visitor:
    """Fetches pages and counts how that went."""

    def __init__(self, proxy_port: int, address: str, site: Site) -> None:
        self.proxy_port = proxy_port
        self.address = address
        self.asked = 0
        self.fetched = 0
        self.wrong = 0
        self.good = False
        self.problem = ""
        self.last_page = b""
        self.last_ms = 0.0
        self._site = site

    async def visit(self, *, big: bool = False) -> None:
        """Fetch once and compare every byte."""
        path = "/data" if big else "/"
        self.asked += 1
        self.good = False
        began = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                body = await self._fetch(path)
        except (OSError, EOFError) as error:
            # (A timeout is an OSError.)
            self.problem = str(error) or type(error).__name__
            return
        if hashlib.sha256(body).digest() != hashlib.sha256(self._site.pages[path]).digest():
            self.wrong += 1
            self.problem = "another page came than was sent"
            return
        self.good, self.problem = True, ""
        self.fetched += 1
        self.last_page = body
        self.last_ms = (time.monotonic() - began) * 1e3

    def text(self) -> str:
        """Return the last page's first paragraph."""
        found = re.search(rb"<p>(.*?)</p>", self.last_page, re.S)
        return found[1].decode() if found else ""

    async def _fetch(self, path: str) -> bytes:
        """Ask as any client of a SOCKS5 proxy without a password does (RFC 1928)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy_port)
        try:
            target = ip_address(self.address).packed + WEB_PORT.to_bytes(2, "big")
            writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x01" + target)
            replies = await reader.readexactly(12)
            if replies[3]:
                raise OSError(f"the proxy could not connect (SOCKS5 reply {replies[3]})")
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {self.address}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            return await reader.read(-1)
        finally:
            writer.close()
