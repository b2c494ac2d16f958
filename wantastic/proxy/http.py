"""An HTTP proxy's request head: CONNECT and absolute-form requests (RFC 9110, 9112); sans-IO.

A head is read whole (at most HEAD_BYTES), checked strictly and turned into a Request:
what to connect to, which bytes to send there first, and how the body is framed. From
then on bytes pass unchanged, and a connection carries one request: `Connection: close`
makes the origin server end it after its answer, and what the client sends behind the
body, another request perhaps with the proxy's password, is dropped. It asks again. An
origin that keeps the connection open all the same hears its end at that second request.

Strictness is what keeps a second request from hiding in the first (RFC 9112 section
11.2): bare line feeds, folded lines, blanks before a colon, two lengths, a length
together with a transfer coding, and codings other than chunked are all refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from wantastic.proxy.credentials import Credentials
from wantastic.proxy.opening import Opening, State
from wantastic.proxy.target import Target, parse_authority

HEAD_BYTES = 16 * 1024
HTTP_PORT = 80
# Of a Content-Length: beyond any body, within 64 bits.
LENGTH_DIGITS = 18

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]{1,8000}) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
# Fields about this hop only; those that Connection names are added to them.
_HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"upgrade",
}


class Refusal(Enum):
    """How a request ends that is not carried out: status code, reason, what to know."""

    BAD_REQUEST = (400, "Bad Request", "The request is malformed.")
    FORBIDDEN = (403, "Forbidden", "This destination is not allowed.")
    LOGIN = (407, "Proxy Authentication Required", "Give the proxy's user and password.")
    TOO_LARGE = (431, "Request Header Fields Too Large", "The head exceeds 16 KiB.")
    NOT_PROXY = (400, "Bad Request", "This is a proxy: use CONNECT or an absolute http URL.")
    HTTPS_URL = (400, "Bad Request", "Use CONNECT for https.")
    FAILED = (502, "Bad Gateway", "The destination refused the connection or is unreachable.")
    TIMEOUT = (504, "Gateway Timeout", "The destination did not answer.")
    BUSY = (503, "Service Unavailable", "Too many connections.")


@dataclass(frozen=True, slots=True)
class Request:
    """What to connect to; `first` goes to the target before anything else.

    `body_bytes` is how long the body is that follows, None for a chunked one; CONNECT
    has none, and everything passes.
    """

    method: str
    target: Target
    first: bytes
    body_bytes: int | None = 0


class Refused(Exception):
    """The head cannot be carried out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name)
        self.refusal = refusal


class HttpProxy(Opening):
    """One client connection until its bytes flow."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        super().__init__(credentials)
        self._tunnel = False

    def receive(self, data: bytes) -> Request | None:
        """Take bytes from the client; return its request once the head is whole."""
        if not self._keep(data):
            return None
        while self._received.startswith(b"\r\n"):  # RFC 9112 section 2.2
            del self._received[:2]
        end = self._received.find(b"\r\n\r\n", 0, HEAD_BYTES)
        if end < 0:
            if len(self._received) >= HEAD_BYTES:
                self.refuse(Refusal.TOO_LARGE)
            return None
        head = bytes(self._received[:end])
        del self._received[: end + 4]
        try:
            request = parse_head(head, self._credentials)
        except Refused as error:
            self.refuse(error.refusal)
            return None
        self._tunnel = request.method == "CONNECT"
        self._state = State.WAITING
        return request

    def accept(self) -> None:
        """Say that the target is connected."""
        assert self._state is State.WAITING, self._state
        if self._tunnel:
            self._to_send += b"HTTP/1.1 200 Connection established\r\n\r\n"
        self._state = State.OPEN

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error. Close when data_to_send() is sent."""
        code, reason, text = refusal.value
        login = 'Proxy-Authenticate: Basic realm="wantasticd"\r\n' if code == 407 else ""
        body = f"{text}\n"
        self._to_send += (
            f"HTTP/1.1 {code} {reason}\r\n{login}Content-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        ).encode()
        self._close()


def parse_head(head: bytes, credentials: Credentials | None) -> Request:
    """Parse a whole head without its empty line; raise Refused."""
    first, *lines = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Refused(Refusal.BAD_REQUEST)
    fields: list[tuple[bytes, bytes]] = []
    for text in lines:
        field = _FIELD.fullmatch(text)
        if field is None:
            raise Refused(Refusal.BAD_REQUEST)
        fields.append((field[1], field[2].strip(b" \t")))
    body_bytes = _framing(fields, is_old=line[3] == b"0")
    _check_login(fields, credentials)
    method, uri = line[1], line[2].decode("ascii")
    if method == b"CONNECT":
        try:
            return Request("CONNECT", parse_authority(uri), b"")
        except ValueError:
            raise Refused(Refusal.BAD_REQUEST) from None
    target, origin_form = _split_absolute(uri)
    start = method + b" " + origin_form.encode() + b" HTTP/1." + line[3]
    return Request(method.decode(), target, _rewrite(start, target, fields), body_bytes)


def _framing(fields: list[tuple[bytes, bytes]], *, is_old: bool) -> int | None:
    """Return the length of the body, None for a chunked one; raise Refused for any doubt."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    lengths = values.get(b"content-length", [])
    if len(lengths) > 1 or any(not v.isdigit() or len(v) > LENGTH_DIGITS for v in lengths):
        raise Refused(Refusal.BAD_REQUEST)
    if len(values.get(b"host", [])) > 1:
        raise Refused(Refusal.BAD_REQUEST)
    codings = [value.lower() for value in values.get(b"transfer-encoding", [])]
    if codings and (lengths or is_old or codings != [b"chunked"]):
        raise Refused(Refusal.BAD_REQUEST)
    return None if codings else int(lengths[0]) if lengths else 0


def _check_login(fields: list[tuple[bytes, bytes]], credentials: Credentials | None) -> None:
    if credentials is None:
        return
    for name, value in fields:
        scheme, _, token = value.partition(b" ")
        if name.lower() != b"proxy-authorization" or scheme.lower() != b"basic":
            continue
        try:
            user, _, password = base64.b64decode(token.strip(), validate=True).partition(b":")
        except binascii.Error:
            break
        if credentials.match(user, password):
            return
    raise Refused(Refusal.LOGIN)


def _split_absolute(uri: str) -> tuple[Target, str]:
    """Split `http://host[:port]/path?query` into the target and its origin form."""
    scheme, colon, _ = uri.partition("://")
    if colon and scheme.lower() == "https":
        raise Refused(Refusal.HTTPS_URL)
    if not colon or scheme.lower() != "http":
        raise Refused(Refusal.NOT_PROXY)
    try:
        parts = urlsplit(uri)
        if "@" in parts.netloc or not parts.netloc:
            raise Refused(Refusal.BAD_REQUEST)
        target = parse_authority(parts.netloc, HTTP_PORT)
    except ValueError:
        raise Refused(Refusal.BAD_REQUEST) from None
    path = parts.path or "/"
    return target, f"{path}?{parts.query}" if parts.query else path


def _rewrite(start: bytes, target: Target, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return the head as the origin server gets it."""
    dropped = set(_HOP_BY_HOP)
    for name, value in fields:
        if name.lower() == b"connection":
            dropped |= {option.strip().lower() for option in value.split(b",")}
    dropped -= {b"host", b"content-length", b"transfer-encoding"}
    host = str(target).removesuffix(f":{HTTP_PORT}")
    # RFC 9112 section 3.2.2: Host is made from the request target, not believed.
    out = [start, b"Host: " + host.encode()]
    out += [n + b": " + v for n, v in fields if n.lower() not in dropped | {b"host"}]
    return b"\r\n".join([*out, b"Connection: close", b"", b""])
