"""The contract as rules that a machine can check, in the order in which they are checked."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from wantastic.config.keys import decode_key
from wantastic.config.values import parse_host_port, parse_interface, parse_network
from wantastic.control import auth_pb2 as pb
from wantastic.control import certificate, methods
from wantastic.control.conformance_session import (
    Broken,
    Device,
    NotOffered,
    Session,
    expect_status,
)
from wantastic.control.transport import StatusError

DEFAULT_TUNNEL_PORT = 51820
REDEMPTIONS = 20
LONG_POLL_MS = 1000
LONG_POLL_SLACK_S = 4.0
FIRST_MESSAGE_S = 5.0
# Field 9999, a string: what a later version of an agent might send.
UNKNOWN_FIELD = b"\xfa\xf0\x04\x05later"
YEAR_2025_MS = 1_735_689_600_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: a stable name, a sentence, the check, and the rules whose findings it uses."""

    name: str
    text: str
    check: Callable[[Session], Awaitable[None]]
    needs: tuple[str, ...] = ()
    slow: bool = False


# -- paths and credentials --------------------------------------------------------------


async def _paths(session: Session) -> None:
    answered = []
    for prefix in methods.PREFIXES:
        try:
            await session.call(
                methods.GET_CONFIGURATION, pb.GetConfigurationRequest(), None, prefix=prefix
            )
        except StatusError as failure:
            if failure.status == "UNIMPLEMENTED":
                continue
        answered.append(prefix)
    if not answered:
        raise Broken("neither path knows GetConfiguration")
    session.prefix = answered[0]
    if len(answered) < len(methods.PREFIXES):
        raise Broken(f"only {answered[0]} answers")


async def _unknown_method(session: Session) -> None:
    method = methods.Method("NoSuchMethod", pb.RefreshTokenRequest, pb.RefreshTokenResponse)
    expect_status(await session.refusal(method, pb.RefreshTokenRequest(), "x"), "UNIMPLEMENTED")


async def _no_token(session: Session) -> None:
    for method in (methods.REGISTER_DEVICE, methods.REFRESH_TOKEN, methods.GET_CONFIGURATION):
        refusal = await session.refusal(method, method.request(), None)
        expect_status(refusal, "UNAUTHENTICATED")


async def _wrong_token(session: Session) -> None:
    request = pb.RegisterDeviceRequest(device_id=session.new_name(), public_key=session.new_key())
    refusal = await session.refusal(methods.REGISTER_DEVICE, request, "no-such-token")
    expect_status(refusal, "UNAUTHENTICATED")
    refusal = await session.refusal(
        methods.GET_CONFIGURATION, pb.GetConfigurationRequest(), "no-such-token"
    )
    expect_status(refusal, "UNAUTHENTICATED")


async def _coded_error(session: Session) -> None:
    refusal = await session.refusal(
        methods.GET_CONFIGURATION, pb.GetConfigurationRequest(), "no-such-token"
    )
    error = refusal.error
    if error is None:
        raise Broken("the failed call has no wantastic-error-bin trailer")
    if methods.GRPC_STATUS.get(error.code) != refusal.status:
        name = pb.ErrorCode.Name(error.code) if error.code in pb.ErrorCode.values() else error.code
        raise Broken(f"the code {name} does not go with the status {refusal.status}")
    if not error.reason:
        raise Broken("the Error has no reason")


# -- registration -----------------------------------------------------------------------


async def _bad_key(session: Session) -> None:
    for key in ("", "short", base64.b64encode(bytes(31)).decode()):
        request = pb.RegisterDeviceRequest(
            device_id=session.new_name(), public_key=key, tenant_id=session.tenant
        )
        refusal = await session.refusal(methods.REGISTER_DEVICE, request, session.token(0))
        expect_status(refusal, "INVALID_ARGUMENT")


async def _wrong_tenant(session: Session) -> None:
    request = pb.RegisterDeviceRequest(
        device_id=session.new_name(),
        public_key=session.new_key(),
        tenant_id="conformance-no-such-tenant",
    )
    refusal = await session.refusal(methods.REGISTER_DEVICE, request, session.token(0))
    expect_status(refusal, "PERMISSION_DENIED")


async def _register(session: Session) -> None:
    device_id, key = session.new_name(), session.new_key()
    reply = await session.register(session.token(0), device_id, key, agent=_agent())
    if not reply.token:
        raise Broken("the answer carries no token")
    _check_key("server_key", reply.server_key)
    _check_endpoint("endpoint", reply.endpoint)
    name = reply.device_id or device_id
    session.devices.append(Device(name, key, reply.token, reply))


async def _register_again(session: Session) -> None:
    device = session.device
    reply = await session.register(session.token(0), device.device_id, device.public_key)
    for name in ("server_key", "endpoint"):
        if getattr(reply, name) != getattr(device.registered, name):
            raise Broken(f"{name} differs the second time")
    if not reply.token:
        raise Broken("the second answer carries no token")
    device.token = reply.token


async def _register_unknown_fields(session: Session) -> None:
    device = session.device
    request = pb.RegisterDeviceRequest(
        device_id=device.device_id, public_key=device.public_key, tenant_id=session.tenant
    )
    await session.call(methods.REGISTER_DEVICE, request, session.token(0), extra=UNKNOWN_FIELD)


async def _stolen_name(session: Session) -> None:
    request = pb.RegisterDeviceRequest(
        device_id=session.device.device_id,
        public_key=session.new_key(),
        tenant_id=session.tenant,
    )
    refusal = await session.refusal(methods.REGISTER_DEVICE, request, session.token(1))
    expect_status(refusal, "ALREADY_EXISTS", "PERMISSION_DENIED")


async def _cloned_key(session: Session) -> None:
    request = pb.RegisterDeviceRequest(
        device_id=session.new_name(),
        public_key=session.device.public_key,
        tenant_id=session.tenant,
    )
    refusal = await session.refusal(methods.REGISTER_DEVICE, request, session.token(1))
    expect_status(refusal, "ALREADY_EXISTS", "PERMISSION_DENIED")


async def _one_off(session: Session) -> None:
    if not session.one_off:
        raise NotOffered("no --one-off-token-file was given")

    let_in: list[tuple[str, str, pb.RegisterDeviceResponse]] = []

    async def redeem() -> str:
        name, key = session.new_name(), session.new_key()
        try:
            reply = await session.register(session.one_off, name, key)
        except StatusError as failure:
            return failure.status
        except Broken:
            return "PERMISSION_DENIED"
        let_in.append((name, key, reply))
        return "OK"

    statuses = await asyncio.gather(*(redeem() for _ in range(REDEMPTIONS)))
    good = statuses.count("OK")
    if good != 1:
        raise Broken(f"{REDEMPTIONS} devices at once redeemed it {good} times instead of once")
    wrong = [s for s in statuses if s not in ("OK", "PERMISSION_DENIED", "UNAUTHENTICATED")]
    if wrong:
        raise Broken(f"the status is {wrong[0]} instead of PERMISSION_DENIED")
    # As if the answer had been lost: the device's own token was never used.
    name, key, first = let_in[0]
    try:
        again = await session.register(session.one_off, name, key)
    except (StatusError, Broken) as failure:
        raise Broken(f"the device that it let in is refused the second time: {failure}") from None
    if (again.server_key, again.endpoint) != (first.server_key, first.endpoint):
        raise Broken("the device that it let in gets another gateway the second time")


# -- configuration ----------------------------------------------------------------------


async def _full(session: Session) -> None:
    reply = await session.get(session.device.token, device_id=session.device.device_id)
    if reply.not_modified:
        raise Broken("not_modified although known_etag was empty")
    if not reply.etag:
        raise Broken("the etag is empty")
    if not reply.version:
        raise Broken("the version is 0")
    if not reply.HasField("configuration"):
        raise Broken("there is no configuration")
    session.configuration = reply


async def _addresses(session: Session) -> None:
    texts = list(session.full.configuration.addresses.addresses)
    if not texts:
        raise Broken("the device gets no address")
    for text in texts:
        try:
            parse_interface(text)
        except ValueError as error:
            raise Broken(f"address {text!r} {error}") from None
    if len(set(texts)) != len(texts):
        raise Broken("an address is listed twice")


async def _peers(session: Session) -> None:
    configuration = session.full.configuration
    if not configuration.HasField("peers"):
        raise NotOffered("peers are not stated; the gateway of RegisterDevice is the only one")
    keys = [peer.public_key for peer in configuration.peers.peers]
    if len(set(keys)) != len(keys):
        raise Broken("a peer is listed twice")
    if session.device.public_key in keys:
        raise Broken("the device itself is among its peers")
    for peer in configuration.peers.peers:
        _check_key("a peer's public_key", peer.public_key)
        if peer.preshared_key:
            _check_key("a peer's preshared_key", peer.preshared_key)
        for text in peer.allowed_ips:
            _check_range("allowed_ips", text)
        for text in peer.endpoints:
            _check_endpoint("endpoints", text)
        if peer.persistent_keepalive_s > 65_535:
            raise Broken(f"persistent_keepalive_s is {peer.persistent_keepalive_s}")


async def _parts(session: Session) -> None:
    configuration = session.full.configuration
    if configuration.mtu and not 576 <= configuration.mtu <= 65_535:
        raise Broken(f"mtu is {configuration.mtu}")
    for text in configuration.routes.ranges:
        _check_range("routes", text)
    for text in configuration.dns.servers:
        _check_host("dns.servers", text)
    for rule in (*configuration.exit_node.allow, *configuration.exit_node.deny):
        _check_range("exit_node", rule.range)
        if rule.first_port > rule.last_port or rule.last_port > 65_535:
            raise Broken(f"exit_node: ports {rule.first_port} to {rule.last_port}")
    for message in configuration.health.messages:
        if not message.code or not message.reason:
            raise Broken("a health message lacks its code or reason")


async def _time(session: Session) -> None:
    if not session.full.server_time_unix_ms:
        raise NotOffered("the server does not state its time")
    if session.full.server_time_unix_ms < YEAR_2025_MS:
        raise Broken("server_time_unix_ms lies in the past; is it in milliseconds?")


async def _stable(session: Session) -> None:
    again = await session.get(session.device.token)
    if again.etag != session.full.etag:
        raise Broken("the etag differs although nothing changed")
    if again.configuration != session.full.configuration:
        raise Broken("the configuration differs under the same etag")


async def _not_modified(session: Session) -> None:
    reply = await session.get(session.device.token, session.full.etag)
    if not reply.not_modified:
        raise Broken("the known etag is answered without not_modified")
    if reply.HasField("configuration"):
        raise Broken("a configuration comes along with not_modified")
    if reply.etag != session.full.etag:
        raise Broken("not_modified comes with another etag")


async def _unknown_etag(session: Session) -> None:
    reply = await session.get(session.device.token, "conformance-no-such-etag")
    if reply.not_modified:
        raise Broken("not_modified for an etag that the server never gave")


async def _wrong_device(session: Session) -> None:
    request = pb.GetConfigurationRequest(device_id=session.new_name())
    refusal = await session.refusal(methods.GET_CONFIGURATION, request, session.device.token)
    expect_status(refusal, "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND")


async def _enrolment_token(session: Session) -> None:
    refusal = await session.refusal(
        methods.GET_CONFIGURATION, pb.GetConfigurationRequest(), session.token(0)
    )
    expect_status(refusal, "UNAUTHENTICATED", "PERMISSION_DENIED")


async def _report(session: Session) -> None:
    reply = await session.get(
        session.device.token,
        session.full.etag,
        applied_version=session.full.version,
        public_key=session.device.public_key,
        agent=_agent(),
    )
    if not reply.not_modified:
        raise Broken("a report changed the configuration")


async def _long_poll(session: Session) -> None:
    began = time.monotonic()
    reply = await session.get(session.device.token, session.full.etag, wait_ms=LONG_POLL_MS)
    took_s = time.monotonic() - began
    if took_s > LONG_POLL_MS / 1000 + LONG_POLL_SLACK_S:
        raise Broken(f"the answer took {took_s:.1f} s of {LONG_POLL_MS / 1000:.0f} s asked for")
    if not reply.not_modified:
        raise Broken("the wait ended without not_modified although nothing changed")


# -- token ------------------------------------------------------------------------------


async def _terms(session: Session) -> None:
    reply = session.device.registered
    terms = reply.token_terms
    if not reply.HasField("token_terms") or not terms.lifetime_s:
        raise NotOffered("the token does not expire")
    if terms.refresh_after_s >= terms.lifetime_s:
        raise Broken(
            f"refresh_after_s {terms.refresh_after_s} is not below lifetime_s {terms.lifetime_s}"
        )


async def _refresh(session: Session) -> None:
    device = session.device
    reply = await session.call(
        methods.REFRESH_TOKEN, pb.RefreshTokenRequest(device_id=device.device_id), device.token
    )
    if not reply.token:
        raise Broken("the answer carries no token")
    await session.get(reply.token, session.full.etag)
    try:
        await session.get(device.token, session.full.etag)
    except StatusError:
        raise Broken("the old token stopped working at once") from None
    device.token = reply.token


async def _refresh_wrong(session: Session) -> None:
    device = session.device
    half = len(device.token) // 2
    flipped = "A" if device.token[half] != "A" else "B"
    forged = device.token[:half] + flipped + device.token[half + 1 :]
    request = pb.RefreshTokenRequest(device_id=device.device_id)
    refusal = await session.refusal(methods.REFRESH_TOKEN, request, forged)
    expect_status(refusal, "UNAUTHENTICATED")


# -- stream -----------------------------------------------------------------------------


async def _first(session: Session, etag: str) -> pb.GetConfigurationResponse:
    request = pb.GetConfigurationRequest(known_etag=etag)
    stream = session.watch(request, session.device.token)
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            return await anext(stream)
    except StopAsyncIteration:
        raise Broken("the stream ended without a message") from None
    except TimeoutError:
        raise Broken(f"no message within {FIRST_MESSAGE_S:.0f} s") from None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def _watch(session: Session) -> None:
    session.require(methods.CAPABILITY_WATCH)
    first = await _first(session, "")
    if first.not_modified or first.configuration != session.full.configuration:
        raise Broken("the first message is not the configuration that GetConfiguration gives")


async def _watch_known(session: Session) -> None:
    first = await _first(session, session.full.etag)
    if not first.not_modified:
        raise Broken("the known etag is answered without not_modified")


async def _heartbeat(session: Session) -> None:
    request = pb.GetConfigurationRequest(known_etag=session.full.etag)
    stream = session.watch(request, session.device.token)
    try:
        await anext(stream)
        async with asyncio.timeout(session.silence_s):
            beat = await anext(stream)
    except StopAsyncIteration:
        raise Broken("the stream ended") from None
    except TimeoutError:
        raise Broken(f"silent for more than {session.silence_s:.0f} s") from None
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    if not beat.not_modified or beat.HasField("configuration"):
        raise Broken("the heartbeat is not not_modified although nothing changed")


# -- certificate and static key ---------------------------------------------------------


async def _certificate(session: Session) -> None:
    session.require(methods.CAPABILITY_CERTIFICATE)
    device = session.device
    key = certificate.generate_key()
    request = certificate.make_request(key, device.device_id)
    reply = await session.call(
        methods.REFRESH_TOKEN,
        pb.RefreshTokenRequest(device_id=device.device_id, certificate_request=request),
        device.token,
    )
    chain = tuple(reply.certificate_chain.certificates)
    if not chain:
        raise Broken("the answer carries no certificate")
    try:
        certificate.check_chain(chain)
        _, ends_at_s = certificate.validity(chain[0])
    except ValueError as error:
        raise Broken(f"the chain cannot be read: {error}") from None
    if _public_point(key) not in chain[0]:
        raise Broken("the certificate is not for the key of the request")
    if ends_at_s < time.time():
        raise Broken("the certificate has expired already")


async def _bad_certificate(session: Session) -> None:
    device = session.device
    good = certificate.make_request(certificate.generate_key(), device.device_id)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    for broken in (b"no DER", forged):
        request = pb.RefreshTokenRequest(device_id=device.device_id, certificate_request=broken)
        refusal = await session.refusal(methods.REFRESH_TOKEN, request, device.token)
        expect_status(refusal, "INVALID_ARGUMENT")


async def _rekey(session: Session) -> None:
    session.require(methods.CAPABILITY_REKEY)
    device = session.device
    new = session.new_key()
    await session.register(
        device.token, device.device_id, new, replaces_public_key=device.public_key
    )
    await session.get(device.token, public_key=new)
    # The old key is free now: only then may the new one be replaced in its turn.
    newer = session.new_key()
    await session.register(device.token, device.device_id, newer, replaces_public_key=new)
    failed = pb.ApplyError(code=pb.APPLY_ERROR_NO_HANDSHAKE, reason="conformance")
    await session.get(device.token, public_key=new, apply_error=failed)
    device.public_key = new


async def _rekey_unasked(session: Session) -> None:
    device = session.device
    request = pb.RegisterDeviceRequest(
        device_id=device.device_id,
        public_key=session.new_key(),
        tenant_id=session.tenant,
        replaces_public_key=session.new_key(),
    )
    refusal = await session.refusal(methods.REGISTER_DEVICE, request, device.token)
    expect_status(
        refusal, "INVALID_ARGUMENT", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"
    )


async def _second_device(session: Session) -> None:
    device_id, key = session.new_name(), session.new_key()
    reply = await session.register(session.token(2), device_id, key, agent=_agent())
    device = Device(reply.device_id or device_id, key, reply.token, reply)
    other = await session.get(device.token)
    mine = set(session.full.configuration.addresses.addresses)
    shared = mine & set(other.configuration.addresses.addresses)
    if shared:
        raise Broken(f"two devices have the address {min(shared)}")
    session.devices.append(device)


def _agent() -> pb.AgentInfo:
    return pb.AgentInfo(
        protocol_version=methods.PROTOCOL_VERSION,
        capabilities=[
            methods.CAPABILITY_WATCH,
            methods.CAPABILITY_LONG_POLL,
            methods.CAPABILITY_CERTIFICATE,
            methods.CAPABILITY_REKEY,
        ],
        version="conformance",
    )


def _check_key(name: str, text: str) -> None:
    try:
        decode_key(text)
    except ValueError as error:
        raise Broken(f"{name} {error}") from None


def _check_endpoint(name: str, text: str) -> None:
    try:
        parse_host_port(text, DEFAULT_TUNNEL_PORT)
    except ValueError as error:
        raise Broken(f"{name}: {text!r} {error}") from None


def _check_range(name: str, text: str) -> None:
    try:
        parse_network(text)
    except ValueError as error:
        raise Broken(f"{name}: {text!r} {error}") from None


def _check_host(name: str, text: str) -> None:
    try:
        parse_host_port(text, 53)
    except ValueError as error:
        raise Broken(f"{name}: {text!r} {error}") from None


def _public_point(key_der: bytes) -> bytes:
    """Return the point of a P-256 key as it stands in certificates."""
    from Crypto.PublicKey import ECC

    return bytes(ECC.import_key(key_der).public_key().export_key(format="raw"))


_NEW = ("register.success",)
_HAS = ("configuration.full",)
RULES: tuple[Rule, ...] = (
    Rule("paths.both", "both /AuthService/ and /grpc.AuthService/ answer", _paths),
    Rule("paths.unknown", "an unknown method is UNIMPLEMENTED", _unknown_method),
    Rule("token.missing", "a call without a token is UNAUTHENTICATED", _no_token),
    Rule("token.wrong", "a call with an unknown token is UNAUTHENTICATED", _wrong_token),
    Rule("error.coded", "a failed call carries an Error that fits its status", _coded_error),
    Rule("register.bad-key", "what is no public key is INVALID_ARGUMENT", _bad_key),
    Rule("register.tenant", "a foreign tenant_id is PERMISSION_DENIED", _wrong_tenant),
    Rule("register.success", "a device registers with an enrolment token", _register),
    Rule("register.again", "registering again gives the same answer", _register_again, _NEW),
    Rule("register.unknown", "unknown fields are ignored", _register_unknown_fields, _NEW),
    Rule("register.name", "another key cannot take a device_id over", _stolen_name, _NEW),
    Rule("register.clone", "another device cannot have the same key", _cloned_key, _NEW),
    Rule("register.one-off", "a one-off token lets in one device, and that again", _one_off, _NEW),
    Rule("token.terms", "the refresh comes before the expiry", _terms, _NEW),
    Rule("configuration.full", "an empty etag is answered with everything", _full, _NEW),
    Rule("configuration.addresses", "the device has addresses", _addresses, _HAS),
    Rule("configuration.peers", "every peer can be read", _peers, _HAS),
    Rule("configuration.parts", "every other part can be read", _parts, _HAS),
    Rule("configuration.time", "the server's time is in milliseconds", _time, _HAS),
    Rule("configuration.stable", "the same etag is the same configuration", _stable, _HAS),
    Rule("configuration.same", "a known etag is answered not_modified", _not_modified, _HAS),
    Rule("configuration.etag", "an unknown etag is answered with everything", _unknown_etag, _HAS),
    Rule("configuration.device", "a token serves its own device only", _wrong_device, _HAS),
    Rule("configuration.token", "an enrolment token gets no configuration", _enrolment_token, _HAS),
    Rule("configuration.report", "a report is taken and changes nothing", _report, _HAS),
    Rule("configuration.wait", "a long poll ends in time", _long_poll, _HAS),
    Rule("refresh.success", "a token is refreshed, the old one stays valid", _refresh, _HAS),
    Rule("refresh.forged", "a forged token is not refreshed", _refresh_wrong, _HAS),
    Rule("watch.first", "the stream's first message comes at once", _watch, _HAS),
    Rule("watch.known", "the stream heeds a known etag", _watch_known, (*_HAS, "watch.first")),
    Rule(
        "watch.heartbeat",
        "the stream is never silent for more than a minute",
        _heartbeat,
        (*_HAS, "watch.first"),
        slow=True,
    ),
    Rule("certificate.issued", "a certificate request is answered", _certificate, _HAS),
    Rule(
        "certificate.bad",
        "a broken certificate request is INVALID_ARGUMENT",
        _bad_certificate,
        ("certificate.issued",),
    ),
    Rule("rekey.both-ways", "a static key is replaced, and rolled back", _rekey, _HAS),
    Rule(
        "rekey.unasked",
        "a key that replaces another than the present one is refused",
        _rekey_unasked,
        ("rekey.both-ways",),
    ),
    Rule("devices.apart", "two devices have no address in common", _second_device, _HAS),
)
