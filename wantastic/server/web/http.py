"""HTTP/1.1 for a handful of small pages: h11 parses, asyncio carries, this file joins them.

h11 and not a web framework: five pages and two JSON endpoints need a parser that is
strict about framing and nothing else.

Limits: MAX_CONNECTIONS at once, READ_TIMEOUT_S for a whole request, MAX_BODY_BYTES,
h11's own limit for the head. A request that breaks one gets an answer and the connection
is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 8192
MAX_HEAD_BYTES = 16_384
MAX_FIELDS = 32
MAX_CONNECTIONS = 500
READ_TIMEOUT_S = 15.0
FORM_TYPE = "application/x-www-form-urlencoded"


class BadRequest(Exception):
    """A request that gets no page; carries the status."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole. Of repeated fields and parameters the first counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str] = field(repr=False)
    remote: str

    def cookie(self, name: str) -> str:
        """Return a cookie's value, or nothing."""
        for part in self.headers.get("cookie", "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return ""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Listens, and gives each request to one handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Bind and accept; return the port."""
        self._server = await asyncio.start_server(
            self._accept,
            host,
            port,
            ssl=tls,
            limit=MAX_HEAD_BYTES,
            ssl_handshake_timeout=READ_TIMEOUT_S if tls else None,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop accepting, and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        remote = str(peer[0]) if peer else ""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        while True:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    request = await _read(connection, reader, remote)
                if request is None:
                    return
                response = await self._answer(request)
            except h11.RemoteProtocolError as error:
                response = _plain(error.error_status_hint, "bad request")
            except BadRequest as error:
                response = _plain(error.status, str(error))
            if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return
            for event in _events(response):
                writer.write(connection.send(event) or b"")
            async with asyncio.timeout(READ_TIMEOUT_S):
                await writer.drain()
            if set(connection.states.values()) != {h11.DONE}:
                return
            connection.start_next_cycle()

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)
        except BadRequest:
            raise
        except Exception:
            log.exception("page failed", extra={"path": request.path})
            return _plain(500, "internal error")


async def _read(
    connection: h11.Connection, reader: asyncio.StreamReader, remote: str
) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(MAX_HEAD_BYTES)
            if not data and head is None:
                return None
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise BadRequest(413, "the request is too large")
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return _request(head, bytes(body), remote)
        else:
            return None


def _request(head: h11.Request, body: bytes, remote: str) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii", "replace"))
    except ValueError:
        raise BadRequest(400, "the request target is malformed") from None
    headers: dict[str, str] = {}
    for name, value in head.headers:
        headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
    form: dict[str, str] = {}
    if body:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
            raise BadRequest(415, f"send {FORM_TYPE}")
        form = _fields(body.decode("utf-8", "replace"))
    return Request(
        head.method.decode("ascii"), target.path, _fields(target.query), headers, form, remote
    )


def _fields(text: str) -> dict[str, str]:
    try:
        parsed = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise BadRequest(400, "too many fields") from None
    return {name: values[0] for name, values in parsed.items()}


def _events(response: Response) -> list[h11.Event]:
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        *response.headers,
    ]
    return [
        h11.Response(status_code=response.status, headers=headers),
        h11.Data(data=response.body),
        h11.EndOfMessage(),
    ]


def _plain(status: int, text: str) -> Response:
    return Response(status, text.encode() + b"\n", "text/plain; charset=utf-8")
