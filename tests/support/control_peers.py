"""Peers of the control plane for tests: a certificate authority, a good server, bad servers."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, StreamEnded
from h2.exceptions import H2Error

DAY = timedelta(days=1)
Unary = Callable[[bytes, dict[str, str]], Awaitable[bytes]]
Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its key, PEM."""

    chain: bytes
    key: bytes


class Authority:
    """A certificate authority that lives for one test run."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3650 * DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: str, start: timedelta = -DAY, end: timedelta = DAY) -> Pair:
        """Return a server's pair for `names`, valid from now + start to now + end."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key.public_key(), names, start, end)
        return Pair(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def sign(self, request_der: bytes, start: timedelta = -DAY, end: timedelta = DAY) -> bytes:
        """Return the DER certificate that answers a PKCS#10 request."""
        request = x509.load_der_x509_csr(request_der)
        assert request.is_signature_valid
        certificate = self._sign(request.public_key(), ("device",), start, end)
        return certificate.public_bytes(serialization.Encoding.DER)

    def _sign(
        self, key: Any, names: tuple[str, ...], start: timedelta, end: timedelta
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@cache
def authority() -> Authority:
    return Authority()


def server_context(pair: Pair, *, alpn: str = "h2", client_ca: bytes = b"") -> ssl.SSLContext:
    """Return a server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if alpn:
        context.set_alpn_protocols([alpn])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"
        path.write_bytes(pair.chain + pair.key)
        context.load_cert_chain(path)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.decode())
    return context


# ---- A good server ------------------------------------------------------------------


@asynccontextmanager
async def grpc_server(
    unary: dict[str, Any],
    streams: dict[str, Any] | None = None,
    *,
    pair: Pair | None = None,
    client_ca: bytes = b"",
    port: int = 0,
) -> AsyncIterator[tuple[int, grpc.aio.Server]]:
    """Serve path -> async handler(request bytes, context) over grpcio; yield the port."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method in unary:
                return grpc.unary_unary_rpc_method_handler(unary[details.method])
            if details.method in (streams or {}):
                return grpc.unary_stream_rpc_method_handler((streams or {})[details.method])
            return None

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handlers(),))
    if pair is None:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        credentials = grpc.ssl_server_credentials(
            [(pair.key, pair.chain)],
            root_certificates=client_ca or None,
            require_client_auth=bool(client_ca),
        )
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    try:
        yield bound, server
    finally:
        await server.stop(0)


# ---- Bad servers --------------------------------------------------------------------


@asynccontextmanager
async def raw_server(
    connection: Connection, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Hand each connection to `connection`; yield the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await connection(reader, writer)
        except (OSError, H2Error, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0)


React = Callable[[H2Connection, int], "list[tuple[float, bytes]] | None"]


def http2(react: React, *, on_open: Callable[[H2Connection], None] | None = None) -> Connection:
    """Return a connection handler that speaks HTTP/2 and calls `react` for each request.

    `react` may use the H2Connection, and may return (delay, raw bytes) to write after it.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(
            H2Configuration(
                client_side=False, header_encoding="utf-8", validate_outbound_headers=False
            )
        )
        connection.initiate_connection()
        if on_open:
            on_open(connection)
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            events: list[Event] = connection.receive_data(data)
            writer.write(connection.data_to_send())
            for event in events:
                if isinstance(event, StreamEnded):
                    extra = react(connection, event.stream_id) or []
                    writer.write(connection.data_to_send())
                    for delay, raw in extra:
                        await asyncio.sleep(delay)
                        writer.write(raw)
                        await writer.drain()

    return handle


OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK_TRAILERS = [("grpc-status", "0")]


def message(body: bytes, *, flag: int = 0, size: int | None = None) -> bytes:
    """Return a gRPC frame; `size` may lie."""
    length = len(body) if size is None else size
    return bytes([flag]) + length.to_bytes(4, "big") + body
