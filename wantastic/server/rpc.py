"""gRPC around the service: both paths, errors as the contract spells them, health, reflection.

grpc.aio and not the threaded server: a stream or a long poll then costs a coroutine, not
a thread, and on uvloop a unary call costs about the same as with eight threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.server.authority import device_pk_of
from wantastic.server.limits import host_of
from wantastic.server.metrics import Metrics
from wantastic.server.records import RefusalCode, Refused
from wantastic.server.service import Caller, Service

log = logging.getLogger(__name__)

# How long connections without a call get to go by themselves once we said GOAWAY; one whose
# device has vanished behind its NAT never goes.
LINGER_S = 0.5

ERROR_CODES: dict[RefusalCode, pb.ErrorCode.ValueType] = {
    RefusalCode.INVALID_REQUEST: pb.ERROR_INVALID_REQUEST,
    RefusalCode.TOKEN_INVALID: pb.ERROR_TOKEN_INVALID,
    RefusalCode.TOKEN_EXPIRED: pb.ERROR_TOKEN_EXPIRED,
    RefusalCode.TOKEN_USED: pb.ERROR_TOKEN_USED,
    RefusalCode.TOKEN_REVOKED: pb.ERROR_TOKEN_REVOKED,
    RefusalCode.TENANT_UNKNOWN: pb.ERROR_TENANT_UNKNOWN,
    RefusalCode.DEVICE_UNKNOWN: pb.ERROR_DEVICE_UNKNOWN,
    RefusalCode.DEVICE_REMOVED: pb.ERROR_DEVICE_REMOVED,
    RefusalCode.DEVICE_PENDING: pb.ERROR_DEVICE_PENDING,
    RefusalCode.DEVICE_LIMIT: pb.ERROR_DEVICE_LIMIT,
    RefusalCode.KEY_IN_USE: pb.ERROR_KEY_IN_USE,
    RefusalCode.DEVICE_ID_IN_USE: pb.ERROR_DEVICE_ID_IN_USE,
    RefusalCode.NO_ADDRESS: pb.ERROR_NO_ADDRESS,
    RefusalCode.CERTIFICATE_REQUEST: pb.ERROR_CERTIFICATE_REQUEST,
    RefusalCode.CERTIFICATE_REQUIRED: pb.ERROR_CERTIFICATE_REQUIRED,
    RefusalCode.RATE_LIMITED: pb.ERROR_RATE_LIMITED,
    RefusalCode.UNAVAILABLE: pb.ERROR_UNAVAILABLE,
    RefusalCode.PROTOCOL_TOO_OLD: pb.ERROR_PROTOCOL_TOO_OLD,
    RefusalCode.NOT_FOUND: pb.ERROR_INVALID_REQUEST,
}
# What a device's connection may do before it is cut: a router behind NAT pings, a flood
# of pings or headers is a flood.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_send_message_length", methods.MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 1),
)
Context = grpc.aio.ServicerContext[Any, Any]


class UnderWay:
    """Counts the calls that run."""

    __slots__ = ("_count", "none")

    def __init__(self) -> None:
        self._count = 0
        self.none = asyncio.Event()
        self.none.set()

    def __enter__(self) -> None:
        if not self._count:
            self.none.clear()
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self.none.set()


class RpcServer:
    """The listening gRPC server."""

    def __init__(self, service: Service, metrics: Metrics, *, certificates: bool) -> None:
        self._service = service
        self._metrics = metrics
        self._certificates = certificates
        self._server = grpc.aio.server(options=OPTIONS)
        self._health = health.aio.HealthServicer()
        self._under_way = UnderWay()
        handlers = self._handlers()
        names = []
        for prefix in methods.PREFIXES:
            name = prefix.strip("/")
            names.append(name)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, handlers),)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names.append(health.SERVICE_NAME)
        reflection.enable_server_reflection(
            [*names, reflection.SERVICE_NAME], self._server, pool=_reflected()
        )
        self._names = ["", *names[:2]]

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Bind an address, plaintext without credentials; return the port."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Say so to health checks, let go of waiters, finish what runs, then close."""
        await self._health.enter_graceful_shutdown()
        self._service.drain()
        stopped = asyncio.ensure_future(self._server.stop(grace_s))
        idle = asyncio.ensure_future(self._under_way.none.wait())
        await asyncio.wait({stopped, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # (Asked again, gRPC takes the shorter grace.)
        await asyncio.wait({stopped}, timeout=LINGER_S)
        if self._under_way.none.is_set():
            await self._server.stop(None)
        await stopped

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        service = self._service

        async def register(request: pb.RegisterDeviceRequest, caller: Caller) -> bytes:
            return (await service.register(request, caller)).SerializeToString()

        async def refresh(request: pb.RefreshTokenRequest, caller: Caller) -> bytes:
            return (await service.refresh(request, caller)).SerializeToString()

        return {
            methods.REGISTER_DEVICE.name: self._unary(methods.REGISTER_DEVICE, register),
            methods.REFRESH_TOKEN.name: self._unary(methods.REFRESH_TOKEN, refresh),
            methods.GET_CONFIGURATION.name: self._unary(
                methods.GET_CONFIGURATION, service.get_configuration
            ),
            methods.WATCH_CONFIGURATION.name: self._stream(
                methods.WATCH_CONFIGURATION, service.watch
            ),
        }

    def _unary(
        self,
        method: methods.Method[Any, Any],
        answer: Callable[[Any, Caller], Awaitable[bytes]],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        good = self._metrics.rpcs.labels(method.name, "OK")
        latency = self._metrics.latency.labels(method.name)

        async def handle(request: Any, context: Context) -> bytes:
            began = time.perf_counter()
            try:
                with self._under_way:
                    reply = await answer(request, self._caller(context))
            except Refused as refused:
                await self._refuse(method.name, refused, context)
                raise
            if not getattr(request, "wait_ms", 0):
                latency.observe(time.perf_counter() - began)
            good.inc()
            return reply

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=method.request.FromString
        )

    def _stream(
        self,
        method: methods.Method[Any, Any],
        answer: Callable[[Any, Caller], AsyncIterator[bytes]],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        good = self._metrics.rpcs.labels(method.name, "OK")

        async def handle(request: Any, context: Context) -> AsyncIterator[bytes]:
            try:
                with self._under_way:
                    async for reply in answer(request, self._caller(context)):
                        yield reply
            except Refused as refused:
                await self._refuse(method.name, refused, context)
                raise
            good.inc()

        return grpc.unary_stream_rpc_method_handler(
            handle, request_deserializer=method.request.FromString
        )

    def _caller(self, context: Context) -> Caller:
        bearer = ""
        for key, value in context.invocation_metadata() or ():
            if key == methods.AUTHORIZATION and isinstance(value, str):
                scheme, _, bearer = value.partition(" ")
                if scheme.lower() != "bearer":
                    bearer = ""
                break
        if not bearer:
            raise Refused(
                RefusalCode.TOKEN_INVALID,
                "the call carries no token",
                remedy="send the metadata `authorization: Bearer TOKEN`",
            )
        certificate = None
        if self._certificates:
            names = context.auth_context().get("x509_subject_alternative_name")
            if names:
                certificate = device_pk_of(names)
        return Caller(bearer.strip(), host_of(context.peer()), certificate)

    async def _refuse(self, method: str, refused: Refused, context: Context) -> None:
        code = ERROR_CODES[refused.code]
        status = methods.GRPC_STATUS[code]
        self._metrics.rpcs.labels(method, status).inc()
        error = pb.Error(
            code=code,
            reason=refused.reason,
            remedy=refused.remedy,
            retry_after_ms=int(refused.retry_after_s * 1000),
            field=refused.field,
        )
        await context.abort(
            grpc.StatusCode[status],
            refused.reason,
            ((methods.ERROR_TRAILER, error.SerializeToString()),),
        )


def _reflected() -> descriptor_pool.DescriptorPool:
    """Return descriptors of everything served; /grpc.AuthService exists only here."""
    pool = descriptor_pool.DescriptorPool()
    for module in (pb, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    alias = descriptor_pb2.FileDescriptorProto(
        name="grpc_auth.proto", package="grpc", syntax="proto3", dependency=[pb.DESCRIPTOR.name]
    )
    original = descriptor_pb2.ServiceDescriptorProto()
    pb.DESCRIPTOR.services_by_name["AuthService"].CopyToProto(original)
    alias.service.append(original)
    pool.Add(alias)
    return pool
