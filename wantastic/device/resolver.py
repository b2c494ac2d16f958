"""Host names to addresses, outside the tunnel, by the host's own resolver.

While a default route leads into the tunnel, the host's resolver would ask inside it: the
host's name servers are asked directly then (outside.py), and the resolver for want of an
answer. The lookup runs on a thread of its own, because getaddrinfo() blocks, for half a minute
where no server answers. The thread is a daemon: ending the agent does not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Protocol

from wantastic.device.outside import lookup_outside


class Resolver(Protocol):
    """Resolves a name; an empty tuple when that fails, whatever the reason."""

    async def resolve(self, name: str, mark: int = 0) -> tuple[str, ...]:
        """`mark` is that of the tunnel's outer packets; 0: nothing leads into the tunnel."""


class SystemResolver:
    """getaddrinfo()."""

    async def resolve(self, name: str, mark: int = 0) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def settle(found: tuple[str, ...]) -> None:
            if not answer.done():
                answer.set_result(found)

        def work() -> None:
            found = (mark and lookup_outside(name, mark)) or lookup(name)
            # The loop may be closed by now: nobody is waiting any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=work, name="resolve", daemon=True).start()
        return await answer


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
