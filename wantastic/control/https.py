"""A small HTTPS client for signing in: one request a connection, everything bounded.

The standard library's clients block a thread each and follow proxies and redirects on their
own; what is needed here is a form sent and a JSON answer read. Redirects are not followed:
a code that stands for this device must not travel to another host. Plaintext is possible to
loopback only, and only where the configuration says `insecure`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from wantastic.config.model import HostPort
from wantastic.control.dial import Mark, dial, no_mark
from wantastic.control.errors import (
    ControlError,
    LocalError,
    RemoteError,
    TransportError,
    unreachable,
)
from wantastic.control.resolve import Resolver
from wantastic.control.tls import client_context, explain
from wantastic.control.transport import Address, Tls

TIMEOUT_S: Final = 30.0
MAX_HEAD_BYTES: Final = 32 << 10
MAX_BODY_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Url:
    """An HTTPS URL, taken apart."""

    secure: bool
    at: HostPort
    target: str
    """Path and query."""

    @classmethod
    def parse(cls, text: str, *, insecure: bool = False) -> Url:
        """LocalError for what is no URL that a token may be sent to."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise LocalError("bad_url", f"{text[:100]!r} is no URL") from None
        fit = text.isascii() and text.isprintable() and " " not in text and not parts.username
        if not host or not fit:
            raise LocalError("bad_url", f"{text[:100]!r} is no URL with a host")
        if parts.scheme == "http":
            if not (insecure and _is_loopback(host)):
                raise LocalError("plaintext", f"{text[:100]} is not encrypted")
        elif parts.scheme != "https":
            raise LocalError("bad_url", f"{text[:100]!r} does not begin with https://")
        secure = parts.scheme == "https"
        query = f"?{parts.query}" if parts.query else ""
        at = HostPort(host, port or (443 if secure else 80))
        return cls(secure, at, (parts.path or "/") + query)

    @property
    def host_header(self) -> str:
        host = f"[{self.at.host}]" if ":" in self.at.host else self.at.host
        return host if self.at.port == (443 if self.secure else 80) else f"{host}:{self.at.port}"

    def __str__(self) -> str:
        return f"http{'s' if self.secure else ''}://{self.host_header}{self.target}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `values` is its JSON object, empty when it is none."""

    status: int
    values: dict[str, Any]


class HttpsClient:
    """Sends one request after another, each on a connection of its own."""

    def __init__(
        self,
        roots_pem: bytes,
        resolver: Resolver,
        *,
        clock_is_wrong: Callable[[], bool] = lambda: False,
        timeout_s: float = TIMEOUT_S,
        mark: Mark = no_mark,
    ) -> None:
        self._roots_pem = roots_pem
        self._resolver = resolver
        self._clock_is_wrong = clock_is_wrong
        self._timeout_s = timeout_s
        self._mark = mark

    async def post(self, url: Url, form: dict[str, str]) -> Answer:
        """Send a form. ControlError when no HTTP answer came."""
        body = urlencode(form).encode("ascii")
        return await self._send(url, "POST", body)

    async def get(self, url: Url) -> Answer:
        """Fetch a document. ControlError when no HTTP answer came."""
        return await self._send(url, "GET", b"")

    async def _send(self, url: Url, verb: str, body: bytes) -> Answer:
        failure: ControlError = TransportError("unreachable", f"{url.at.host} has no address")
        for address in await self._resolver.addresses(url.at):
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await self._exchange(address, url, _request(url, verb, body))
            except TimeoutError:
                failure = TransportError("timeout", f"{url.at.host} does not answer")
            except ssl.SSLError as error:
                failure = explain(error, url.at.host, clock_is_wrong=self._clock_is_wrong())
            except ConnectionRefusedError:
                failure = TransportError("refused", f"Nothing listens on {address}")
            except ConnectionError:
                failure = TransportError("lost", f"{url.at.host} closed the connection")
            except OSError as error:
                failure = unreachable(address, error)
            else:
                self._resolver.worked(url.at, address)
                return answer
        raise failure

    async def _exchange(self, address: Address, url: Url, request: bytes) -> Answer:
        tls = Tls(url.at.host, self._roots_pem) if url.secure else None
        reader, writer = await asyncio.open_connection(
            sock=await dial(address, self._mark()),
            ssl=client_context(tls, "http/1.1") if tls else None,
            server_hostname=tls.server_name if tls else None,
            limit=MAX_HEAD_BYTES,
        )
        try:
            writer.write(request)
            return await _read_answer(reader, url.at.host)
        finally:
            writer.close()


def _request(url: Url, verb: str, body: bytes) -> bytes:
    lines = [
        f"{verb} {url.target} HTTP/1.1",
        f"Host: {url.host_header}",
        "Accept: application/json",
        "User-Agent: wantasticd",
        "Connection: close",
    ]
    if verb == "POST":
        lines += [
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
        ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _read_answer(reader: asyncio.StreamReader, name: str) -> Answer:
    """Return a response; RemoteError for what is none, TransportError for a web page."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        raise ConnectionResetError from None
    except asyncio.LimitOverrunError:
        raise RemoteError("bad_message", f"{name} sent endless headers") from None
    status = head[0].split(" ")
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or not status[1].isdigit():
        raise RemoteError("bad_message", f"{name} does not answer in HTTP/1.1")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in head)}
    body = await _read_body(reader, headers, name)
    if "text/html" in headers.get("content-type", ""):
        raise TransportError("captive_portal", f"A web page answers instead of {name}")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = {}
    return Answer(int(status[1][:4]), values if isinstance(values, dict) else {})


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str], name: str) -> bytes:
    too_large = RemoteError("too_large", f"{name} sent more than {MAX_BODY_BYTES} bytes")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader, too_large)
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 12:
        if int(length) > MAX_BODY_BYTES:
            raise too_large
        try:
            return await reader.readexactly(int(length))
        except asyncio.IncompleteReadError:
            raise ConnectionResetError from None
    body = b""
    while data := await reader.read(8192):
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return body


async def _read_chunks(reader: asyncio.StreamReader, too_large: RemoteError) -> bytes:
    body = b""
    try:
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0].strip()[:8] or b"x", 16)
            if size <= 0:
                return body
            if len(body) + size > MAX_BODY_BYTES:
                raise too_large
            body += await reader.readexactly(size)
            await reader.readexactly(2)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        raise ConnectionResetError from None
