"""The seam between the control plane and a gRPC library: bytes in, bytes out.

A Transport is one HTTP/2 connection to one numeric address. It carries unary calls and
server streams of bytes; messages, retries, fall-over between addresses and paths, and
what an error means stand above it (client.py). Two libraries implement it, chosen by
auth.transport: grpcio (default) and grpclib (small and big-endian routers). Each is
imported when it is first needed, long after the tunnel runs from the stored configuration.

Errors: StatusError when a gRPC status came (also one that the library made up for a broken
answer), ConnectFailed when no connection was made; diagnose.py then finds out why.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from wantastic.control.errors import LocalError

Metadata = tuple[tuple[str, str], ...]
TransportName = Literal["auto", "grpcio", "grpclib"]

MAX_HEADERS_BYTES: Final = 16 << 10
WINDOW_BYTES: Final = 256 << 10
"""What a server may send ahead of being read."""


@dataclass(frozen=True, slots=True)
class Address:
    """A numeric address and a port."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """What to verify the server against, and what to show it.

    `roots_pem` is never empty: without roots grpcio falls back to a file of the system and
    aborts the process where there is none.
    """

    server_name: str
    roots_pem: bytes
    chain_pem: bytes = b""
    key_pem: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times and sizes of one connection."""

    connect_s: float = 15.0
    message_bytes: int = 4 << 20
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 20.0


class StatusError(Exception):
    """A call ended with a gRPC status other than OK."""

    def __init__(self, status: str, message: str, error: bytes = b"") -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        """The name, such as "UNAVAILABLE"."""
        self.message = message
        self.error = error
        """Value of the `wantastic-error-bin` trailer."""


class ConnectFailed(Exception):
    """No connection, or one that did not become HTTP/2."""


class Transport(Protocol):
    """One connection. Safe for concurrent calls."""

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """Make one call. StatusError, ConnectFailed."""

    def stream(self, path: str, request: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """Make one call and yield its replies until the server ends it. StatusError, ConnectFailed.

        Closing the iterator cancels the call. There is no deadline: who reads keeps a watchdog.
        """

    async def close(self) -> None:
        """Drop the connection; calls under way fail. Idempotent."""


class Connect(Protocol):
    """Opens a Transport; `tls` None is plaintext, which only loopback may use."""

    async def __call__(
        self, address: Address, authority: str, tls: Tls | None, limits: Limits
    ) -> Transport: ...


def load(name: TransportName, mark: Callable[[], int] = lambda: 0) -> Connect:
    """Import the chosen library and return its way to connect; LocalError when it is missing.

    `mark` says at each connection which mark keeps it out of the tunnel; 0: none needed.
    """
    if name in ("auto", "grpcio") and importlib.util.find_spec("grpc") is not None:
        # Its own log goes to stderr past ours, and its traces show metadata: tokens.
        os.environ["GRPC_VERBOSITY"] = "NONE"
        os.environ.pop("GRPC_TRACE", None)
        from wantastic.control import grpcio_transport

        return _marked(grpcio_transport.connect, mark)
    if name in ("auto", "grpclib") and importlib.util.find_spec("grpclib") is not None:
        from wantastic.control import grpclib_transport

        return _marked(grpclib_transport.connect, mark)
    wanted = "gRPC library" if name == "auto" else name
    raise LocalError("no_transport", f"This executable has no {wanted}")


def _marked(
    connect: Callable[[Address, str, Tls | None, Limits, int], Awaitable[Transport]],
    mark: Callable[[], int],
) -> Connect:
    async def connect_outside(
        address: Address, authority: str, tls: Tls | None, limits: Limits
    ) -> Transport:
        return await connect(address, authority, tls, limits, mark())

    return connect_outside
