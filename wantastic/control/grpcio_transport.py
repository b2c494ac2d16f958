"""The seam over grpcio, the default.

grpcio connects in the background and tries for ever; connect() waits for the channel to be
ready within its own time, so that a failure is seen at once and the next address is tried.
Retries, name lookup, proxies from the environment and shared connections are off: all of
that is decided above the seam. A connection that needs a mark goes through a relay (dial.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from wantastic.control.dial import Relay, dial
from wantastic.control.methods import ERROR_TRAILER
from wantastic.control.transport import (
    MAX_HEADERS_BYTES,
    Address,
    ConnectFailed,
    Limits,
    Metadata,
    StatusError,
    Tls,
    Transport,
)


async def connect(
    address: Address, authority: str, tls: Tls | None, limits: Limits, mark: int = 0
) -> Transport:
    """Open one connection and wait until it speaks HTTP/2. ConnectFailed."""
    relay: Relay | None = None
    if mark:
        try:
            async with asyncio.timeout(limits.connect_s):
                relay = Relay(await dial(address, mark))
        except OSError as error:  # TimeoutError is one
            raise ConnectFailed(type(error).__name__) from None
    try:
        channel = _channel(relay.target if relay else _target(address), authority, tls, limits)
        try:
            await asyncio.wait_for(_ready(channel), limits.connect_s)
        except BaseException:
            await channel.close()
            raise
    except (TimeoutError, ConnectFailed):
        await _close(relay)
        raise ConnectFailed("the channel did not become ready") from None
    except BaseException:
        await _close(relay)
        raise
    return GrpcioTransport(channel, relay)


async def _close(relay: Relay | None) -> None:
    if relay is not None:
        await relay.close()


def _target(address: Address) -> str:
    if address.is_ipv6:
        return f"ipv6:[{address.host.replace('%', '%25')}]:{address.port}"
    return f"ipv4:{address.host}:{address.port}"


def _channel(target: str, authority: str, tls: Tls | None, limits: Limits) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [
        ("grpc.default_authority", authority),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", MAX_HEADERS_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADERS_BYTES),
        ("grpc.keepalive_time_ms", round(limits.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(limits.keepalive_timeout_s * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(target, options)
    options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.roots_pem,
        private_key=tls.key_pem or None,
        certificate_chain=tls.chain_pem or None,
    )
    return grpc.aio.secure_channel(target, credentials, options)


async def _ready(channel: grpc.aio.Channel) -> None:
    """Return when connected, ConnectFailed after the first attempt that failed."""
    state = channel.get_state(try_to_connect=True)
    while state != grpc.ChannelConnectivity.READY:
        if state in (
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        ):
            raise ConnectFailed("the attempt failed")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


class GrpcioTransport:
    """A ready grpc.aio channel."""

    def __init__(self, channel: grpc.aio.Channel, relay: Relay | None) -> None:
        self._channel = channel
        self._relay = relay

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            reply: bytes | None = await call(request, metadata=metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _status_error(error) from None
        except asyncio.CancelledError:
            raise _closed() or asyncio.CancelledError from None
        if reply is None:
            raise StatusError("INTERNAL", "the call ended without an answer")
        return reply

    async def stream(self, path: str, request: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = self._channel.unary_stream(path)
        call = method(request, metadata=metadata)
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as error:
            raise _status_error(error) from None
        except asyncio.CancelledError:
            raise _closed() or asyncio.CancelledError from None
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()
        await _close(self._relay)


def _closed() -> StatusError | None:
    """Return what a call that was cancelled met with; None when its own task is to end.

    grpcio raises CancelledError in the callers of a channel that somebody closes: let
    through, it would end their tasks for good.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return None
    return StatusError("UNAVAILABLE", "the connection was closed")


def _status_error(error: grpc.aio.AioRpcError) -> StatusError:
    trailer = b""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_TRAILER and isinstance(value, bytes):
            trailer = value
    return StatusError(error.code().name, error.details() or "", trailer)
