"""Joins the control plane and the tunnel: what is received becomes what runs, safely.

Theory of operation
  start(cached)           the tunnel runs from the file and the cache, before any server
  configuration(received) overlay on the file; apply; on trial when it could cut the tunnel
  handshake(peer)         proves a configuration on trial, and a new static key
  tick()                  ends trials, expires peers, starts rotations that are due

  Nothing here waits or does I/O by itself: the tunnel, the records on flash, the
  control plane and the clocks are handed in, so that tests run it in virtual time.

States and who decides them
  lifecycle.State   by lifecycle.step() alone, through _event()
  trial.Trial       which configuration is proved; only that one is on flash
  rotation.Rotation which static key is in force; both are on flash until one is proved
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from wantastic.agent.lifecycle import EXPLAINED, HAS_TUNNEL, Action, Event, State, step
from wantastic.config.diff import diff, tunnel_of
from wantastic.config.keys import generate_private_key, public_key_of
from wantastic.config.model import Config
from wantastic.control.configuration import (
    NOT_REGISTERED,
    Effective,
    Received,
    Registration,
    StatementError,
    clean,
    overlay,
)
from wantastic.control.errors import NEEDS_OPERATOR, ControlError, TransportError
from wantastic.control.report import ApplyReport
from wantastic.control.rotation import (
    Journal,
    Register,
    Report,
    Rotation,
    RotationState,
    Save,
    Step,
    Use,
)
from wantastic.control.trial import Keep, Revert, Trial

ALIVE_S: Final = 180.0
"""A session that is older has run out (REJECT_AFTER_TIME)."""
ROTATION_RETRY_S: Final = 3600.0
ROTATION_RETRY_MAX_S: Final = 86400.0
"""A rotation that fails costs the tunnel a minute or two, so it is tried ever more seldom."""
NUDGE_S: Final = 5.0
"""How often a handshake is asked for while one is needed (REKEY_TIMEOUT)."""
ENDPOINT_S: Final = 20.0
"""How long one endpoint of a peer that has several is given to answer."""
CLOCK_TOLERANCE_S: Final = 300.0


class Tunnel(Protocol):
    """What the conductor needs of the device."""

    def apply(self, config: Config, private_key: bytes) -> int:
        """Make the tunnel be as wanted; return the number of changes."""

    def handshake_age_s(self) -> float | None:
        """Return how long ago the last handshake of any peer was; None: never."""

    def initiate_handshakes(self) -> bool:
        """Start a handshake with each peer that can be dialled; False when none can."""


class Server(Protocol):
    """What the conductor needs of the control plane."""

    def report(self, report: ApplyReport) -> None: ...
    def register_key(self, current: bytes, coming: bytes) -> None:
        """Announce a new public key; the answer comes as key_registered or key_refused."""


class Record(Protocol):
    """One value on flash."""

    def write(self, payload: bytes) -> bool: ...


class Conditions(Protocol):
    """Telemetry's list of what is wrong."""

    def set(
        self, code: str, severity: Any, reason: str, remedy: str, subject: str = ""
    ) -> None: ...
    def clear(self, code: str, subject: str = "") -> None: ...
    def all(self) -> Sequence[Condition]: ...


class Condition(Protocol):
    """One that stands."""

    @property
    def severity(self) -> str: ...


class Log(Protocol):
    """The part of telemetry's log that is used here."""

    def info(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Running:
    """A configuration in force: what the server stated, and what came of it."""

    received: Received | None
    effective: Effective

    @property
    def version(self) -> int:
        return self.received.version if self.received else 0


@dataclass(slots=True)
class Flash:
    """The records that the conductor writes."""

    configuration: Record
    identity: Record


class NoServer:
    """Stands in before the control plane runs, and where there is none."""

    def report(self, report: ApplyReport) -> None:
        pass

    def register_key(self, current: bytes, coming: bytes) -> None:
        pass


class Conductor:
    """One device. Called from the loop's thread only."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        tunnel: Tunnel,
        flash: Flash,
        conditions: Conditions,
        log: Log,
        *,
        now: Callable[[], float],
        unix: Callable[[], float],
        random: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.state = State.NEW
        self.state_since_unix_s = unix()
        self.server: Server = NoServer()
        self.registration = NOT_REGISTERED
        self._file = config
        self._tunnel = tunnel
        self._flash = flash
        self._conditions = conditions
        self._log = log
        self._now = now
        self._unix = unix
        self._random = random
        self._entropy = entropy
        self._trial: Trial[Running] = Trial()
        self._rotation = Rotation(journal)
        self._rotate_at_s: float | None = None
        self._rotate_not_before_s = now()
        self._rotations_failed = 0
        self._expire_at_unix_s = 0
        self._running = Running(None, Effective(config))
        self._faulty = False
        self._control_fault = ""
        self._health: set[str] = set()
        self._report = ApplyReport()
        self._nudge_at_s = now() + NUDGE_S
        self._endpoint_since_s = now()

    # -- Life -------------------------------------------------------------------------

    def start(
        self, cached: Received | None, registration: Registration = NOT_REGISTERED
    ) -> tuple[Config, bytes]:
        """Return what the tunnel starts with: the file, and over it what the server said last."""
        self.registration = registration
        self._rotation.start(self._now())
        self._running = self._effective_or_file(cached)
        self._follow(self._running.effective)
        self._plan_rotation()
        configured = bool(self._running.effective.config.all_peers)
        self._event(Event.STARTED_CONFIGURED if configured else Event.STARTED_EMPTY)
        # Without the public key, which costs a slow import: the tunnel comes first.
        self._report = ApplyReport(self._running.version)
        return self._running.effective.config, self._rotation.in_use

    def _effective_or_file(self, cached: Received | None) -> Running:
        statement = cached.statement if cached else {}
        try:
            found = overlay(self._file, self.registration, statement, self._unix())
            return Running(cached, found)
        except StatementError as error:
            self._log.warning("the stored configuration cannot be used", problem=str(error))
            return Running(None, Effective(self._file))

    def reload(self, config: Config) -> int:
        """The operator changed the file: lay what the server stated over the new one."""
        self._file = config
        return self._apply_received(self._running.received, reloaded=True)

    def stop(self) -> None:
        if self.state is not State.STOPPED:
            self._event(Event.STOP)

    @property
    def public_key(self) -> bytes:
        """The public key that the tunnel runs with."""
        return public_key_of(self._rotation.in_use)

    @property
    def received(self) -> Received | None:
        """The server's configuration in force."""
        return self._running.received

    # -- What the control plane tells (Listener) --------------------------------------

    def registering(self) -> None:
        self._event(Event.REGISTERING)

    def registered(self, registration: Registration) -> None:
        changed = registration != self.registration
        self.registration = registration
        self._event(Event.REGISTERED)
        states_peers = self._running.received and "peers" in self._running.received.statement
        if changed and not states_peers and self.state is not State.CONFIGURING:
            self._apply_received(self._running.received)

    def configuration(self, received: Received) -> None:
        self._apply_received(received)

    def forgotten(self, error: ControlError) -> None:
        self._event(Event.FORGOTTEN)
        self.trouble(error)

    def trouble(self, error: ControlError) -> None:
        """The control plane failed; the tunnel stays as it is."""
        grave = error.code in NEEDS_OPERATOR and self.state not in HAS_TUNNEL
        before, self._control_fault = self._control_fault, error.code
        severity = "error" if grave else "warning"
        self._set(error.code, severity, error.reason, error.remedy, "control")
        if before and before != error.code:
            # Afterwards: one reason after another is no recovery in between.
            self._clear(before, "control")
        if error.code in NEEDS_OPERATOR and self.state in (
            State.UNREGISTERED, State.REGISTERING,
        ):  # fmt: skip
            self._event(Event.REFUSED)

    def fine(self) -> None:
        if self._control_fault:
            self._clear(self._control_fault, "control")
            self._control_fault = ""

    def clock_offset(self, offset_s: float | None) -> None:
        """The server's time minus ours."""
        if offset_s is not None and abs(offset_s) > CLOCK_TOLERANCE_S:
            reason = f"the clock differs from the control server's by {offset_s:.0f} s"
            self._set("clock_offset", "warning", reason, "Set the clock (NTP).", "")
        else:
            self._clear("clock_offset", "")

    # -- Configuration ----------------------------------------------------------------

    def _apply_received(self, received: Received | None, *, reloaded: bool = False) -> int:
        """Run a configuration of the server's; return the number of changes."""
        statement = received.statement if received else {}
        try:
            effective = overlay(self._file, self.registration, statement, self._unix())
        except StatementError as error:
            version = received.version if received else 0
            self._reject(version, "invalid", str(error))
            return 0
        before = self._running
        key = self._rotation.in_use
        changes = diff(tunnel_of(before.effective.config, key), tunnel_of(effective.config, key))
        alive = self._is_alive()
        after = Running(received, effective)
        self._running = after
        self._event(Event.CONFIGURED)
        done = self._tunnel.apply(effective.config, key)
        self._follow(effective)
        self._clear("configuration_rejected", "")
        # The operator of the device knows what he does: no trial for the file.
        risky = bool(changes) and not reloaded and self._tunnel.initiate_handshakes()
        kept = self._trial.begin(self._now(), after, before if alive else None, risky=risky)
        self._log.info("configuration applied", version=after.version, changes=done)
        if kept:
            self._keep(kept)
        return done

    def _is_alive(self) -> bool:
        age = self._tunnel.handshake_age_s()
        return age is not None and age < ALIVE_S

    def _keep(self, kept: Keep[Running]) -> None:
        """Only a configuration that proved itself is what the next boot starts with."""
        if kept.value.received:
            self._save(self._flash.configuration, kept.value.received.render())
        self._report = replace(
            self._report, applied_version=kept.value.version, failed_version=0, code="", reason=""
        )
        self._tell()

    def _revert(self, revert: Revert[Running]) -> None:
        self._running = revert.value
        self._event(Event.CONFIGURED)
        self._tunnel.apply(revert.value.effective.config, self._rotation.in_use)
        self._follow(revert.value.effective)
        reason = f"no peer shook hands within {revert.waited_s:.0f} s"
        self._reject(revert.rejected.version, "no_handshake", reason)

    def _reject(self, version: int, code: str, reason: str) -> None:
        text = f"version {version} of the server's configuration is not used: {clean(reason, 160)}"
        remedy = "The one before it runs; the server was told. Correct it there."
        self._set("configuration_rejected", "warning", text, remedy, "")
        self._report = replace(
            self._report,
            applied_version=self._running.version,
            failed_version=version,
            code=code,
            reason=reason,
        )
        self._tell()

    def _tell(self) -> None:
        # To name a key ends its rotation on the server, which drops the old one: only one
        # that is proved may be named, whatever runs just now.
        proved = public_key_of(self._rotation.journal.current)
        self._report = replace(self._report, public_key=proved)
        self.server.report(self._report)

    def _try_other_endpoints(self) -> None:
        """A peer may have several places: when none of them answers, try the next ones.

        (The addresses behind one name are the device's business.)
        """
        effective = self._running.effective
        if not effective.other_endpoints or self._is_alive():
            self._endpoint_since_s = self._now()
            return
        if self._now() < self._endpoint_since_s + ENDPOINT_S:
            return
        self._endpoint_since_s = self._now()
        others = dict(effective.other_endpoints)
        peers = []
        for peer in effective.config.peers:
            if peer.endpoint and (waiting := others.get(peer.public_key)):
                others[peer.public_key] = (*waiting[1:], peer.endpoint)
                peer = replace(peer, endpoint=waiting[0])
            peers.append(peer)
        config = replace(effective.config, peers=tuple(peers))
        moved = replace(effective, config=config, other_endpoints=others)
        self._running = replace(self._running, effective=moved)
        self._tunnel.apply(config, self._rotation.in_use)
        self._tunnel.initiate_handshakes()

    def _follow(self, effective: Effective) -> None:
        """Take over what goes with a configuration besides the tunnel itself."""
        self._endpoint_since_s = self._now()
        self._expire_at_unix_s = effective.expires_unix_s
        found = {entry["code"]: entry for entry in effective.health}
        for code in self._health - found.keys():
            self._clear(code, "server")
        for code, entry in found.items():
            self._set(code, entry["severity"], entry["reason"], entry["remedy"], "server")
        self._health = set(found)
        self._report_records(effective.unused_records)
        self._plan_ordered_rotation(effective)

    def _report_records(self, unused: dict[str, int]) -> None:
        """Say which of the server's DNS records are kept without being answered."""
        if not unused:
            self._clear("dns_records_unused", "server")
            return
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(unused.items())[:8])
        reason = f"DNS records that this version keeps and does not answer: {counts}"
        remedy = "Nothing here: only A and AAAA records are answered."
        self._set("dns_records_unused", "info", reason, remedy, "server")

    # -- Handshakes and time ----------------------------------------------------------

    def handshake(self, public_key: bytes) -> None:
        """A handshake with a peer completed."""
        if kept := self._trial.proof():
            self._log.info("configuration proved", version=kept.value.version)
            self._keep(kept)
        self._do(self._rotation.handshake(round(self._unix())))

    def tick(self) -> None:
        """Look after what waits for time; call it every second or so."""
        self._judge()
        # While a new key is on trial it is that key that may bring no handshake.
        proving = self._rotation.state is RotationState.PROVING
        if not proving and (revert := self._trial.tick(self._now())):
            self._revert(revert)
        if self._now() >= self._nudge_at_s:
            self._nudge_at_s = self._now() + NUDGE_S
            on_trial = self._trial.poll_at() is not None or self._rotation.poll_at() is not None
            if on_trial or self._tunnel.handshake_age_s() is None:
                self._tunnel.initiate_handshakes()
            self._try_other_endpoints()
        self._do(self._rotation.tick(self._now()))
        if self._expire_at_unix_s and self._unix() >= self._expire_at_unix_s:
            self._expire_at_unix_s = 0
            self._log.info("a peer expired")
            self._apply_received(self._running.received, reloaded=True)
        if self._rotate_at_s is not None and self._now() >= self._rotate_at_s:
            self._rotate_at_s = None
            self._rotate()

    # -- Rotation ---------------------------------------------------------------------

    def _plan_rotation(self) -> None:
        """Plan by the schedule of the file, which is off by default."""
        every_s = self._file.auth.key_rotation_ns / 1e9
        if not every_s or self._file.private_key:
            return
        since = self._rotation.journal.since_unix_s
        if not since:
            since = round(self._unix())
            self._rotation.journal = replace(self._rotation.journal, since_unix_s=since)
            self._save(self._flash.identity, self._rotation.journal.render())
        age_s = max(0.0, self._unix() - since)
        # Up to a tenth later, so that a fleet made together does not rotate together.
        left_s = every_s * (1 + self._random() / 10) - age_s
        when = self._now() + max(left_s, ROTATION_RETRY_S * self._random())
        self._rotate_at_s = max(when, self._rotate_not_before_s)

    def _plan_ordered_rotation(self, effective: Effective) -> None:
        if effective.rekey is None or self._rotation.state is not RotationState.STEADY:
            return
        key, before_unix_s = effective.rekey
        if key != self.public_key:
            return
        if self._file.private_key:
            reason = "the server wants another static key, and the file holds this one"
            remedy = "Leave private_key out of the file: the device then makes its own."
            self._set("rekey_impossible", "warning", reason, remedy, "")
            return
        left_s = max(60.0, before_unix_s - self._unix())
        when = self._now() + left_s * 0.9 * self._random()
        # The order stands until it is carried out, and comes again with each configuration.
        when = max(when, self._rotate_not_before_s)
        if self._rotate_at_s is None or when < self._rotate_at_s:
            self._rotate_at_s = when

    def _rotate(self) -> None:
        if not self._is_alive() or isinstance(self.server, NoServer):
            # Without a tunnel that works there is nothing to prove the new key against, and
            # without a server nobody to announce it to.
            self._rotate_at_s = self._now() + ROTATION_RETRY_S * (0.5 + self._random())
            return
        self._log.info("static key rotation begins")
        self._do(self._rotation.order(generate_private_key(self._entropy)))

    def key_registered(self) -> None:
        """The server knows the new key."""
        self._do(self._rotation.registered(self._now()))

    def key_refused(self, error: ControlError) -> None:
        """The server did not take the new key, or did not answer; the old one stays."""
        self._log.warning("static key rotation put off", code=error.code)
        self._do(self._rotation.refused())
        again = max(ROTATION_RETRY_S, error.retry_after_s)
        self._rotate_at_s = self._now() + again * (0.5 + self._random())

    def _do(self, steps: tuple[Step, ...]) -> None:
        for step_ in steps:
            match step_:
                case Save(journal):
                    saved = self._save(self._flash.identity, journal.render())
                    if not saved and self._rotation.state is RotationState.PREPARED:
                        # A key that is not on flash must not be announced. (A journal that
                        # still has both keys after the end of a rotation is harmless.)
                        self._rotation.abandon()
                        self._rotate_at_s = self._now() + ROTATION_RETRY_S
                        return
                case Register(current, coming):
                    self.server.register_key(public_key_of(current), public_key_of(coming))
                case Use(key):
                    self._trial.restart(self._now())
                    self._tunnel.apply(self._running.effective.config, key)
                    self._tunnel.initiate_handshakes()
                case Report(_, failed):
                    self._rotation_ends(failed=failed)
                    self._report = replace(
                        self._report,
                        code="no_handshake" if failed else "",
                        reason="no peer shook hands with the new key" if failed else "",
                        failed_version=0,
                    )
                    self._tell()

    def _rotation_ends(self, *, failed: bool) -> None:
        """One of the two keys is in force, or the old one is being gone back to."""
        self._log.info("static key rotation ends", kept_old=failed)
        if not failed:
            self._rotations_failed = 0
        elif self._rotation.state is not RotationState.STEADY:
            pause_s = min(ROTATION_RETRY_S * 2**self._rotations_failed, ROTATION_RETRY_MAX_S)
            self._rotations_failed += 1
            self._rotate_not_before_s = self._now() + pause_s * (0.5 + self._random())
        if self._rotation.state is RotationState.STEADY:
            self._plan_rotation()
            self._plan_ordered_rotation(self._running.effective)

    # -- Odds and ends ----------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what `-status` shows of the agent."""
        reason, remedy = EXPLAINED[self.state]
        received = self._running.received
        stated: dict[str, Any] | None = None
        if received:
            stated = {
                "version": received.version,
                "received_unix_s": received.received_unix_s,
                "age_s": max(0, round(self._unix() - received.received_unix_s)),
                "on_trial": self._trial.poll_at() is not None,
            }
        return {
            "state": self.state.value,
            "since_unix_s": round(self.state_since_unix_s),
            "reason": reason,
            "remedy": remedy,
            "configuration": stated,
            "key_rotation": self._rotation.state.value,
            "exit_node": self._running.effective.config.exit_node.enabled,
        }

    def _event(self, event: Event) -> None:
        """The one place that changes the state."""
        before = self.state
        self.state, action = step(before, event)
        if self.state is not before:
            self.state_since_unix_s = self._unix()
            text = f"{before.value} -> {self.state.value}"
            self._log.info(text, because=event.value, action=action.value)
            if self.state is State.RUNNING and self._faulty and event is not Event.RECOVERED:
                self._event(Event.FAULT)
        assert action is not Action.START_TUNNEL or before is State.NEW

    def _set(self, code: str, severity: str, reason: str, remedy: str, subject: str) -> None:
        self._conditions.set(code, severity, reason, remedy, subject)
        self._judge()

    def _clear(self, code: str, subject: str) -> None:
        self._conditions.clear(code, subject)
        self._judge()

    def _judge(self) -> None:
        """Follow whether a condition stands, whichever room set it."""
        if self.state in (State.NEW, State.STOPPED):
            return
        faulty = any(c.severity != "info" for c in self._conditions.all())
        if faulty != self._faulty:
            self._faulty = faulty
            self._event(Event.FAULT if faulty else Event.RECOVERED)

    def _save(self, record: Record, payload: bytes) -> bool:
        """Write to flash; a disk that refuses becomes a condition and not the end."""
        try:
            record.write(payload)
        except Exception as error:
            reason = f"the state cannot be saved: {clean(error, 160)}"
            remedy = getattr(error, "remedy", "")
            self._set("state_unsaved", "warning", reason, remedy, "control")
            return False
        self._clear("state_unsaved", "control")
        return True


def describe(error: BaseException) -> ControlError:
    """Return an error of the control plane's driver that nobody foresaw as one that is shown."""
    if isinstance(error, ControlError):
        return error
    # Of an exception only its kind is told, for its text may hold anything; a module is no secret.
    kind = type(error).__name__
    what = f"{kind}: {error.name}" if isinstance(error, ImportError) else kind
    return TransportError("server_failed", f"The control plane failed unexpectedly ({what})")
