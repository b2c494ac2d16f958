"""A control server in memory that keeps the contract, and a device's end of everything else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.virtual_time import wall
from wantastic.config.model import HostPort
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.control.client import AuthClient, Server
from wantastic.control.configuration import Received, Registration
from wantastic.control.errors import ControlError
from wantastic.control.plane import ControlPlane, Options
from wantastic.control.resolve import Resolver
from wantastic.control.transport import (
    Address,
    ConnectFailed,
    Limits,
    Metadata,
    StatusError,
    Tls,
)

KEY = bytes(range(32))
GATEWAY_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def refuse(code: int, *, retry_after_ms: int = 0) -> StatusError:
    """Return the failure that the contract wants for a code."""
    error = pb.Error(code=code, reason="no", retry_after_ms=retry_after_ms)  # type: ignore[arg-type]
    return StatusError(methods.GRPC_STATUS[code], "no", error.SerializeToString())


@dataclass
class FakeServer:
    """Tokens, devices, one configuration for all; switches for each kind of failure."""

    enrolment_tokens: dict[str, str | None] = field(default_factory=lambda: {"one-off": None})
    capabilities: tuple[str, ...] = (methods.CAPABILITY_WATCH, methods.CAPABILITY_LONG_POLL)
    lifetime_s: int = 86400
    prefix: str = methods.PREFIXES[0]
    reachable: bool = True
    silent_streams: bool = False
    heartbeat_s: float = float(methods.HEARTBEAT_S)
    version: int = 1
    configuration: pb.Configuration = field(default_factory=pb.Configuration)
    devices: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    fail_next: dict[str, list[StatusError]] = field(default_factory=dict)
    without_methods: frozenset[str] = frozenset()
    calls: list[tuple[float, str]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    lose_answers: int = 0
    issued: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    open: set[FakeTransport] = field(default_factory=set)
    sign: Callable[[bytes], list[bytes]] | None = None

    # -- switches --

    def change(self, configuration: pb.Configuration) -> None:
        self.configuration = configuration
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()

    def stop(self) -> None:
        """Drop every connection and take no new one."""
        self.reachable = False
        for transport in list(self.open):
            transport.lost.set()
        self.open.clear()

    def start(self) -> None:
        self.reachable = True

    def forget(self) -> None:
        self.devices.clear()
        self.tokens.clear()

    # -- the seam --

    async def connect(
        self, address: Address, authority: str, tls: Tls | None, limits: Limits
    ) -> FakeTransport:
        self.connections.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        if not self.reachable:
            raise ConnectFailed("no")
        transport = FakeTransport(self)
        self.open.add(transport)
        return transport

    def client(self, **change: Any) -> AuthClient:
        """Return a client of this server; the name it looks up has one address."""
        server = Server(HostPort("127.0.0.1", 1), insecure=True)
        return AuthClient(server, self.connect, Resolver(NoMemory()), **change)

    # -- the methods --

    async def answer(self, name: str, request: Any, bearer: str) -> Any:
        loop = asyncio.get_running_loop()
        self.calls.append((loop.time(), name))
        self.requests.append(request)
        if name in self.without_methods:
            raise StatusError("UNIMPLEMENTED", "")
        if self.fail_next.get(name):
            raise self.fail_next[name].pop(0)
        if name == "RegisterDevice":
            return self._register(request, bearer)
        device = self._device(bearer)
        if name == "RefreshToken":
            return pb.RefreshTokenResponse(
                token=self._issue(device),
                token_terms=pb.TokenTerms(lifetime_s=self.lifetime_s),
                certificate_chain=self._chain(request),
                server_time_unix_ms=round(wall() * 1000),
            )
        if request.wait_ms and request.known_etag == self._etag():
            waiting = asyncio.ensure_future(self.changed.wait())
            await asyncio.wait({waiting}, timeout=request.wait_ms / 1000)
            waiting.cancel()
        return self._configuration(request)

    def _chain(self, request: Any) -> pb.CertificateChain | None:
        if not request.certificate_request or self.sign is None:
            return None
        return pb.CertificateChain(certificates=self.sign(request.certificate_request))

    def _register(self, request: Any, bearer: str) -> Any:
        if bearer in self.tokens:
            self._device(bearer)
        elif bearer in self.enrolment_tokens:
            owner = self.enrolment_tokens[bearer]
            if owner not in (None, request.device_id):
                raise refuse(pb.ERROR_TOKEN_USED)
            if bearer.startswith("one-off"):
                self.enrolment_tokens[bearer] = request.device_id
        else:
            raise refuse(pb.ERROR_TOKEN_INVALID)
        self.devices[request.device_id] = request.public_key
        return pb.RegisterDeviceResponse(
            success=True,
            token=self._issue(request.device_id),
            server_key=GATEWAY_KEY,
            endpoint="gw.example",
            token_terms=pb.TokenTerms(lifetime_s=self.lifetime_s),
            tenant_id="tenant",
            certificate_chain=self._chain(request),
            server=self.server_info(),
            server_time_unix_ms=round(wall() * 1000),
        )

    def server_info(self) -> pb.ServerInfo:
        return pb.ServerInfo(protocol_version=1, capabilities=self.capabilities)

    def _issue(self, device: str) -> str:
        self.issued += 1
        token = f"secret-device-token-{self.issued}"
        self.tokens[token] = (device, wall() + self.lifetime_s)
        return token

    def _device(self, bearer: str) -> str:
        device, expires = self.tokens.get(bearer, ("", 0.0))
        if not device:
            raise refuse(pb.ERROR_TOKEN_INVALID)
        if device not in self.devices:
            raise refuse(pb.ERROR_DEVICE_UNKNOWN)
        if self.lifetime_s and wall() > expires:
            raise refuse(pb.ERROR_TOKEN_EXPIRED)
        return device

    def _etag(self) -> str:
        return f"v{self.version}"

    def _configuration(self, request: Any) -> Any:
        reply = pb.GetConfigurationResponse(
            etag=self._etag(), version=self.version, server_time_unix_ms=round(wall() * 1000)
        )
        if request.known_etag == self._etag():
            reply.not_modified = True
        else:
            reply.configuration.CopyFrom(self.configuration)
        if request.HasField("agent"):
            reply.server.CopyFrom(self.server_info())
        return reply

    async def watch(self, request: Any, bearer: str) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        self.calls.append((loop.time(), "WatchConfiguration"))
        if "WatchConfiguration" in self.without_methods:
            raise StatusError("UNIMPLEMENTED", "")
        known = pb.GetConfigurationRequest()
        known.CopyFrom(request)
        while True:
            self._device(bearer)
            yield self._configuration(known)
            known.known_etag = self._etag()
            changed = self.changed
            waiting = asyncio.ensure_future(changed.wait())
            await asyncio.wait({waiting}, timeout=self.heartbeat_s)
            waiting.cancel()
            while self.silent_streams:
                await asyncio.sleep(3600)


class FakeTransport:
    """One connection to a FakeServer."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.lost = asyncio.Event()

    def _method(self, path: str) -> Any:
        prefix, _, name = path.rpartition("/")
        if prefix + "/" != self.server.prefix:
            raise StatusError("UNIMPLEMENTED", "")
        return next(m for m in methods.METHODS if m.name == name)

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        if self.lost.is_set():
            raise ConnectFailed("the connection is gone")
        method = self._method(path)
        bearer = dict(metadata).get("authorization", "").removeprefix("Bearer ")
        await asyncio.sleep(0.02)
        call = asyncio.ensure_future(
            self.server.answer(method.name, method.request.FromString(request), bearer)
        )
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait({call, lost}, timeout=timeout_s, return_when="FIRST_COMPLETED")
            if not call.done():
                status = "UNAVAILABLE" if self.lost.is_set() else "DEADLINE_EXCEEDED"
                raise StatusError(status, "gone")
            reply = call.result()
        finally:
            call.cancel()
            lost.cancel()
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            raise StatusError("UNAVAILABLE", "the answer was lost")
        data: bytes = reply.SerializeToString()
        return data

    async def stream(self, path: str, request: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        method = self._method(path)
        bearer = dict(metadata).get("authorization", "").removeprefix("Bearer ")
        replies = self.server.watch(method.request.FromString(request), bearer)
        lost = asyncio.ensure_future(self.lost.wait())
        try:
            while True:
                step = asyncio.ensure_future(anext(replies))
                try:
                    await asyncio.wait({step, lost}, return_when="FIRST_COMPLETED")
                    if not step.done():
                        raise StatusError("UNAVAILABLE", "gone")
                    yield step.result().SerializeToString()
                finally:
                    step.cancel()
                    await asyncio.gather(step, return_exceptions=True)
        finally:
            lost.cancel()
            await replies.aclose()  # type: ignore[attr-defined]

    async def close(self) -> None:
        self.lost.set()
        self.server.open.discard(self)


class NoMemory:
    """Remembers no addresses."""

    def last_good(self, name: str) -> tuple[str, ...]:
        return ()

    def remember(self, name: str, addresses: tuple[str, ...]) -> None:
        raise AssertionError("a numeric address is not remembered")


@dataclass
class MemoryRecord:
    """A record without a disk."""

    value: bytes | None = None
    writes: int = 0
    failing: bool = False

    def read(self) -> bytes | None:
        return self.value

    def write(self, payload: bytes) -> bool:
        if payload == self.value:
            return False
        if self.failing:
            raise OSError(28, "No space left on device")
        self.value = payload
        self.writes += 1
        return True

    def remove(self) -> None:
        self.value = None


@dataclass
class Listening:
    """Writes down what a control plane tells."""

    told: list[tuple[str, Any]] = field(default_factory=list)

    def registering(self) -> None:
        self.told.append(("registering", None))

    def registered(self, registration: Registration) -> None:
        self.told.append(("registered", registration))

    def configuration(self, received: Received) -> None:
        self.told.append(("configuration", received))

    def forgotten(self, error: ControlError) -> None:
        self.told.append(("forgotten", error.code))

    def trouble(self, error: ControlError) -> None:
        self.told.append(("trouble", error.code))

    def fine(self) -> None:
        if self.told and self.told[-1] != ("fine", None):
            self.told.append(("fine", None))

    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def of(self, name: str) -> list[Any]:
        return [value for told, value in self.told if told == name]


@dataclass
class Lines:
    """A log that keeps every line of every level."""

    lines: list[str] = field(default_factory=list)

    def _write(self, level: str, message: str, fields: dict[str, object]) -> None:
        self.lines.append(f"{level} {message} {fields!r}")

    def debug(self, message: str, **fields: object) -> None:
        self._write("debug", message, fields)

    def info(self, message: str, **fields: object) -> None:
        self._write("info", message, fields)

    def warning(self, message: str, **fields: object) -> None:
        self._write("warning", message, fields)

    def error(self, message: str, **fields: object) -> None:
        self._write("error", message, fields)


@dataclass
class Harness:
    """One device's control plane and everything around it."""

    server: FakeServer
    plane: ControlPlane
    listening: Listening
    record: MemoryRecord
    log: Lines

    @classmethod
    def make(
        cls,
        server: FakeServer,
        *,
        token: str = "one-off",
        seed: int = 1,
        record: MemoryRecord | None = None,
        held: Received | None = None,
        options: dict[str, Any] | None = None,
        **change: Any,
    ) -> Harness:
        listening, log, record = Listening(), Lines(), record or MemoryRecord()
        rng = random.Random(seed)
        values = {"server": "127.0.0.1:1", "enrolment_token": token, "certificate": False}
        plane = ControlPlane(
            Options(**(values | (options or {}))),
            server.client(),
            record,
            listening,
            log,
            public_key=lambda: KEY,
            held=held,
            random=rng.random,
            unix=wall,
            entropy=rng.randbytes,
            **change,
        )
        return cls(server, plane, listening, record, log)

    async def run_for(self, seconds: float) -> None:
        """Run the plane for a while (or on, when it runs) and check that it did not end."""
        task = asyncio.ensure_future(self.plane.run())
        try:
            await asyncio.wait({task}, timeout=seconds)
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
