"""Follows the configuration of a registered device: by stream, long poll or poll.

One loop for ever: ask once, then follow in the best way that both sides name. A failure is
told to the session and followed by a wait; a server that does not know the device ends the
loop through `check_forgotten`. Reports of what became of a configuration go out with the
next call, which they bring forward.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from wantastic.config.keys import encode_key
from wantastic.control import auth_pb2 as pb
from wantastic.control import methods, wire
from wantastic.control.backoff import ENROL, RECONNECT, Backoff, Random, spread_s
from wantastic.control.client import AuthClient
from wantastic.control.configuration import Received, merge
from wantastic.control.credentials import Credentials
from wantastic.control.errors import ControlError, RemoteError, TransportError
from wantastic.control.report import ApplyReport

POLL_S: Final = 300.0
MIN_POLL_S: Final = 5.0
MAX_POLL_S: Final = 86400.0
LONG_POLL_S: Final = 240.0
APPLY_CODES: Final = {
    "invalid": pb.APPLY_ERROR_INVALID,
    "no_handshake": pb.APPLY_ERROR_NO_HANDSHAKE,
    "device": pb.APPLY_ERROR_DEVICE,
}


class Log(Protocol):
    """The part of telemetry's log that is used here."""

    def info(self, message: str, **fields: object) -> None: ...


class Session(Protocol):
    """The registered device; the control plane's driver is one."""

    @property
    def credentials(self) -> Credentials: ...
    def agent_info(self) -> pb.AgentInfo: ...
    def learn(self, server: pb.ServerInfo) -> None:
        """Keep what the server can do."""

    def contact(self, server_time_unix_ms: int, at_unix_s: float) -> None:
        """The server answered; `at_unix_s` is when, by our wall clock."""

    def fine(self) -> None: ...
    def trouble(self, error: ControlError) -> None: ...
    def check_forgotten(self, error: ControlError) -> None:
        """Raise when the error means that the server does not know the device."""


class Follower:
    """The configuration of one device."""

    def __init__(
        self,
        client: AuthClient,
        session: Session,
        received: Callable[[Received], None],
        log: Log,
        *,
        capabilities: tuple[str, ...],
        held: Received | None,
        random: Random,
        unix: Callable[[], float],
    ) -> None:
        self._client = client
        self._session = session
        self._received = received
        self._log = log
        self._capabilities = capabilities
        self._random = random
        self._unix = unix
        self.held = held
        """The configuration that was received last."""
        self.mode = ""
        self._report = ApplyReport(applied_version=held.version if held else 0)
        self._wake = asyncio.Event()
        self._no_watch = False
        self._told_agent = False
        self._poll_s = POLL_S

    def report(self, report: ApplyReport) -> None:
        """Tell the server what became of its configuration, soon."""
        if report != self._report:
            self._report = report
            self._wake.set()

    async def run(self) -> None:
        """Follow for ever; raises what `check_forgotten` raises."""
        backoff = Backoff(RECONNECT, self._random)
        while True:
            try:
                if not self._can(methods.CAPABILITY_WATCH):
                    await self._get(0.0)
                    backoff.reset()
                await self._follow_changes(backoff)
                wait = backoff.next_s()
            except ControlError as error:
                self._session.check_forgotten(error)
                self._session.trouble(error)
                wait = backoff.next_s(error.retry_after_s)
            self.mode = "waiting"
            await asyncio.sleep(wait)

    async def _follow_changes(self, backoff: Backoff) -> None:
        """Follow in the best way both sides know; return when a stream ended. ControlError."""
        while True:
            if self._can(methods.CAPABILITY_WATCH):
                self.mode = "stream"
                if await self._watch(backoff):
                    return
                self._no_watch = True
                await self._get(0.0)
            elif self._can(methods.CAPABILITY_LONG_POLL):
                self.mode = "long poll"
                if not await self._get(LONG_POLL_S):
                    # Whatever a server does, not more than one call every few seconds.
                    await self._pause(MIN_POLL_S)
            else:
                self.mode = "poll"
                await self._pause(spread_s(self._poll_s, self._random))
                await self._get(0.0)
            backoff.reset()

    def _can(self, capability: str) -> bool:
        """Return whether both sides can."""
        if capability == methods.CAPABILITY_WATCH and self._no_watch:
            return False
        return (
            capability in self._capabilities
            and capability in self._session.credentials.capabilities
        )

    async def _pause(self, wait: float) -> None:
        """Wait, or until there is something to report."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)

    def _request(self, wait_s: float) -> pb.GetConfigurationRequest:
        report = self._report
        request = pb.GetConfigurationRequest(
            device_id=self._session.credentials.device_id,
            known_etag=self.held.etag if self.held else "",
            wait_ms=round(wait_s * 1000),
            applied_version=report.applied_version,
            public_key=encode_key(report.public_key) if report.public_key else "",
        )
        if not self._told_agent:
            request.agent.CopyFrom(self._session.agent_info())
        if report.code:
            request.apply_error.version = report.failed_version
            request.apply_error.code = APPLY_CODES[report.code]
            request.apply_error.reason = report.reason
        return request

    async def _get(self, wait_s: float) -> bool:
        """Ask once; return whether the server took its time. ControlError."""
        loop = asyncio.get_running_loop()
        began, began_loop = self._unix(), loop.time()
        self._wake.clear()
        base = self.held
        call = asyncio.ensure_future(
            self._client.call(
                methods.GET_CONFIGURATION,
                self._request(wait_s),
                self._session.credentials.token,
                wait_s + 30.0,
            )
        )
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            # A report cuts a long poll short; the next call carries it.
            await asyncio.wait({call, waker}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done() and wait_s:
                return True
            reply = await call
        finally:
            waker.cancel()
            call.cancel()
            await asyncio.gather(call, waker, return_exceptions=True)
        self._told_agent = True
        took = loop.time() - began_loop
        self._take(reply, base, self._unix() if took > 5 else began)
        return took >= MIN_POLL_S

    async def _watch(self, backoff: Backoff) -> bool:
        """Follow a stream to its end; False when the server has none after all."""
        request = self._request(0.0)
        base = self.held
        replies = self._client.watch(
            methods.WATCH_CONFIGURATION, request, self._session.credentials.token
        )
        reporter = asyncio.ensure_future(self._send_reports())
        try:
            while True:
                try:
                    async with asyncio.timeout(methods.WATCHDOG_S):
                        reply = await anext(replies)
                except StopAsyncIteration:
                    return True
                except TimeoutError:
                    await self._client.close()
                    raise TransportError("timeout", "The stream was silent for 120 s") from None
                except RemoteError as error:
                    if error.code == "unimplemented":
                        return False
                    raise
                self._told_agent = True
                base = self._take(reply, base, self._unix())
                backoff.reset()
                if reporter.done():
                    reporter.result()
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
            await replies.aclose()  # type: ignore[attr-defined]

    async def _send_reports(self) -> None:
        """Report by a call of its own whenever there is something to report."""
        backoff = Backoff(ENROL, self._random)
        while True:
            await self._wake.wait()
            try:
                await self._get(0.0)
                backoff.reset()
            except ControlError as error:
                self._session.check_forgotten(error)
                self._wake.set()
                await asyncio.sleep(backoff.next_s(error.retry_after_s))

    def _take(
        self, reply: pb.GetConfigurationResponse, base: Received | None, at: float
    ) -> Received | None:
        """Act on an answer to a request that named `base`; return what is held now."""
        if reply.HasField("error"):
            raise wire.error_of(reply.error)
        self._session.contact(reply.server_time_unix_ms, at)
        if reply.HasField("server"):
            self._session.learn(reply.server)
        if reply.poll_after_s:
            self._poll_s = min(max(float(reply.poll_after_s), MIN_POLL_S), MAX_POLL_S)
        self._session.fine()
        if reply.not_modified:
            if base is None:
                raise RemoteError("bad_message", "Nothing changed, says the server, since nothing")
            return base
        if base is not None and reply.etag and reply.etag == base.etag:
            return base
        stated = wire.statement_of(reply.configuration)
        statement = merge(base.statement, stated) if base and base.etag else stated
        received = Received(reply.etag, reply.version, statement, round(self._unix()))
        if base is None or base.statement != statement or base.version != reply.version:
            self._log.info("configuration received", version=reply.version)
            self.held = received
            self._received(received)
        else:
            self.held = received
        return received
