"""The seam over grpclib and h2: pure Python, for small and big-endian routers.

grpclib has no limit on a message's size, counts on h2 for that of headers, and raises out
of the protocol callback on HTTP/2 events that it does not know; the subclasses here put
that right. Everything that reads from the server ends in StatusError or ConnectFailed.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from grpclib.client import Channel, Handler, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.metadata import Deadline
from grpclib.protocol import H2Protocol
from h2.config import H2Configuration
from h2.events import RemoteSettingsChanged, StreamEnded
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from multidict import MultiDict

from wantastic.control.dial import dial
from wantastic.control.methods import ERROR_TRAILER
from wantastic.control.tls import client_context
from wantastic.control.transport import (
    MAX_HEADERS_BYTES,
    WINDOW_BYTES,
    Address,
    ConnectFailed,
    Limits,
    Metadata,
    StatusError,
    Tls,
    Transport,
)

for _name in ("grpclib", "h2", "hpack"):
    # At level debug hpack writes every header it sends: tokens.
    logging.getLogger(_name).setLevel(logging.WARNING)

# What a hostile or broken peer can make grpclib and h2 raise.
_BROKEN = (
    H2Error,
    ProtocolError,
    AssertionError,
    AttributeError,
    KeyError,
    NotImplementedError,
    ValueError,
    binascii.Error,
    struct.error,
)


class _Bytes(CodecBase):
    """Messages pass as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _Handler(Handler):
    """Notes the end of the connection."""

    def __init__(self) -> None:
        self.settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True once the server's SETTINGS came, False when the connection ended first."""

    def settle(self, value: bool) -> None:
        if not self.settled.done():
            self.settled.set_result(value)

    def close(self) -> None:
        super().close()
        self.settle(False)


class _Protocol(H2Protocol):
    """Closes on what h2 refuses, overlooks what grpclib does not know, limits headers."""

    handler: _Handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        h2 = self.connection._connection
        h2.update_settings(
            {SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS_BYTES, SettingCodes.ENABLE_PUSH: 0}
        )
        h2.decoder.max_header_list_size = MAX_HEADERS_BYTES
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.connection.feed(data)
            self.connection.flush()
            for event in events:
                if isinstance(event, RemoteSettingsChanged):
                    self.handler.settle(True)
                elif isinstance(event, StreamEnded):
                    self._end_without_status(event.stream_id)
                if event.__class__ in getattr(self.processor, "processors", ()):
                    self.processor.process(event)
            self.connection.flush()
            self._check_frame_length()
        except _BROKEN:
            self.processor.close("HTTP/2 protocol error")

    def _check_frame_length(self) -> None:
        """Refuse a frame by its head; h2 does once all of it (up to 16 MiB) is buffered."""
        h2 = self.connection._connection
        head = bytes(h2.incoming_buffer._data[:3])
        if len(head) == 3 and int.from_bytes(head, "big") > h2.max_inbound_frame_size:
            self.processor.close("HTTP/2 frame too large")

    def _end_without_status(self, stream_id: int | None) -> None:
        """Wake a call that waits for trailers although its stream ended without any."""
        stream = self.processor.streams.get(stream_id or 0)
        if stream is None or stream.trailers is not None:
            return
        if "grpc-status" not in dict(stream.headers or ()):
            stream.trailers = []
            stream.trailers_received.set()


class _Channel(Channel):
    """A channel over one connection that was made beforehand, and is not made again."""

    def __init__(self, protocol: H2Protocol, authority: str, limits: Limits, secure: bool) -> None:
        super().__init__(codec=_Bytes())
        self._protocol = protocol
        self._authority = authority
        self._scheme = "https" if secure else "http"
        self._status_details_codec = None
        self.message_bytes = limits.message_bytes

    async def _create_connection(self) -> H2Protocol:
        raise ConnectFailed("the connection is gone")


async def connect(
    address: Address, authority: str, tls: Tls | None, limits: Limits, mark: int = 0
) -> Transport:
    """Open one connection and wait for the server's SETTINGS. ConnectFailed."""
    config = Configuration(
        _keepalive_time=limits.keepalive_s,
        _keepalive_timeout=limits.keepalive_timeout_s,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=limits.keepalive_s,
        http2_connection_window_size=WINDOW_BYTES,
        http2_stream_window_size=WINDOW_BYTES,
    ).__for_client__()
    h2_config = H2Configuration(
        client_side=True,
        header_encoding="ascii",
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
    )
    context = client_context(tls) if tls else None
    try:
        async with asyncio.timeout(limits.connect_s):
            transport, protocol = await asyncio.get_running_loop().create_connection(
                lambda: _Protocol(_Handler(), config, h2_config),
                sock=await dial(address, mark),
                ssl=context,
                server_hostname=tls.server_name if tls else None,
            )
            try:
                secured = transport.get_extra_info("ssl_object")
                if secured is not None and secured.selected_alpn_protocol() != "h2":
                    raise ConnectFailed("the server does not offer h2")
                if not await protocol.handler.settled:
                    raise ConnectFailed("the server does not speak HTTP/2")
            except BaseException:
                protocol.processor.close()
                raise
    except OSError as error:  # ssl.SSLError and TimeoutError are among them
        raise ConnectFailed(type(error).__name__) from None
    return GrpclibTransport(_Channel(protocol, authority, limits, tls is not None))


class _Stream(Stream[bytes, bytes]):
    """A call whose messages are bounded."""

    async def recv_message(self) -> bytes | None:
        if not self._recv_initial_metadata_done:
            await self.recv_initial_metadata()
        assert self._wrapper is not None
        with self._wrapper:
            head = await self._stream.recv_data(5)
            if not head:
                return None
            compressed, size = struct.unpack(">BI", head)
            if compressed:
                raise GRPCError(Status.INTERNAL, "the message is compressed, not asked for")
            if size > self._channel.message_bytes:  # type: ignore[attr-defined]
                text = f"a message of {size} bytes is larger than allowed"
                raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
            return bytes(await self._stream.recv_data(size))


class GrpclibTransport:
    """A connected grpclib channel."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def _open(
        self, path: str, cardinality: Cardinality, metadata: Metadata, timeout_s: float | None
    ) -> _Stream:
        return _Stream(
            self._channel,
            path,
            MultiDict(metadata),  # type: ignore[arg-type]
            cardinality,
            bytes,
            bytes,
            codec=self._channel._codec,
            status_details_codec=None,
            dispatch=self._channel.__dispatch__,
            deadline=Deadline.from_timeout(timeout_s) if timeout_s else None,
        )

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        stream = self._open(path, Cardinality.UNARY_UNARY, metadata, timeout_s)
        reply: bytes | None = None
        try:
            async with stream:
                await stream.send_message(request, end=True)
                reply = await stream.recv_message()
        except Exception as error:
            raise _translate(error, stream) from None
        if reply is None:
            raise StatusError("INTERNAL", "the call ended without an answer")
        return reply

    async def stream(self, path: str, request: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        stream = self._open(path, Cardinality.UNARY_STREAM, metadata, None)
        try:
            async with stream:
                await stream.send_message(request, end=True)
                while (reply := await stream.recv_message()) is not None:
                    yield reply
        except Exception as error:
            raise _translate(error, stream) from None

    async def close(self) -> None:
        if self._channel._protocol is not None:
            with suppress(*_BROKEN):
                self._channel._protocol.processor.close()
            self._channel._protocol = None


def _translate(error: Exception, stream: _Stream) -> Exception:
    """Return what the seam promises for what grpclib raised."""
    wrapper = getattr(stream, "_wrapper", None)
    task = asyncio.current_task()
    if wrapper is not None and wrapper.cancelled and task is not None and task.cancelling():
        # grpclib wakes a call by cancelling its task, and then raises something else.
        task.uncancel()
    if isinstance(error, GRPCError):
        trailers = stream.trailing_metadata
        trailer = trailers.get(ERROR_TRAILER) if trailers is not None else None
        error_bin = trailer if isinstance(trailer, bytes) else b""
        return StatusError(error.status.name, error.message or "", error_bin)
    if isinstance(error, TimeoutError):
        return StatusError("DEADLINE_EXCEEDED", "no answer in time")
    if isinstance(error, (StreamTerminatedError, OSError)):
        return StatusError("UNAVAILABLE", str(error))
    if isinstance(error, _BROKEN):
        return StatusError("INTERNAL", f"the answer is broken: {type(error).__name__}")
    return error
