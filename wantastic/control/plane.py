"""The control plane's driver: enrols, refreshes, follows the configuration, for ever.

Theory of operation
  enrol     until a RegisterDevice succeeds: with the operator's token, or the one from
            signing in (-auth-url), or the stored one when the server forgot us
  serve     two loops side by side until the server says that it does not know us:
    refresh   sleeps until the token is due, refreshes it, stores it, along with the
              client certificate when that is due
    follow    the configuration, by what both sides can: follow.py

  Nothing here ends by itself and nothing here touches the tunnel: each failure becomes
  Listener.trouble() and a wait (backoff.py), each success Listener.fine(). What a new
  configuration means for the device is decided by whoever listens.

  Time is the loop's clock (and `unix`, the wall clock, for what must outlive a restart),
  so a test runs days in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from wantastic.config.keys import encode_key
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods, token, wire
from wantastic.control.backoff import ENROL, OPERATOR, RECONNECT, Backoff, Random
from wantastic.control.certificate import (
    Certificate,
    check_chain,
    generate_key,
    is_over,
    make_request,
    renewal_is_due,
)
from wantastic.control.client import AuthClient
from wantastic.control.configuration import Received, Registration
from wantastic.control.credentials import Credentials, Record, fingerprint
from wantastic.control.enrol import MAX_TOKEN_BYTES
from wantastic.control.errors import (
    FORGOTTEN,
    NEEDS_OPERATOR,
    ControlError,
    LocalError,
    RemoteError,
)
from wantastic.control.follow import Follower
from wantastic.control.report import ApplyReport

START_SPREAD_S: Final = 5.0
"""Devices that booted together after a power cut call at different times."""
CLOCK_TOLERANCE_S: Final = 300.0


class Log(Protocol):
    """The part of telemetry's log that is used here."""

    def debug(self, message: str, **fields: object) -> None: ...
    def info(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...


class Listener(Protocol):
    """Who is told. Called in the loop's thread; must return at once."""

    def registering(self) -> None: ...
    def registered(self, registration: Registration) -> None: ...
    def configuration(self, received: Received) -> None: ...
    def forgotten(self, error: ControlError) -> None: ...
    def trouble(self, error: ControlError) -> None: ...
    def fine(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What the agent says about itself."""

    version: str = ""
    os: str = ""
    arch: str = ""
    model: str = ""
    hostname: str = ""
    capabilities: tuple[str, ...] = (
        methods.CAPABILITY_WATCH,
        methods.CAPABILITY_LONG_POLL,
        methods.CAPABILITY_CERTIFICATE,
        methods.CAPABILITY_REKEY,
    )


@dataclass(frozen=True, slots=True)
class Options:
    """How to behave towards one control server."""

    server: str
    device_id: str = ""
    tenant_id: str = ""
    enrolment_token: str = field(default="", repr=False)
    refresh_time_s: float = 86400.0
    certificate: bool = True
    facts: Facts = Facts()
    clock_floor_unix_s: float = 0.0
    """The wall clock cannot be before this: build time, saved floor."""


class _Forgotten(Exception):
    """The server does not know the device any more."""

    def __init__(self, error: ControlError) -> None:
        super().__init__(str(error))
        self.error = error


SignIn = Callable[[], Awaitable[str]]


class ControlPlane:
    """One device's life with one control server."""

    def __init__(
        self,
        options: Options,
        client: AuthClient,
        record: Record,
        listener: Listener,
        log: Log,
        *,
        public_key: Callable[[], bytes],
        held: Received | None = None,
        sign_in: SignIn | None = None,
        random: Random,
        unix: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._options = options
        self._client = client
        self._record = record
        self._listener = listener
        self._log = log
        self._public_key = public_key
        self._sign_in = sign_in
        self._random = random
        self._unix = unix
        self._entropy = entropy
        self._refresh_now = asyncio.Event()
        self._new_token = asyncio.Event()
        self._fresh_token = False
        self._enrolment_token = options.enrolment_token
        self.phase = "starting"
        self.last_contact_unix_s = 0.0
        self.clock_offset_s: float | None = None
        self.last_error: ControlError | None = None
        self.credentials = self._load()
        self._follower = Follower(
            client,
            self,
            listener.configuration,
            log,
            capabilities=options.facts.capabilities,
            held=held,
            random=random,
            unix=unix,
        )

    # -- What others ask for ----------------------------------------------------------

    @property
    def is_registered(self) -> bool:
        return bool(self.credentials.token)

    def use_token(self, enrolment_token: str) -> None:
        """The operator gave another enrolment token."""
        if enrolment_token and enrolment_token != self._enrolment_token:
            self._enrolment_token = enrolment_token
            self._new_token.set()

    def report(self, report: ApplyReport) -> None:
        """Tell the server what became of its configuration, soon."""
        self._follower.report(report)

    async def register_key(self, current: bytes, coming: bytes) -> None:
        """Announce a new public key that is to replace the current one. ControlError."""
        request = self._registration(coming)
        request.replaces_public_key = encode_key(current)
        self._take_registration(await self._register(request, self.credentials.token))

    def clock_is_wrong(self) -> bool:
        """Return whether the wall clock is known to be wrong."""
        if self._unix() < self._options.clock_floor_unix_s:
            return True
        offset = self.clock_offset_s
        return offset is not None and abs(offset) > CLOCK_TOLERANCE_S

    def status(self) -> dict[str, Any]:
        """Return what `-status` shows; no secrets."""
        now = self._unix()
        credentials, held = self.credentials, self._follower.held
        left = token.expires_in_s(credentials.terms, credentials.saved_unix_s, now)
        return {
            "server": self._options.server,
            "address": str(self._client.address or "") or None,
            "phase": self.phase,
            "mode": self._follower.mode or None,
            "device_id": credentials.device_id or None,
            "tenant_id": credentials.tenant_id or None,
            "last_contact_unix_s": round(self.last_contact_unix_s) or None,
            "token_expires_in_s": None if left is None else round(left),
            "certificate": bool(credentials.certificate and credentials.certificate.chain),
            "clock_offset_s": self.clock_offset_s,
            "configuration_version": held.version if held else None,
            "error": self.last_error.code if self.last_error else None,
        }

    def identity(self) -> tuple[bytes, bytes]:
        """Return the client certificate's chain and key, PEM; empty when there is none."""
        certificate = self.credentials.certificate
        if certificate is None or is_over(certificate.chain, self._unix()):
            return b"", b""
        return certificate.chain_pem, certificate.key_pem

    # -- The run ----------------------------------------------------------------------

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            if self._must_enrol():
                await self._enrol()
            else:
                self._listener.registered(self.credentials.registration)
                await asyncio.sleep(START_SPREAD_S * self._random())
            while True:
                error = await self._serve()
                if error is not None:
                    self._log.warning("the server does not know this device", code=error.code)
                    self._listener.forgotten(error)
                await self._enrol()
        finally:
            self.phase = "stopped"
            with contextlib.suppress(Exception):
                await self._client.close()

    def _must_enrol(self) -> bool:
        given = fingerprint(self._enrolment_token)
        return not self.is_registered or bool(given and given != self.credentials.enrolled_with)

    async def _serve(self) -> ControlError | None:
        """Refresh and follow until the server forgets us, and return its answer; None when
        the operator gave another token."""
        self.phase = "registered"
        tasks = [
            asyncio.ensure_future(self._refresh()),
            asyncio.ensure_future(self._follower.run()),
        ]
        newer = asyncio.ensure_future(self._new_token.wait())
        try:
            done, _ = await asyncio.wait({*tasks, newer}, return_when=asyncio.FIRST_COMPLETED)
            if newer in done:
                return None
            for task in done:
                task.result()
            raise AssertionError("a loop of the control plane ended")
        except _Forgotten as forgotten:
            return forgotten.error
        finally:
            for waiting in (*tasks, newer):
                waiting.cancel()
            await asyncio.gather(*tasks, newer, return_exceptions=True)

    # -- Enrolment --------------------------------------------------------------------

    async def _enrol(self) -> None:
        """Return once the device is registered."""
        self.phase = "registering"
        self._listener.registering()
        eager, seldom = Backoff(ENROL, self._random), Backoff(OPERATOR, self._random)
        while True:
            self._new_token.clear()
            try:
                await self._enrol_once()
                return
            except ControlError as error:
                self.trouble(error)
                pace = seldom if error.code in NEEDS_OPERATOR else eager
                wait = pace.next_s(error.retry_after_s)
            self._log.debug("the next attempt to register follows", wait_s=round(wait, 1))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._new_token.wait(), wait)

    async def _enrol_once(self) -> None:
        """Try every credential there is. ControlError of the most telling failure."""
        failure: ControlError | None = None
        for candidate in self._candidates():
            try:
                reply = await self._register(self._registration(self._public_key()), candidate)
            except RemoteError as error:
                if error.code not in NEEDS_OPERATOR | FORGOTTEN:
                    raise
                # What the operator gave says more than what an old token was answered.
                failure = failure or error
                continue
            self._enrolled(reply, candidate)
            return
        if self._sign_in is not None:
            enrolment = await self._sign_in()
            reply = await self._register(self._registration(self._public_key()), enrolment)
            self._enrolled(reply, enrolment)
            return
        raise failure or LocalError("no_token", "There is no token to register with")

    def _candidates(self) -> list[str]:
        """Return the tokens to try: a new one from the operator, the stored one, the old one."""
        found = [self.credentials.token, self._enrolment_token]
        if fingerprint(self._enrolment_token) != self.credentials.enrolled_with:
            found.reverse()
        return list(dict.fromkeys(t for t in found if t))

    def _registration(self, public_key: bytes) -> pb.RegisterDeviceRequest:
        return pb.RegisterDeviceRequest(
            device_id=self.credentials.device_id,
            public_key=encode_key(public_key),
            tenant_id=self._options.tenant_id,
            agent=self.agent_info(),
        )

    async def _register(
        self, request: pb.RegisterDeviceRequest, bearer: str
    ) -> pb.RegisterDeviceResponse:
        self._save(self.credentials)  # the device_id must outlive a lost answer
        request.certificate_request = self._certificate_request()
        began = self._unix()
        reply = await self._client.call(methods.REGISTER_DEVICE, request, bearer)
        if not reply.success or reply.HasField("error"):
            raise wire.error_of(reply.error, "token_invalid")
        self.contact(reply.server_time_unix_ms, began)
        return reply

    def _enrolled(self, reply: pb.RegisterDeviceResponse, candidate: str) -> None:
        if not reply.token and not self.credentials.token:
            raise RemoteError("bad_message", "The server registered the device without a token")
        enrolled_with = self.credentials.enrolled_with
        if candidate != self.credentials.token:
            enrolled_with = fingerprint(self._enrolment_token or candidate)
        self.credentials = replace(self.credentials, enrolled_with=enrolled_with)
        self._take_registration(reply)
        self._log.info("registered with the control server", device_id=self.credentials.device_id)
        self.fine()
        self._listener.registered(self.credentials.registration)

    def _take_registration(self, reply: pb.RegisterDeviceResponse) -> None:
        credentials = replace(
            self.credentials,
            device_id=reply.device_id or self.credentials.device_id,
            tenant_id=reply.tenant_id or self.credentials.tenant_id,
            registration=Registration(
                reply.server_key or self.credentials.registration.server_key,
                reply.endpoint or self.credentials.registration.endpoint,
            ),
        )
        if reply.token:
            credentials = self._with_token(credentials, reply.token, reply.token_terms)
        had = bool(credentials.certificate and credentials.certificate.chain)
        credentials = self._with_chain(credentials, reply.certificate_chain)
        self._save(self._with_server(credentials, reply.server))
        if not had and credentials.certificate and credentials.certificate.chain:
            # From now on the server may ask for the certificate.
            self._spawn_close()

    def _spawn_close(self) -> None:
        task = asyncio.ensure_future(self._client.close())
        self._closing = task

    # -- Token and certificate --------------------------------------------------------

    async def _refresh(self) -> None:
        backoff = Backoff(RECONNECT, self._random)
        while True:
            wait = token.refresh_in_s(
                self.credentials.terms,
                self._options.refresh_time_s,
                self._random,
                saved_unix_s=0.0 if self._fresh_token else self.credentials.saved_unix_s,
                now_unix_s=self._unix(),
            )
            self._fresh_token = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refresh_now.wait(), wait)
            self._refresh_now.clear()
            while True:
                try:
                    await self._refresh_once()
                    backoff.reset()
                    break
                except ControlError as error:
                    if error.code == "unimplemented":
                        self._log.info("the control server does not refresh tokens")
                        self._fresh_token = True
                        break
                    self.check_forgotten(error)
                    self.trouble(error)
                    await asyncio.sleep(backoff.next_s(error.retry_after_s))

    async def _refresh_once(self) -> None:
        began = self._unix()
        request = pb.RefreshTokenRequest(
            device_id=self.credentials.device_id,
            certificate_request=self._certificate_request(),
        )
        reply = await self._client.call(methods.REFRESH_TOKEN, request, self.credentials.token)
        if reply.HasField("error"):
            raise wire.error_of(reply.error)
        if not reply.token:
            raise RemoteError("bad_message", "The server refreshed the token without giving one")
        self.contact(reply.server_time_unix_ms, began)
        credentials = self._with_token(self.credentials, reply.token, reply.token_terms)
        credentials = self._with_chain(credentials, reply.certificate_chain)
        self._save(self._with_server(credentials, reply.server))
        self._log.info("token refreshed", lifetime_s=credentials.terms.lifetime_s)
        self.fine()

    def _certificate_request(self) -> bytes:
        """Return a PKCS#10 request when a certificate is wanted and due, else nothing."""
        certificate = self.credentials.certificate
        if not self._options.certificate:
            return b""
        if certificate and not renewal_is_due(certificate.chain, self._unix()):
            return b""
        if certificate is None:
            certificate = Certificate(generate_key(self._entropy))
            self._save(replace(self.credentials, certificate=certificate))
        name = self.credentials.device_id
        return make_request(certificate.key_der, name)

    def _with_token(self, credentials: Credentials, text: str, terms: pb.TokenTerms) -> Credentials:
        if len(text) > MAX_TOKEN_BYTES or not (text.isascii() and text.isprintable()):
            raise RemoteError("bad_message", "The server's token cannot be sent in a header")
        self._fresh_token = True
        return replace(
            credentials,
            token=text,
            terms=token.Terms(terms.lifetime_s, terms.refresh_after_s),
            saved_unix_s=float(round(self._unix())),
        )

    def _with_chain(self, credentials: Credentials, chain: pb.CertificateChain) -> Credentials:
        found = tuple(chain.certificates)
        if not found or credentials.certificate is None:
            return credentials
        try:
            check_chain(found)
        except ValueError as error:
            self._log.warning("the server's certificate chain is not usable", problem=str(error))
            return credentials
        self._client.without_certificate = False
        certificate = Certificate(credentials.certificate.key_der, found)
        return replace(credentials, certificate=certificate)

    def learn(self, server: pb.ServerInfo) -> None:
        """Keep what the server can do."""
        self._save(self._with_server(self.credentials, server))

    def _with_server(self, credentials: Credentials, server: pb.ServerInfo) -> Credentials:
        if not server.protocol_version and not server.capabilities:
            return credentials
        return replace(credentials, capabilities=tuple(sorted(set(server.capabilities))[:32]))

    # -- Odds and ends ----------------------------------------------------------------

    def agent_info(self) -> pb.AgentInfo:
        facts = self._options.facts
        return pb.AgentInfo(
            protocol_version=methods.PROTOCOL_VERSION,
            capabilities=facts.capabilities,
            version=facts.version,
            os=facts.os,
            arch=facts.arch,
            model=facts.model,
            hostname=facts.hostname,
        )

    def _load(self) -> Credentials:
        data = self._record.read()
        found = Credentials.parse(data) if data else None
        if data and found is None:
            self._log.warning("the stored credentials cannot be read; enrolling anew")
        if found is None or found.server != self._options.server:
            found = Credentials(server=self._options.server)
        wanted = self._options.device_id
        if wanted and found.device_id != wanted:
            # Another name is another device to the server.
            found = Credentials(server=self._options.server, device_id=wanted)
        if not found.device_id:
            found = replace(found, device_id="d-" + self._entropy(10).hex())
        return found

    def _save(self, credentials: Credentials) -> None:
        """Keep credentials, on flash if that works; a full disk must not stop the agent."""
        self.credentials = credentials
        try:
            self._record.write(credentials.render())
        except Exception as error:
            self._log.warning("the credentials cannot be saved", problem=type(error).__name__)

    def check_forgotten(self, error: ControlError) -> None:
        if isinstance(error, RemoteError) and error.code in FORGOTTEN:
            raise _Forgotten(error)

    def contact(self, server_time_unix_ms: int, at: float) -> None:
        self.last_contact_unix_s = self._unix()
        if server_time_unix_ms > 0:
            self.clock_offset_s = round(server_time_unix_ms / 1000 - at, 1)

    def trouble(self, error: ControlError) -> None:
        """Something failed and will be tried again; the listener makes the noise."""
        self.last_error = error
        self._log.debug(error.reason, code=error.code)
        self._listener.trouble(error)

    def fine(self) -> None:
        self.last_error = None
        self._listener.fine()
