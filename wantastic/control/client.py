"""AuthService as typed calls: one connection kept, addresses and paths fallen over.

    call(method, request, token) -> reply      ControlError
    watch(request, token) -> replies           ControlError

The connection is made on the first call and made again after it broke. Each address is
tried in turn; when all fail, diagnose.py says why. A server that knows the methods
under /grpc.AuthService/ only is remembered as such.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from wantastic.config.model import HostPort
from wantastic.control import wire
from wantastic.control.diagnose import diagnose
from wantastic.control.dial import Mark, no_mark
from wantastic.control.errors import ControlError, LocalError, RemoteError
from wantastic.control.methods import AUTHORIZATION, PREFIXES, Method
from wantastic.control.resolve import Resolver
from wantastic.control.transport import (
    Address,
    Connect,
    ConnectFailed,
    Limits,
    Metadata,
    StatusError,
    Tls,
    Transport,
)

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
CALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A control server, and how to know it."""

    at: HostPort
    roots_pem: bytes = field(default=b"", repr=False)
    server_name: str = ""
    insecure: bool = False

    @property
    def authority(self) -> str:
        host = f"[{self.at.host}]" if ":" in self.at.host else self.at.host
        return host if self.at.port == 443 else f"{host}:{self.at.port}"

    def check(self) -> None:
        """LocalError for plaintext to anywhere but loopback."""
        if not self.insecure:
            return
        host = self.at.host
        with contextlib.suppress(ValueError):
            if ip_address(host).is_loopback:
                return
        raise LocalError("plaintext", f"{host} is no loopback address, so it needs TLS")


class AuthClient:
    """The connection to one control server. Safe for concurrent calls."""

    def __init__(
        self,
        server: Server,
        connect: Connect,
        resolver: Resolver,
        *,
        identity: Callable[[], tuple[bytes, bytes]] = lambda: (b"", b""),
        clock_is_wrong: Callable[[], bool] = lambda: False,
        limits: Limits | None = None,
        mark: Mark = no_mark,
    ) -> None:
        server.check()
        self._server = server
        self._connect = connect
        self._resolver = resolver
        self._identity = identity
        self._clock_is_wrong = clock_is_wrong
        self._limits = limits or Limits()
        self._mark = mark
        self._marked = 0
        self._transport: Transport | None = None
        self._lock = asyncio.Lock()
        self._prefix = 0
        self.address: Address | None = None
        self.without_certificate = False
        """The server refused our client certificate: connect without until there is another."""

    async def call(
        self,
        method: Method[Request, Reply],
        request: Request,
        token: str,
        timeout_s: float = CALL_S,
    ) -> Reply:
        """Make a unary call. ControlError."""
        data = request.SerializeToString()
        for attempt in range(len(PREFIXES)):
            transport = await self._connected()
            try:
                reply = await transport.unary(
                    self._path(method.name), data, _metadata(token), timeout_s
                )
            except (StatusError, ConnectFailed) as error:
                if await self._next_path(error, transport, attempt):
                    continue
                raise self._meaning(error) from None
            self._worked()
            return _parse(method.reply, reply)
        raise AssertionError("unreachable")

    async def watch(
        self, method: Method[Request, Reply], request: Request, token: str
    ) -> AsyncIterator[Reply]:
        """Open a server stream and yield its messages. ControlError."""
        data = request.SerializeToString()
        for attempt in range(len(PREFIXES)):
            transport = await self._connected()
            replies = transport.stream(self._path(method.name), data, _metadata(token))
            try:
                async for reply in replies:
                    self._worked()
                    yield _parse(method.reply, reply)
            except (StatusError, ConnectFailed) as error:
                if await self._next_path(error, transport, attempt):
                    continue
                raise self._meaning(error) from None
            finally:
                with contextlib.suppress(Exception):
                    await replies.aclose()  # type: ignore[attr-defined]
            return

    async def close(self) -> None:
        """Drop the connection; the next call makes a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def follow_mark(self) -> None:
        """Drop a connection that a new default route would lead into the tunnel."""
        if self._transport is not None and self._mark() != self._marked:
            await self.close()

    def _path(self, name: str) -> str:
        return PREFIXES[self._prefix] + name

    def _worked(self) -> None:
        if self.address is not None:
            self._resolver.worked(self._server.at, self.address)

    async def _next_path(
        self, error: StatusError | ConnectFailed, transport: Transport, attempt: int
    ) -> bool:
        """Prepare for another attempt if the path may be the reason; drop a dead connection."""
        if isinstance(error, StatusError) and error.status == "UNIMPLEMENTED":
            self._prefix = (self._prefix + 1) % len(PREFIXES)
            return attempt + 1 < len(PREFIXES)
        if isinstance(error, ConnectFailed) or error.status in ("UNAVAILABLE", "INTERNAL"):
            if transport is self._transport:
                self._transport = None
            await transport.close()
        return False

    def _meaning(self, error: StatusError | ConnectFailed) -> ControlError:
        if isinstance(error, ConnectFailed):
            error = StatusError("UNAVAILABLE", "The connection was lost")
        return wire.error_of_status(error)

    async def _connected(self) -> Transport:
        """Return the connection, made now if there is none. ControlError."""
        async with self._lock:
            if self._transport is None:
                self._transport = await self._dial()
            return self._transport

    def _tls(self) -> Tls | None:
        if self._server.insecure:
            return None
        chain, key = (b"", b"") if self.without_certificate else self._identity()
        name = self._server.server_name or self._server.at.host
        return Tls(name, self._server.roots_pem, chain, key)

    async def _dial(self) -> Transport:
        addresses = await self._resolver.addresses(self._server.at)
        tls = self._tls()
        self._marked = self._mark()
        for address in addresses:
            try:
                transport = await self._connect(address, self._server.authority, tls, self._limits)
            except ConnectFailed:
                continue
            self.address = address
            return transport
        wrong = self._clock_is_wrong()
        why = await diagnose(addresses[0], tls, clock_is_wrong=wrong, mark=self._mark())
        if why.code == "tls_client_refused":
            self.without_certificate = True
        raise why


def _metadata(token: str) -> Metadata:
    return ((AUTHORIZATION, f"Bearer {token}"),) if token else ()


def _parse(kind: type[Reply], data: bytes) -> Reply:
    """Return a message; RemoteError for bytes that are none."""
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError, ValueError):
        raise RemoteError("bad_message", f"The server's {kind.DESCRIPTOR.name} is broken") from None
    return message
