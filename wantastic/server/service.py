"""AuthService as rules over the database: who is asking, what is answered.

Knows messages and refusals, nothing of gRPC: rpc.py carries both. Everything here runs
in the event loop; what blocks goes to the worker's threads.

A poll that finds nothing new takes the token's MAC, one look into the directory and one
comparison. Reports that devices send along (the version in force, errors, agent facts)
are kept in memory and written together every second: a report that is lost with the
process comes again with the next poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from wantastic.control import auth_pb2 as pb
from wantastic.control import methods
from wantastic.server import configuration, devices, enrolment
from wantastic.server.authority import Authority
from wantastic.server.database import Database
from wantastic.server.directory import Directory, Worker
from wantastic.server.enrolment import Registration
from wantastic.server.keyring import Keyring
from wantastic.server.limits import Limiter
from wantastic.server.records import (
    AgentFacts,
    Device,
    DeviceStatus,
    DirectoryEntry,
    RefusalCode,
    Refused,
)
from wantastic.server.settings import Terms
from wantastic.server.tokens import Claims, TokenSigner, invalid_token, parse_enrolment_token

log = logging.getLogger(__name__)

CAPABILITIES = (
    methods.CAPABILITY_WATCH,
    methods.CAPABILITY_LONG_POLL,
    methods.CAPABILITY_CERTIFICATE,
    methods.CAPABILITY_REKEY,
)
FLUSH_S = 1.0
# How exact `last_seen` is: a write for each poll would cost more than the poll.
SEEN_S = 3600
# How many devices should come back each second after this process let go of them.
WELCOMED_PER_S = 100
MAX_FACT_CHARACTERS = 128


class Caller(NamedTuple):
    """Who sends a call: the bearer token, the address, the certificate's device if any."""

    bearer: str
    remote: str = ""
    certificate_pk: int | None = None

    def __repr__(self) -> str:
        return f"Caller(remote={self.remote!r}, certificate_pk={self.certificate_pk})"


class Service:
    """The four methods."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        worker: Worker,
        keyring: Keyring,
        signer: Authority,
        terms: Terms,
        version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._directory = directory
        self._worker = worker
        self._keyring = keyring
        self._authority = signer
        self._tokens = TokenSigner(keyring)
        self._terms = terms
        self._clock = clock
        self._failures = Limiter(burst=20, per_s=0.5)
        self._reports: dict[int, dict[str, Any]] = {}
        self._draining = asyncio.Event()
        self._drain_spread_s = 2.0
        # Waits until a gateway of this process knows a device; there may be none.
        self.tell_gateway: Callable[[int], Awaitable[None]] | None = None
        self._builder = configuration.Builder(keyring)
        self._info = pb.ServerInfo(
            protocol_version=methods.PROTOCOL_VERSION, capabilities=CAPABILITIES, version=version
        )

    # -- the methods --

    async def register(
        self, request: pb.RegisterDeviceRequest, caller: Caller
    ) -> pb.RegisterDeviceResponse:
        """RegisterDevice: with an enrolment token, or with the device's own."""
        now_s = self._clock()
        self._failures.check(caller.remote, now_s)
        wanted = Registration(
            device_id=request.device_id,
            public_key=request.public_key,
            tenant=request.tenant_id,
            replaces_public_key=request.replaces_public_key,
            agent=_facts(request.agent),
        )
        try:
            device = await self._register(wanted, caller)
        except Refused as refused:
            if refused.code is RefusalCode.TOKEN_INVALID:
                # Many guesses at once get no further than one after the other.
                self._failures.reserve(caller.remote, now_s)
            raise
        log.info(
            "device registered",
            extra={
                "tenant": device.tenant_id,
                "device": device.device_id,
                "status": device.status.value,
                "remote": caller.remote,
            },
        )
        if device.status is DeviceStatus.PENDING:
            raise self._pending()
        if self.tell_gateway is not None:
            await self.tell_gateway(device.pk)
        gateways = (
            self._directory.common.gateways or (await self._directory.refresh_common()).gateways
        )
        if not gateways:
            raise Refused(
                RefusalCode.UNAVAILABLE,
                "the server has no gateway yet",
                remedy="the operator of the server starts one with --gateway or `gateway set`",
                retry_after_s=self._terms.pending_retry_s,
            )
        return pb.RegisterDeviceResponse(
            success=True,
            token=self._issue(device.pk, device.generation),
            server_key=gateways[0].public_key,
            endpoint=gateways[0].endpoint,
            token_terms=self._token_terms(),
            certificate_chain=self._certificates(request.certificate_request, device),
            device_id=device.device_id,
            tenant_id=device.tenant_id,
            server=self._info,
            server_time_unix_ms=self._now_ms(),
        )

    async def refresh(
        self, request: pb.RefreshTokenRequest, caller: Caller
    ) -> pb.RefreshTokenResponse:
        """RefreshToken; the old token stays valid until it expires by itself."""
        claims, entry = await self._authenticate(
            caller, request.device_id, grace_s=self._terms.refresh_grace_s
        )
        chain = None
        if request.certificate_request:
            device = await self._worker.run(lambda: self._device(claims.device_pk))
            chain = self._certificates(request.certificate_request, device)
        # Also without news: that it was seen is kept.
        report = self._reports.setdefault(entry.pk, {})
        if request.HasField("agent"):
            report["agent"] = _facts(request.agent)
        self._close_enrolment(entry)
        return pb.RefreshTokenResponse(
            token=self._issue(entry.pk, entry.generation),
            token_terms=self._token_terms(),
            certificate_chain=chain,
            server=self._info,
            server_time_unix_ms=self._now_ms(),
        )

    async def get_configuration(self, request: pb.GetConfigurationRequest, caller: Caller) -> bytes:
        """GetConfiguration, serialized."""
        claims, entry = await self._authenticate(caller, request.device_id)
        if request.applied_version or request.public_key or request.HasField("apply_error"):
            entry = await self._heed(request, entry)
        if request.HasField("agent"):
            self._reports.setdefault(entry.pk, {})["agent"] = _facts(request.agent)
        if entry.enrolment_open:
            self._close_enrolment(entry)
        etag, known = self._etag(entry), request.known_etag
        if known == etag:
            if request.wait_ms and not self._draining.is_set():
                wait_s = min(request.wait_ms / 1000, self._terms.long_poll_limit_s)
                await self._directory.wait(entry, self._directory.tenant_revision(entry), wait_s)
                entry = await self._still_welcome(claims)
                etag = self._etag(entry)
            if known == etag:
                return self._not_modified(entry, etag)
        reply = self._configuration(entry)
        if not known or request.HasField("agent"):
            reply.server.CopyFrom(self._info)
        return reply.SerializeToString()

    async def watch(
        self, request: pb.GetConfigurationRequest, caller: Caller
    ) -> AsyncIterator[bytes]:
        """WatchConfiguration: every new configuration, and a sign of life between them.

        The stream ends well when the token it began with expires, so that the agent comes
        back with the one it has by then."""
        claims, entry = await self._authenticate(caller, request.device_id)
        self._close_enrolment(entry)
        known = request.known_etag
        spoke_at_s, first = 0.0, True
        while not self._draining.is_set():
            tenant_revision, now_s = self._directory.tenant_revision(entry), self._clock()
            if now_s >= claims.expires_at:
                return
            etag = self._etag(entry)
            if known != etag:
                reply = self._configuration(entry)
                if first:
                    reply.server.CopyFrom(self._info)
                known = etag
                yield reply.SerializeToString()
                spoke_at_s = now_s
            elif first or now_s - spoke_at_s >= self._terms.heartbeat_s / 2:
                yield self._not_modified(entry, etag)
                spoke_at_s = now_s
            first = False
            # Spread, so that a fleet that connected together does not answer together.
            heartbeat_s = self._terms.heartbeat_s * random.uniform(0.7, 1.0)
            left_s = max(0.0, claims.expires_at - now_s)
            await self._directory.wait(entry, tenant_revision, min(heartbeat_s, left_s))
            entry = await self._still_welcome(claims)
        raise self._drain_refusal()

    # -- life --

    async def run(self) -> None:
        """Write reports and end stale rotations until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(FLUSH_S)
            with contextlib.suppress(Refused):
                await self.flush()
                if rounds % 600 == 0:
                    await self._worker.run(self._drop_stale)
            rounds += 1

    async def flush(self) -> None:
        """Write what devices reported."""
        reports, self._reports = self._reports, {}
        if not reports:
            return
        try:
            await self._worker.run(lambda: self._write_reports(reports))
        except Refused:
            self._reports = {**reports, **self._reports}
            raise

    def drain(self) -> None:
        """Let go of streams and long polls; new ones are not held."""
        # The more are let go at once, the wider they are spread.
        self._drain_spread_s = max(2.0, self._directory.waiters / WELCOMED_PER_S)
        self._draining.set()
        self._directory.release_waiters()

    # -- parts --

    async def _register(self, wanted: Registration, caller: Caller) -> Device:
        plain = parse_enrolment_token(caller.bearer)
        if plain is None:
            claims, _ = await self._authenticate(
                caller, wanted.device_id, grace_s=self._terms.refresh_grace_s, pending=True
            )

        def work() -> Device:
            if plain is not None:
                # A guess must not wait among, or hold up, those who write.
                with self._database.read() as transaction:
                    enrolment.find_token(transaction, plain)
            with self._database.write() as transaction:
                if plain is not None:
                    return enrolment.register_with_token(transaction, plain, wanted)
                # What the directory says may be a moment old: a token that was revoked
                # meanwhile must not bring in a key that stays.
                present = devices.by_pk(transaction, claims.device_pk)
                if present is None:
                    raise invalid_token()
                self._check_generation(claims, present.generation)
                return enrolment.register_with_device(transaction, present, wanted)

        device = await self._worker.run(work)
        self._directory.forget(device.pk)
        return device

    async def _authenticate(
        self, caller: Caller, device_id: str, *, grace_s: int = 0, pending: bool = False
    ) -> tuple[Claims, DirectoryEntry]:
        claims = self._tokens.verify(caller.bearer, int(self._clock()), grace_s)
        entry = self._directory.cached(claims.device_pk)
        if entry is None:
            entry = await self._directory.entry(claims.device_pk)
        self._check_generation(claims, entry.generation)
        if device_id and device_id != entry.device_id:
            raise Refused(
                RefusalCode.INVALID_REQUEST,
                "the token belongs to another device",
                field="device_id",
            )
        if caller.certificate_pk not in (None, entry.pk):
            raise Refused(
                RefusalCode.CERTIFICATE_REQUIRED,
                "the client certificate belongs to another device",
                remedy="present the certificate that came with this token",
            )
        if entry.status is DeviceStatus.PENDING and not pending:
            raise self._pending()
        self._see(entry)
        return claims, entry

    def _see(self, entry: DirectoryEntry) -> None:
        """Keep, now and then, that a device is there."""
        now_s = int(self._clock())
        if now_s - entry.seen_at >= SEEN_S:
            self._reports.setdefault(entry.pk, {})
            self._directory.note(entry.pk, seen_at=now_s)

    @staticmethod
    def _check_generation(claims: Claims, generation: int) -> None:
        if claims.generation != generation:
            raise Refused(
                RefusalCode.TOKEN_REVOKED,
                "the device's token was revoked",
                remedy="ask the operator of the server for an enrolment token",
            )

    async def _still_welcome(self, claims: Claims) -> DirectoryEntry:
        entry = await self._directory.entry(claims.device_pk)
        self._check_generation(claims, entry.generation)
        self._see(entry)
        return entry

    async def _heed(
        self, request: pb.GetConfigurationRequest, entry: DirectoryEntry
    ) -> DirectoryEntry:
        """Take in what a device reports along with its question."""
        report: dict[str, Any] = {}
        if request.applied_version and request.applied_version != entry.applied_version:
            report["applied_version"] = min(request.applied_version, (1 << 63) - 1)
        error = ""
        if request.HasField("apply_error"):
            code = pb.ApplyErrorCode.Name(request.apply_error.code)
            error = f"{request.apply_error.version} {code}: {request.apply_error.reason}"
            error = error[: devices.MAX_APPLY_ERROR_CHARACTERS]
        if error != entry.apply_error:
            report["apply_error"] = error
            if error:
                log.warning(
                    "configuration not applied",
                    extra={
                        "tenant": entry.tenant_id,
                        "device": entry.device_id,
                        "error": error,
                    },
                )
        if report:
            self._reports.setdefault(entry.pk, {}).update(report)
            self._directory.note(entry.pk, **report)
        failed = request.apply_error.code == pb.APPLY_ERROR_NO_HANDSHAKE
        if request.public_key and (failed or request.public_key != entry.public_key):
            # A rotation, perhaps one that another process has just begun.
            self._directory.forget(entry.pk)
            entry = await self._directory.entry(entry.pk)
            if entry.rotating:
                await self._end_rotation(request, entry)
                entry = await self._directory.entry(entry.pk)
        return entry

    async def _end_rotation(
        self, request: pb.GetConfigurationRequest, entry: DirectoryEntry
    ) -> None:
        failed = request.apply_error.code == pb.APPLY_ERROR_NO_HANDSHAKE

        def work() -> bool:
            with self._database.write() as transaction:
                if request.public_key != entry.public_key:
                    return devices.promote_key(transaction, entry.pk, request.public_key)
                return failed and devices.drop_offered_key(transaction, entry.pk)

        if request.public_key != entry.public_key or failed:
            ended = await self._worker.run(work)
            self._directory.forget(entry.pk)
            log.info(
                "key rotation ended" if ended else "key rotation goes on",
                extra={"device": entry.device_id, "failed": failed},
            )

    def _close_enrolment(self, entry: DirectoryEntry) -> None:
        if entry.enrolment_open:
            self._reports.setdefault(entry.pk, {})["enrolment_open"] = False
            self._directory.note(entry.pk, enrolment_open=False)

    def _configuration(self, entry: DirectoryEntry) -> pb.GetConfigurationResponse:
        return pb.GetConfigurationResponse(
            etag=self._etag(entry),
            version=self._version(entry),
            configuration=self._builder.build(self._directory.common, entry),
            poll_after_s=self._terms.poll_after_s,
            server_time_unix_ms=self._now_ms(),
        )

    def _not_modified(self, entry: DirectoryEntry, etag: str) -> bytes:
        """The answer that most polls get."""
        return pb.GetConfigurationResponse(
            not_modified=True,
            etag=etag,
            version=self._version(entry),
            poll_after_s=self._terms.poll_after_s,
            server_time_unix_ms=self._now_ms(),
        ).SerializeToString()

    def _version(self, entry: DirectoryEntry) -> int:
        tenant_revision = self._directory.tenant_revision(entry)
        return configuration.version_of(entry.revision, tenant_revision)

    def _etag(self, entry: DirectoryEntry) -> str:
        epoch, tenant_revision = (
            self._directory.common.epoch,
            self._directory.tenant_revision(entry),
        )
        return f"{epoch}-{entry.revision}-{tenant_revision}"

    def _issue(self, pk: int, generation: int) -> str:
        return self._tokens.issue(pk, generation, int(self._clock()), self._terms.token_lifetime_s)

    def _token_terms(self) -> pb.TokenTerms:
        lifetime_s = self._terms.token_lifetime_s
        return pb.TokenTerms(lifetime_s=lifetime_s, refresh_after_s=lifetime_s * 2 // 3)

    def _certificates(self, request_der: bytes, device: Device) -> pb.CertificateChain | None:
        if not request_der:
            return None
        chain = self._authority.sign_device(request_der, device, int(self._clock()))
        return pb.CertificateChain(certificates=chain)

    def _device(self, pk: int) -> Device:
        with self._database.read() as transaction:
            device = devices.by_pk(transaction, pk)
        if device is None:
            raise Refused(RefusalCode.DEVICE_REMOVED, "the device was removed by an operator")
        return device

    def _write_reports(self, reports: dict[int, dict[str, Any]]) -> None:
        with self._database.write() as transaction:
            for pk, report in reports.items():
                devices.report(transaction, pk, **report)

    def _drop_stale(self) -> int:
        with self._database.write() as transaction:
            return devices.drop_stale_rotations(transaction)

    def _pending(self) -> Refused:
        return Refused(
            RefusalCode.DEVICE_PENDING,
            "the device waits for an operator's approval",
            remedy="the operator of the server runs: wantastic-server device approve",
            retry_after_s=self._terms.pending_retry_s,
        )

    def _drain_refusal(self) -> Refused:
        return Refused(
            RefusalCode.UNAVAILABLE,
            "the server is shutting down",
            retry_after_s=random.uniform(0.5, self._drain_spread_s),
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _facts(agent: pb.AgentInfo) -> AgentFacts:
    def cut(text: str) -> str:
        return "".join(c for c in text[:MAX_FACT_CHARACTERS] if c.isprintable())

    return AgentFacts(
        version=cut(agent.version),
        os=cut(agent.os),
        arch=cut(agent.arch),
        model=cut(agent.model),
        hostname=cut(agent.hostname),
        capabilities=tuple(cut(c) for c in agent.capabilities[:32]),
    )
