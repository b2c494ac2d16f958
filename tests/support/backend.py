"""A small control server in memory that keeps the contract, and can be told to break one rule.

It shares nothing with wantastic.server: it stands for somebody else's backend. A fault is
a word of FAULTS; each place that heeds one asks `self._has(fault)`.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wantastic.control import auth_pb2 as pb
from wantastic.control import methods

FAULTS: dict[str, str] = {
    # fault -> the rule that it breaks
    "one path": "paths.both",
    "unknown method internal": "paths.unknown",
    "missing token internal": "token.missing",
    "wrong token not found": "token.wrong",
    "no trailer": "error.coded",
    "code does not fit": "error.coded",
    "any key": "register.bad-key",
    "any tenant": "register.tenant",
    "no success": "register.success",
    "no token": "register.success",
    "bad server key": "register.success",
    "low field": "register.success",
    "again refused": "register.again",
    "again another gateway": "register.again",
    "unknown fields refused": "register.unknown",
    "name stolen": "register.name",
    "key cloned": "register.clone",
    "one-off twice": "register.one-off",
    "one-off answers once": "register.one-off",
    "refresh too late": "token.terms",
    "empty etag not modified": "configuration.full",
    "no etag": "configuration.full",
    "bad address": "configuration.addresses",
    "no address": "configuration.addresses",
    "bad range": "configuration.peers",
    "peer twice": "configuration.peers",
    "itself as peer": "configuration.peers",
    "bad mtu": "configuration.parts",
    "time in seconds": "configuration.time",
    "etag changes": "configuration.stable",
    "content changes": "configuration.stable",
    "never not modified": "configuration.same",
    "configuration with not modified": "configuration.same",
    "always not modified": "configuration.etag",
    "any device": "configuration.device",
    "enrolment token reads": "configuration.token",
    "report changes": "configuration.report",
    "long poll hangs": "configuration.wait",
    "refresh kills": "refresh.success",
    "refresh without token": "refresh.success",
    "forged refreshed": "refresh.forged",
    "stream late": "watch.first",
    "stream ends": "watch.first",
    "stream ignores etag": "watch.known",
    "stream silent": "watch.heartbeat",
    "stream repeats": "watch.heartbeat",
    "certificate for another": "certificate.issued",
    "no certificate": "certificate.issued",
    "certificate unchecked": "certificate.bad",
    "rekey refused": "rekey.both-ways",
    "rekey unasked": "rekey.unasked",
    "addresses shared": "devices.apart",
}


BEAT_S = 0.2


@dataclass(slots=True)
class Known:
    """A device of the backend."""

    device_id: str
    public_key: str
    address: str
    offered: str = ""


class Failure(Exception):
    """A call that fails."""

    def __init__(self, code: pb.ErrorCode.ValueType, status: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.status = status or methods.GRPC_STATUS[code]


class Backend:
    """The four methods over dictionaries."""

    def __init__(self, reusable: str, one_off: str, faults: Iterable[str] = ()) -> None:
        self._faults = frozenset(faults)
        assert self._faults <= set(FAULTS)
        self._reusable, self._one_off = reusable, one_off
        self._devices: dict[str, Known] = {}
        self._tokens: dict[str, str] = {}
        self._redeemed = ""
        self._registrations: set[str] = set()
        self._gateway = base64.b64encode(secrets.token_bytes(32)).decode()
        self._calls = 0
        self._authority = ec.generate_private_key(ec.SECP256R1())

    def _has(self, fault: str) -> bool:
        return fault in self._faults

    # -- methods --

    def register(self, request: pb.RegisterDeviceRequest, token: str) -> Any:
        known_token = token in (self._reusable, self._one_off, *self._tokens)
        if not known_token:
            raise self._wrong_token()
        if not self._has("any key") and not _is_key(request.public_key):
            raise Failure(pb.ERROR_INVALID_REQUEST)
        if request.tenant_id and not self._has("any tenant"):
            raise Failure(pb.ERROR_TENANT_UNKNOWN)
        if self._has("unknown fields refused") and b"later" in request.SerializeToString():
            raise Failure(pb.ERROR_INVALID_REQUEST)
        device = self._devices.get(request.device_id)
        if token in self._tokens:
            self._offer(self._devices[self._tokens[token]], request)
            device = self._devices[self._tokens[token]]
        elif device is not None and device.public_key != request.public_key:
            if not self._has("name stolen"):
                raise Failure(pb.ERROR_DEVICE_ID_IN_USE)
        elif device is None:
            device = self._add(request, token)
        elif self._has("again refused") or (
            token == self._one_off and self._has("one-off answers once")
        ):
            raise Failure(pb.ERROR_TOKEN_USED)
        again = device.device_id in self._registrations
        self._registrations.add(device.device_id)
        lifetime_s = 3600
        refresh_s = lifetime_s if self._has("refresh too late") else lifetime_s // 2
        reply = pb.RegisterDeviceResponse(
            success=not self._has("no success"),
            token="" if self._has("no token") else self._issue(device),
            server_key="x" if self._has("bad server key") else self._gateway,
            endpoint="other.example"
            if again and self._has("again another gateway")
            else "gw:51820",
            token_terms=pb.TokenTerms(lifetime_s=lifetime_s, refresh_after_s=refresh_s),
            server=pb.ServerInfo(
                protocol_version=1, capabilities=["watch", "long_poll", "certificate", "rekey"]
            ),
        )
        # Field 5, a varint: a number that only the document may give out.
        return reply.SerializeToString() + (b"\x28\x01" if self._has("low field") else b"")

    def refresh(self, request: pb.RefreshTokenRequest, token: str) -> Any:
        if token not in self._tokens and self._has("forged refreshed") and len(token) == 43:
            token = next(iter(self._tokens))
        device = self._device(token, request.device_id)
        chain = None
        if request.certificate_request:
            chain = self._certify(request.certificate_request)
        reply = pb.RefreshTokenResponse(
            token="" if self._has("refresh without token") else self._issue(device),
            certificate_chain=chain,
        )
        if self._has("refresh kills"):
            del self._tokens[token]
        return reply

    async def get(self, request: pb.GetConfigurationRequest, token: str) -> Any:
        if self._has("long poll hangs") and request.wait_ms:
            await asyncio.sleep(request.wait_ms / 1000 + 5)
        if self._has("enrolment token reads") and token == self._reusable:
            token = next(iter(self._tokens))
        device = self._device(token, request.device_id)
        if request.public_key and request.public_key == device.offered:
            device.public_key, device.offered = device.offered, ""
        if request.HasField("apply_error"):
            device.offered = ""
        reported = request.applied_version and self._has("report changes")
        return self._answer(device, "" if reported else request.known_etag)

    async def watch(
        self, request: pb.GetConfigurationRequest, token: str
    ) -> AsyncIterator[pb.GetConfigurationResponse]:
        device = self._device(token, request.device_id)
        if self._has("stream ends"):
            return
        if self._has("stream late"):
            await asyncio.sleep(8)
        yield self._answer(device, "" if self._has("stream ignores etag") else request.known_etag)
        while not self._has("stream silent"):
            await asyncio.sleep(BEAT_S)
            yield self._answer(device, "" if self._has("stream repeats") else "v1")
        await asyncio.sleep(30)

    # -- parts --

    def _answer(self, device: Known, etag: str) -> pb.GetConfigurationResponse:
        self._calls += 1
        right = f"v1-{self._calls}" if self._has("etag changes") else "v1"
        same = etag == "v1" and not self._has("never not modified")
        same = same or (bool(etag) and self._has("always not modified"))
        same = same or (not etag and self._has("empty etag not modified"))
        now = time.time()
        reply = pb.GetConfigurationResponse(
            not_modified=same,
            etag="" if self._has("no etag") else right,
            version=1,
            server_time_unix_ms=int(now if self._has("time in seconds") else now * 1000),
        )
        if not same or self._has("configuration with not modified"):
            reply.configuration.CopyFrom(self._configuration(device))
        return reply

    def _configuration(self, device: Known) -> pb.Configuration:
        address = "10.0.0.999/32" if self._has("bad address") else device.address
        peer = pb.Peer(
            public_key=device.public_key if self._has("itself as peer") else self._gateway,
            allowed_ips=["10.0.0.0/40" if self._has("bad range") else "10.0.0.0/24"],
            endpoints=["gw:51820"],
            name=str(self._calls) if self._has("content changes") else "gateway",
        )
        return pb.Configuration(
            addresses=pb.AddressList(addresses=[] if self._has("no address") else [address]),
            mtu=70_000 if self._has("bad mtu") else 1420,
            peers=pb.PeerList(peers=[peer] * (2 if self._has("peer twice") else 1)),
        )

    def _add(self, request: pb.RegisterDeviceRequest, token: str) -> Known:
        taken = any(d.public_key == request.public_key for d in self._devices.values())
        if taken and not self._has("key cloned"):
            raise Failure(pb.ERROR_KEY_IN_USE)
        if token == self._one_off and not self._has("one-off twice"):
            if self._redeemed:
                raise Failure(pb.ERROR_TOKEN_USED)
            self._redeemed = request.device_id
        number = 2 if self._has("addresses shared") else len(self._devices) + 2
        device = Known(request.device_id, request.public_key, f"10.0.0.{number}/32")
        self._devices[request.device_id] = device
        return device

    def _offer(self, device: Known, request: pb.RegisterDeviceRequest) -> None:
        if self._has("rekey refused"):
            raise Failure(pb.ERROR_INVALID_REQUEST)
        if request.public_key == device.public_key:
            return
        if request.replaces_public_key != device.public_key and not self._has("rekey unasked"):
            raise Failure(pb.ERROR_INVALID_REQUEST)
        device.offered = request.public_key

    def _device(self, token: str, device_id: str) -> Known:
        if token not in self._tokens:
            raise self._wrong_token()
        device = self._devices[self._tokens[token]]
        if device_id not in ("", device.device_id) and not self._has("any device"):
            raise Failure(pb.ERROR_INVALID_REQUEST)
        return device

    def _issue(self, device: Known) -> str:
        token = secrets.token_urlsafe(32)
        self._tokens[token] = device.device_id
        return token

    def _wrong_token(self) -> Failure:
        if self._has("wrong token not found"):
            return Failure(pb.ERROR_DEVICE_UNKNOWN)
        if self._has("code does not fit"):
            return Failure(pb.ERROR_DEVICE_PENDING, "UNAUTHENTICATED")
        return Failure(pb.ERROR_TOKEN_INVALID)

    def _certify(self, data: bytes) -> pb.CertificateChain | None:
        if self._has("no certificate"):
            return None
        try:
            request = x509.load_der_x509_csr(data)
            good = request.is_signature_valid
        except ValueError:
            request, good = None, False
        if not good and not self._has("certificate unchecked"):
            raise Failure(pb.ERROR_CERTIFICATE_REQUEST)
        key = self._authority.public_key()
        if request is not None and not self._has("certificate for another"):
            found = request.public_key()
            assert isinstance(found, ec.EllipticCurvePublicKey)
            key = found
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._authority, hashes.SHA256())
        )
        return pb.CertificateChain(certificates=[made.public_bytes(serialization.Encoding.DER)])

    # -- gRPC --

    async def start(self) -> tuple[grpc.aio.Server, int]:
        """Listen on a loopback port of its own."""
        server = grpc.aio.server()
        prefixes = methods.PREFIXES[: 1 if self._has("one path") else 2]
        for prefix in prefixes:
            handlers = {
                "RegisterDevice": self._unary(methods.REGISTER_DEVICE, self.register),
                "RefreshToken": self._unary(methods.REFRESH_TOKEN, self.refresh),
                "GetConfiguration": self._unary(methods.GET_CONFIGURATION, self.get),
                "WatchConfiguration": self._stream(),
            }
            if self._has("unknown method internal"):
                handlers["NoSuchMethod"] = self._unary(methods.REFRESH_TOKEN, self.refresh)
            name = prefix.strip("/")
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    def _unary(self, method: Any, answer: Any) -> Any:
        async def handle(request: Any, context: Any) -> bytes:
            try:
                reply = answer(request, self._token(context))
                if not isinstance(reply, bytes):
                    reply = await reply if hasattr(reply, "__await__") else reply
                return reply if isinstance(reply, bytes) else reply.SerializeToString()
            except Failure as failure:
                await self._fail(failure, context)
                raise

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=method.request.FromString
        )

    def _stream(self) -> Any:
        async def handle(request: Any, context: Any) -> AsyncIterator[bytes]:
            try:
                async for reply in self.watch(request, self._token(context)):
                    yield reply.SerializeToString()
            except Failure as failure:
                await self._fail(failure, context)

        return grpc.unary_stream_rpc_method_handler(
            handle, request_deserializer=pb.GetConfigurationRequest.FromString
        )

    def _token(self, context: Any) -> str:
        for name, value in context.invocation_metadata():
            if name == methods.AUTHORIZATION:
                return str(value).removeprefix("Bearer ")
        if self._has("missing token internal"):
            raise Failure(pb.ERROR_INTERNAL)
        raise Failure(pb.ERROR_TOKEN_INVALID)

    async def _fail(self, failure: Failure, context: Any) -> None:
        error = pb.Error(code=failure.code, reason="The backend refuses")
        trailer = (
            () if self._has("no trailer") else ((methods.ERROR_TRAILER, error.SerializeToString()),)
        )
        await context.abort(grpc.StatusCode[failure.status], error.reason, trailer)


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:
        return False
