"""Host names to addresses, outside the tunnel, by the host's own resolver.

The lookup runs on a thread, because getaddrinfo() blocks; a name that the resolver
does not answer for falls back to the addresses that last worked.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol


class Resolver(Protocol):
    """Resolves a name; an empty tuple when that fails, whatever the reason."""

    async def resolve(self, name: str) -> tuple[str, ...]: ...


class SystemResolver:
    """getaddrinfo()."""

    async def resolve(self, name: str) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lookup, name)


def lookup(name: str) -> tuple[str, ...]:
    """Return the addresses of a name in the resolver's order. Blocks."""
    try:
        # Bytes keep the interpreter from loading its tables for international names.
        found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ()
    result = []
    for _, _, _, _, address in found:
        host, zone = str(address[0]), address[3] if len(address) == 4 else 0
        result.append(f"{host.partition('%')[0]}%{zone}" if zone else host)
    return tuple(dict.fromkeys(result))
