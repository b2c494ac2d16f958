"""The seam over grpcio, the default.

grpcio connects in the background and tries for ever; connect() waits for the channel to be
ready within its own time, so that a failure is seen at once and the next address is tried.
Retries, name lookup, proxies from the environment and shared connections are off: all of
that is decided above the seam.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

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


async def connect(address: Address, authority: str, tls: Tls | None, limits: Limits) -> Transport:
    """Open one connection and wait until it speaks HTTP/2. ConnectFailed."""
    target = (
        f"ipv6:[{address.host.replace('%', '%25')}]"
        if address.is_ipv6
        else (f"ipv4:{address.host}")
    )
    target += f":{address.port}"
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
        channel = grpc.aio.insecure_channel(target, options)
    else:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
        credentials = grpc.ssl_channel_credentials(
            root_certificates=tls.roots_pem,
            private_key=tls.key_pem or None,
            certificate_chain=tls.chain_pem or None,
        )
        channel = grpc.aio.secure_channel(target, credentials, options)
    try:
        await asyncio.wait_for(_ready(channel), limits.connect_s)
    except (TimeoutError, ConnectFailed):
        await channel.close()
        raise ConnectFailed("the channel did not become ready") from None
    except BaseException:
        await channel.close()
        raise
    return GrpcioTransport(channel)


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

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            reply: bytes | None = await call(request, metadata=metadata, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _status_error(error) from None
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
        finally:
            call.cancel()

    async def close(self) -> None:
        await self._channel.close()


def _status_error(error: grpc.aio.AioRpcError) -> StatusError:
    trailer = b""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_TRAILER and isinstance(value, bytes):
            trailer = value
    return StatusError(error.code().name, error.details() or "", trailer)
