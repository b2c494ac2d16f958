"""Names of the tunnel: DNS to the servers that the configuration names, through the tunnel.

    UDP, asked twice -> no answer, or one that is cut short -> TCP (RFC 7766)
    tls://           -> TLS (RFC 7858), the certificate checked for the name behind the "#"

    a name without a dot  -> completed by each domain of dns.search in turn, then as it is
    any other             -> as it is, and completed where there is no such name (ndots:1)

The search ends where no server answers. A proxy's names are never asked of the host's
resolver: that would tell others where its clients go, and would not know the names that
only the tunnel has.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from wantastic.config.model import DnsConfig, DnsServer
from wantastic.device.dns_message import (
    AAAA,
    MAX_TTL_S,
    A,
    is_answer,
    is_truncated,
    make_query,
    parse_answer,
)
from wantastic.device.userspace import TunnelNet

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 6.0
# How long a datagram's answer is waited for, then the second one's.
DATAGRAM_S = (1.0, 1.5)
DATAGRAM_BYTES = 4096
# What has no address may have one soon.
NOTHING_TTL_S = 5
CACHE_ENTRIES = 256
MAX_NAME = 253

Tls: TypeAlias = Callable[[], "ssl.SSLContext"]
"""Makes a context that checks certificates; OSError or ValueError where that cannot be."""


def no_address(name: str) -> OSError:
    """Return what a lookup that failed raises."""
    return OSError(errno.EHOSTUNREACH, f"{name} has no address in the tunnel")


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[str, ...]
    until_s: float


class Names:
    """The resolver of the proxies."""

    def __init__(
        self,
        net: TunnelNet,
        clock: Callable[[], float] = time.monotonic,
        tls: Tls | None = None,
    ) -> None:
        self.config = DnsConfig()
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._net = net
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def use(self, config: DnsConfig) -> None:
        """Follow the configuration."""
        if config != self.config:
            self.config = config
            self._known.clear()
            self._net.forget_names()

    def _servers(self, name: str) -> tuple[DnsServer, ...]:
        """Return the servers of the longest domain that has some."""
        for route in sorted(self.config.routes, key=lambda r: -len(r.domain)):
            if name == route.domain or name.endswith("." + route.domain):
                return route.servers
        return self.config.servers

    async def resolve(self, name: str) -> tuple[str, ...]:
        """Return addresses of the families that the tunnel has; OSError when there are none."""
        return (await self.look_up(name))[0]

    def _candidates(self, name: str) -> list[str]:
        """Return what a name may stand for, in the order in which it is asked for."""
        completed = [f"{name}.{domain}" for domain in self.config.search]
        found = [name, *completed] if "." in name else [*completed, name]
        return [candidate for candidate in found if len(candidate) <= MAX_NAME]

    async def look_up(self, name: str) -> tuple[tuple[str, ...], int]:
        """Return the addresses, and how many seconds they hold."""
        for candidate in self._candidates(name):
            if found := await self._look_up(candidate):
                return found
        raise no_address(name)

    async def _look_up(self, name: str) -> tuple[tuple[str, ...], int] | None:
        """Look up a whole name; None when there is none. OSError when no server answers."""
        for known, addresses in self.config.records:
            if known == name:
                return addresses, MAX_TTL_S
        found = self._known.get(name)
        if found and (left_s := found.until_s - self._clock()) > 0:
            return found.addresses, max(1, int(left_s))
        kinds = [A] if any("." in a for a in self._net.addresses) else []
        kinds += [AAAA] if any(":" in a for a in self._net.addresses) else []
        servers = self._servers(name)
        for server in servers:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answers = await asyncio.gather(*(self._ask(server, name, k) for k in kinds))
            except (OSError, ValueError, EOFError, TimeoutError):
                continue
            addresses = tuple(address for some, _ in answers for address in some)
            if not addresses:
                return None
            ttl_s = min(ttl for some, ttl in answers if some)
            while len(self._known) >= CACHE_ENTRIES:
                del self._known[next(iter(self._known))]
            self._known[name] = _Known(addresses, self._clock() + ttl_s)
            return addresses, ttl_s
        if servers:
            raise no_address(name)
        return None

    async def _ask(self, server: DnsServer, name: str, kind: int) -> tuple[list[str], int]:
        query = make_query(int.from_bytes(os.urandom(2), "big"), name, kind)
        message = None
        if not server.tls_name:
            message = await self._by_datagram(server, query)
        if message is None or is_truncated(message):
            message = await self._by_stream(server, query)
        return parse_answer(message, query)

    async def _by_datagram(self, server: DnsServer, query: bytes) -> bytes | None:
        """Return an answer over UDP; None when none came. Each question has its own port."""
        loop = asyncio.get_running_loop()
        with self._net.open_datagrams(server.address.host, server.address.port) as ours:
            for wait_s in DATAGRAM_S:
                await loop.sock_sendall(ours, query)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        while True:
                            message = await loop.sock_recv(ours, DATAGRAM_BYTES)
                            # What answers nothing that was asked must not end the wait.
                            if is_answer(message, query):
                                return message
        return None

    async def _by_stream(self, server: DnsServer, query: bytes) -> bytes:
        if server.tls_name and self._context is None:
            if self._tls is None:
                raise ValueError("no certificates to check the server's with")
            self._context = self._tls()
        reader, writer = await self._net.open_connection(
            server.address.host,
            server.address.port,
            TIMEOUT_S,
            tls=self._context if server.tls_name else None,
            server_name=server.tls_name,
        )
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(size)
        finally:
            writer.close()
