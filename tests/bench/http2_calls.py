"""As little HTTP/2 as a load generator needs to make unary gRPC calls cheaply.

A gRPC library costs a client as much as the server that is to be measured, and both
share the same cores here. Requests are literal headers without any table; of answers the
message and the end of the stream are read, headers are skipped: an answer without a
message is a failed call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = (1 << 31) - 1
FIRST_WINDOW = 65_535
# Below what servers allow; what is due beyond it waits here.
MAX_STREAMS = 90

# Called with the message, or None when the call failed.
Done = Callable[[bytes | None], None]


class Connection(asyncio.Protocol):
    """One connection with any number of calls in flight."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._next = 1
        self._calls: dict[int, Done] = {}
        self._messages: dict[int, bytes] = {}
        self._window = FIRST_WINDOW
        self._held: deque[tuple[bytes, bytes, Done]] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def in_flight(self) -> int:
        """Calls without an answer."""
        return len(self._calls) + len(self._held)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, whose methods they have.
        self._transport = cast(asyncio.Transport, transport)
        # SETTINGS_INITIAL_WINDOW_SIZE, then the connection's own window.
        settings = b"\x00\x04" + LARGEST_WINDOW.to_bytes(4, "big")
        grown = (LARGEST_WINDOW - FIRST_WINDOW).to_bytes(4, "big")
        self._write(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, grown))

    def connection_lost(self, error: Exception | None) -> None:
        calls, self._calls = self._calls, {}
        for done in calls.values():
            done(None)
        while self._held:
            self._held.popleft()[2](None)

    def call(self, headers: bytes, message: bytes, done: Done) -> None:
        """Send a request whose header block is made already."""
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        if len(body) > self._window or len(self._calls) >= MAX_STREAMS:
            self._held.append((headers, message, done))
            return
        assert self._transport is not None
        self._window -= len(body)
        number = self._next
        self._next += 2
        self._calls[number] = done
        self._transport.write(
            _frame(HEADERS, END_HEADERS, number, headers) + _frame(DATA, END_STREAM, number, body)
        )

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 9:
            length = (buffer[at] << 16) | (buffer[at + 1] << 8) | buffer[at + 2]
            if end - at - 9 < length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._frame_received(kind, flags, number, bytes(buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del buffer[:at]

    def _frame_received(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == DATA:
            self._messages[number] = self._messages.get(number, b"") + payload
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            message = self._messages.pop(number, None)
            done = self._calls.pop(number, None)
            if done is not None:
                done(None if message is None or kind == RST_STREAM else message[5:])
                self._release()
        elif kind == SETTINGS and not flags & ACK:
            self._write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._write(_frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(payload, "big") & LARGEST_WINDOW
            self._release()

    def _release(self) -> None:
        """Send what was held back, as far as it goes."""
        while self._held and len(self._calls) < MAX_STREAMS:
            before = len(self._held)
            self.call(*self._held.popleft())
            if len(self._held) >= before:
                # No window yet: call() put it back, at the end.
                self._held.rotate(1)
                return

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def connect(host: str, port: int, tls: ssl.SSLContext | None = None) -> Connection:
    """Open one connection."""
    loop = asyncio.get_running_loop()
    name = host if tls else None
    _, connection = await loop.create_connection(
        Connection, host, port, ssl=tls, server_hostname=name
    )
    return connection


def header_block(path: str, authority: str, token: str, *, secure: bool) -> bytes:
    """Return the headers of one call, HPACK without tables (RFC 7541, 6.2.2 and appendix A)."""
    return b"".join(
        [
            b"\x83",  # :method POST
            b"\x87" if secure else b"\x86",  # :scheme
            b"\x04" + _text(path),
            b"\x01" + _text(authority),
            b"\x0f\x10" + _text("application/grpc"),  # content-type is entry 31
            b"\x00" + _text("te") + _text("trailers"),
            b"\x1f\x08" + _text(f"Bearer {token}"),  # authorization, never indexed
        ]
    )


def _text(text: str) -> bytes:
    data = text.encode()
    length = len(data)
    if length < 127:
        return bytes([length]) + data
    rest, head = length - 127, b"\x7f"
    while rest >= 128:
        head += bytes([rest % 128 + 128])
        rest //= 128
    return head + bytes([rest]) + data


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload
    )
