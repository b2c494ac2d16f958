"""Names of the tunnel: DNS over TCP (RFC 7766) to the servers that the configuration names.

A proxy's names are never asked of the host's resolver: that would tell others where
its clients go, and would not know the names that only the tunnel has.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from wantastic.config.model import DnsConfig, DnsServer
from wantastic.device.userspace import TunnelNet

A, AAAA, CNAME = 1, 28, 5
TIMEOUT_S = 5.0
CACHE_ENTRIES = 256
MAX_TTL_S = 300
MAX_ANSWERS = 64
MAX_JUMPS = 16
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")


def make_query(number: int, name: str, kind: int) -> bytes:
    """Return a question for one name, with recursion desired."""
    labels = b"".join(bytes((len(part),)) + part.encode("ascii") for part in name.split("."))
    return _HEAD.pack(number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def skip_name(message: bytes, at: int) -> int:
    """Return the offset behind a name; ValueError where it runs out of the message."""
    for _ in range(128):
        if at >= len(message):
            break
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    raise ValueError("a name that does not end")


def parse_answer(message: bytes, query: bytes) -> tuple[list[str], int]:
    """Return addresses and their time to live in seconds; ValueError when it is no answer.

    Aliases are followed by the server, which lists them: every address in the answer
    section is an answer to the one question.
    """
    if len(message) < len(query) or message[:2] != query[:2] or not message[2] & 0x80:
        raise ValueError("no answer to this question")
    if message[12 : len(query)].lower() != query[12:].lower():
        raise ValueError("an answer to another question")
    _, flags, questions, answers, _, _ = _HEAD.unpack_from(message)
    if flags & 0x0200 or questions != 1 or flags & 15 not in (0, 3):
        raise ValueError("the server did not answer")
    wanted = int.from_bytes(query[-4:-2], "big")
    found, ttl_s, at = [], MAX_TTL_S, len(query)
    for _ in range(min(answers, MAX_ANSWERS)):
        at = skip_name(message, at)
        if at + _RECORD.size > len(message):
            raise ValueError("cut off")
        kind, family, ttl, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        data = message[at : at + length]
        at += length
        if len(data) != length:
            raise ValueError("cut off")
        if kind == wanted and family == 1 and length in (4, 16):
            found.append(str(ipaddress.ip_address(data)))
            ttl_s = min(ttl_s, ttl)
    return found, ttl_s


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
