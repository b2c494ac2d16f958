"""What the rules of conformance work with: calls in one line, and what earlier rules found."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from wantastic.config.keys import clamp, public_key_of
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.control.methods import Method
from wantastic.control.transport import StatusError, Transport

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
CALL_S = 15.0
FIRST_OWN_NUMBER = 100


class Broken(Exception):
    """The rule does not hold; the text says what was seen."""


class NotOffered(Exception):
    """The rule does not apply; the text says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that failed: its status, and the Error that came with it."""

    status: str
    error: pb.Error | None


@dataclass(slots=True)
class Device:
    """A device that a rule has registered."""

    device_id: str
    public_key: str
    token: str = field(repr=False)
    registered: pb.RegisterDeviceResponse = field(repr=False)


class Session:
    """One connection and the memory of a run."""

    def __init__(
        self,
        transport: Transport,
        tokens: tuple[str, ...],
        one_off: str,
        tenant: str,
        entropy: Callable[[int], bytes],
        *,
        silence_s: float = methods.HEARTBEAT_S + 5.0,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._entropy = entropy
        self.one_off = one_off
        self.silence_s = silence_s
        """How long a stream may be silent, with what the network may take."""
        self.tenant = tenant
        self.prefix = methods.PREFIXES[0]
        self.devices: list[Device] = []
        self.configuration: pb.GetConfigurationResponse | None = None

    async def close(self) -> None:
        """Drop the connection."""
        await self._transport.close()

    # -- what earlier rules found --

    @property
    def device(self) -> Device:
        """The first device."""
        return self.devices[0]

    @property
    def full(self) -> pb.GetConfigurationResponse:
        """The first device's configuration."""
        assert self.configuration is not None
        return self.configuration

    def token(self, number: int) -> str:
        """Return an enrolment token; a single one has to be reusable."""
        if not self._tokens:
            raise NotOffered("no --token-file was given")
        return self._tokens[min(number, len(self._tokens) - 1)]

    def require(self, capability: str) -> None:
        """Skip the rule when the server does not name a capability."""
        if capability not in self.device.registered.server.capabilities:
            raise NotOffered(f'the server does not name the capability "{capability}"')

    def new_key(self) -> str:
        """Return the public key of a new private one."""
        private = clamp(self._entropy(32))
        return base64.b64encode(public_key_of(private)).decode()

    def new_name(self) -> str:
        """Return a device_id that nobody has."""
        return f"conformance-{self._entropy(6).hex()}"

    # -- calls --

    async def call(
        self,
        method: Method[Request, Reply],
        request: Request,
        token: str | None,
        *,
        prefix: str | None = None,
        extra: bytes = b"",
        timeout_s: float = CALL_S,
    ) -> Reply:
        """Make a unary call. StatusError; Broken when the answer cannot be read."""
        path = (self.prefix if prefix is None else prefix) + method.name
        data = request.SerializeToString() + extra
        reply = await self._transport.unary(path, data, _metadata(token), timeout_s)
        return parse(method.reply, reply)

    async def watch(
        self, request: pb.GetConfigurationRequest, token: str
    ) -> AsyncIterator[pb.GetConfigurationResponse]:
        """Open the stream. StatusError."""
        path = self.prefix + methods.WATCH_CONFIGURATION.name
        replies = self._transport.stream(path, request.SerializeToString(), _metadata(token))
        try:
            async for reply in replies:
                yield parse(pb.GetConfigurationResponse, reply)
        finally:
            with contextlib.suppress(Exception):
                await replies.aclose()  # type: ignore[attr-defined]

    async def refusal(
        self, method: Method[Any, Any], request: Message, token: str | None
    ) -> Refusal:
        """Make a call that has to fail; Broken when it does not."""
        try:
            reply = await self.call(method, request, token)
        except StatusError as failure:
            return _refusal(failure)
        error: pb.Error = reply.error
        # The document's spelling: status OK, success false, an Error in the reply.
        if isinstance(reply, pb.RegisterDeviceResponse) and not reply.success:
            return Refusal(methods.GRPC_STATUS.get(error.code, "OK"), error)
        raise Broken("the call succeeded")

    async def register(
        self, token: str, device_id: str, public_key: str, **more: Any
    ) -> pb.RegisterDeviceResponse:
        """RegisterDevice; Broken when it answers without success."""
        request = pb.RegisterDeviceRequest(
            device_id=device_id, public_key=public_key, tenant_id=self.tenant, **more
        )
        reply = await self.call(methods.REGISTER_DEVICE, request, token)
        if not reply.success:
            raise Broken(f"success is false: {reply.error.reason}")
        return reply

    async def get(self, token: str, etag: str = "", **more: Any) -> pb.GetConfigurationResponse:
        """GetConfiguration."""
        request = pb.GetConfigurationRequest(known_etag=etag, **more)
        return await self.call(methods.GET_CONFIGURATION, request, token)


def expect_status(refusal: Refusal, *allowed: str) -> None:
    """Broken when a call failed in another way than the contract has it."""
    if refusal.status not in allowed:
        raise Broken(f"the status is {refusal.status} instead of {' or '.join(allowed)}")


def parse(kind: type[Reply], data: bytes) -> Reply:
    """Read a reply; Broken when it is no such message, or uses the document's numbers."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise Broken(f"the answer is no {kind.DESCRIPTOR.name}") from None
    unknown = UnknownFieldSet(message)
    numbers = [unknown[i].field_number for i in range(len(unknown))]
    low = [number for number in numbers if number < FIRST_OWN_NUMBER]
    if low:
        raise Broken(f"field {low[0]} is none of the document's: own fields count from 100")
    return message


def _refusal(failure: StatusError) -> Refusal:
    if not failure.error:
        return Refusal(failure.status, None)
    try:
        return Refusal(failure.status, pb.Error.FromString(failure.error))
    except DecodeError:
        raise Broken("the trailer wantastic-error-bin holds no Error") from None


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else ((methods.AUTHORIZATION, f"Bearer {token}"),)
