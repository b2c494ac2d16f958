"""Names of the tunnel: DNS over TCP (RFC 7766) to the servers that the configuration names.

A proxy's names are never asked of the host's resolver: that would tell others where
its clients go, and would not know the names that only the tunnel has.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from wantastic.config.model import DnsConfig, DnsServer
from wantastic.device.dns_message import AAAA, A, make_query, parse_answer
from wantastic.device.userspace import TunnelNet

TIMEOUT_S = 5.0
CACHE_ENTRIES = 256


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[str, ...]
    until_s: float


class Names:
    """The resolver of the proxies."""

    def __init__(self, net: TunnelNet, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = DnsConfig()
        self._net = net
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def use(self, config: DnsConfig) -> None:
        """Follow the configuration."""
        if config != self.config:
            self.config = config
            self._known.clear()

    def _servers(self, name: str) -> tuple[DnsServer, ...]:
        """Return the servers of the longest domain that has some."""
        for route in sorted(self.config.routes, key=lambda r: -len(r.domain)):
            if name == route.domain or name.endswith("." + route.domain):
                return route.servers
        return self.config.servers

    async def resolve(self, name: str) -> tuple[str, ...]:
        """Return addresses of the families that the tunnel has; OSError when there are none."""
        for known, addresses in self.config.records:
            if known == name:
                return addresses
        found = self._known.get(name)
        if found and found.until_s > self._clock():
            return found.addresses
        servers = [server for server in self._servers(name) if not server.tls_name]
        kinds = [A] if any("." in a for a in self._net.addresses) else []
        kinds += [AAAA] if any(":" in a for a in self._net.addresses) else []
        for server in servers:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answers = await asyncio.gather(*(self._ask(server, name, k) for k in kinds))
            except (OSError, ValueError, EOFError, TimeoutError):
                continue
            addresses = tuple(address for some, _ in answers for address in some)
            if not addresses:
                break
            ttl_s = min(ttl for some, ttl in answers if some)
            while len(self._known) >= CACHE_ENTRIES:
                del self._known[next(iter(self._known))]
            self._known[name] = _Known(addresses, self._clock() + ttl_s)
            return addresses
        raise OSError(errno.EHOSTUNREACH, f"{name} has no address in the tunnel")

    async def _ask(self, server: DnsServer, name: str, kind: int) -> tuple[list[str], int]:
        query = make_query(int.from_bytes(os.urandom(2), "big"), name, kind)
        reader, writer = await self._net.open_connection(
            server.address.host, server.address.port, TIMEOUT_S
        )
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return parse_answer(await reader.readexactly(size), query)
        finally:
            writer.close()
