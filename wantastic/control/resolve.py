"""Addresses of control servers: resolved outside the tunnel, the last good ones kept.

The host's resolver is asked, never the tunnel's own: a tunnel that is down must not be
needed to bring it up. When no answer comes, the addresses that worked before are used. The
one that worked last is tried first, then IPv6 and IPv4 by turns.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from itertools import chain, zip_longest
from typing import Final, Protocol

from wantastic.config.model import HostPort
from wantastic.config.values import is_numeric
from wantastic.control.errors import TransportError
from wantastic.control.transport import Address

LOOKUP_S: Final = 10.0
MAX_ADDRESSES: Final = 16
Lookup = Callable[[str], Awaitable[list[str]]]


class Remembers(Protocol):
    """Where the addresses that worked are kept; wantastic.store fits."""

    def last_good(self, name: str) -> tuple[str, ...]: ...
    def remember(self, name: str, addresses: tuple[str, ...]) -> None: ...


async def host_lookup(name: str) -> list[str]:
    """Ask the host's resolver. OSError."""
    loop = asyncio.get_running_loop()
    # Bytes keep Python from loading its IDNA tables; the configuration is ASCII by now.
    found = await loop.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Resolver:
    """Finds the addresses of one name after another."""

    def __init__(self, memory: Remembers, lookup: Lookup = host_lookup) -> None:
        self._memory = memory
        self._lookup = lookup
        self._best: dict[str, str] = {}

    async def addresses(self, server: HostPort) -> tuple[Address, ...]:
        """Return addresses in the order to try them. TransportError when there are none."""
        if is_numeric(server.host.partition("%")[0]):
            return (Address(server.host, server.port),)
        try:
            found = await asyncio.wait_for(self._lookup(server.host), LOOKUP_S)
            failure: Exception | None = None
        except (OSError, TimeoutError) as error:
            found, failure = [], error
        if not found:
            found = list(self._memory.last_good(server.host))
        if not found:
            if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_NONAME:
                raise TransportError("name_not_found", f"There is no host {server.host}")
            raise TransportError("name_lookup", f"The name {server.host} cannot be looked up")
        return tuple(Address(host, server.port) for host in self._order(server.host, found))

    def _order(self, name: str, found: list[str]) -> list[str]:
        unique = list(dict.fromkeys(found))
        v6 = [a for a in unique if ":" in a]
        v4 = [a for a in unique if ":" not in a]
        mixed = [a for a in chain.from_iterable(zip_longest(v6, v4)) if a]
        best = self._best.get(name) or next(iter(self._memory.last_good(name)), None)
        mixed.sort(key=lambda a: a != best)
        return mixed[:MAX_ADDRESSES]

    def worked(self, server: HostPort, address: Address) -> None:
        """Remember an address that a call went through."""
        if is_numeric(server.host.partition("%")[0]):
            return
        self._best[server.host] = address.host
        known = self._memory.last_good(server.host)
        if address.host not in known:
            # Only a new address is worth a write; the order on flash does not matter much.
            self._memory.remember(server.host, (address.host, *known)[:4])
