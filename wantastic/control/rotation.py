"""Rotation of the static key, make before break, as a pure state machine with a journal.

    STEADY --order--> PREPARED --registered--> PROVING --handshake--> STEADY (new key)
                         |                        |
                         +--refused--> STEADY     +--timeout--> STEADY (old key)

Each step first gives Save: the journal, both keys in it, must be on flash before what
follows is done. The old key leaves the journal only after a handshake with the new one,
and the new one only after the server was asked to forget it (by naming the old key with
an apply error) and a handshake with the old key.

A journal found at start with two keys means that the power went in between. Nobody knows
whether the server saw the new key or has dropped the old one, so the machine starts in
RECOVERING: it tries one key after the other, `proof_s` each, until one shakes hands, and
only then forgets the other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from wantastic.config.keys import decode_key, encode_key

PROOF_S: Final = 60.0


class RotationState(Enum):
    STEADY = "steady"
    PREPARED = "prepared"
    PROVING = "proving"
    ROLLING_BACK = "rolling_back"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True)
class Journal:
    """What is on flash: the key in force, and the one on its way."""

    current: bytes = field(repr=False)
    coming: bytes | None = field(default=None, repr=False)
    since_unix_s: int = 0
    """When the current key came into force; 0: not known."""

    def render(self) -> bytes:
        """Return the form on flash, which a reader of `private_key` alone understands."""
        value: dict[str, str | int] = {"private_key": encode_key(self.current)}
        if self.since_unix_s:
            value["since_unix_s"] = self.since_unix_s
        if self.coming:
            value["coming_private_key"] = encode_key(self.coming)
        return json.dumps(value).encode()

    @classmethod
    def parse(cls, data: bytes) -> Journal | None:
        """Return a journal, None for what is none."""
        try:
            value = json.loads(data)
            coming = value.get("coming_private_key")
            return cls(
                decode_key(value["private_key"]),
                decode_key(coming) if coming else None,
                int(value.get("since_unix_s", 0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Save:
    """Write this before anything that follows."""

    journal: Journal


@dataclass(frozen=True, slots=True)
class Register:
    """Tell the server about `coming`; it replaces `current`."""

    current: bytes = field(repr=False)
    coming: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Use:
    """Run the tunnel with this private key."""

    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the server which key is in force; `failed`: the new one brought no handshake."""

    key: bytes = field(repr=False)
    failed: bool


Step = Save | Register | Use | Report


class Rotation:
    """One device's static key."""

    def __init__(self, journal: Journal, proof_s: float = PROOF_S) -> None:
        self.proof_s = proof_s
        self.journal = journal
        self.in_use = journal.current
        self._deadline_s: float | None = None
        self.state = RotationState.STEADY

    def start(self, now_s: float) -> tuple[Step, ...]:
        """Return what to do first."""
        if self.journal.coming is None:
            return (Use(self.journal.current),)
        self._enter(RotationState.RECOVERING, now_s)
        return (Use(self.journal.current),)

    def order(self, coming: bytes) -> tuple[Step, ...]:
        """A rotation is due; `coming` is a fresh private key."""
        if self.state is not RotationState.STEADY:
            return ()
        self._enter(RotationState.PREPARED)
        self.journal = replace(self.journal, coming=coming)
        return (Save(self.journal), Register(self.journal.current, coming))

    def registered(self, now_s: float) -> tuple[Step, ...]:
        """The server knows the new key."""
        if self.state is not RotationState.PREPARED or self.journal.coming is None:
            return ()
        self._enter(RotationState.PROVING, now_s)
        self.in_use = self.journal.coming
        return (Use(self.in_use),)

    def refused(self) -> tuple[Step, ...]:
        """The server does not want the new key, and does not have it."""
        if self.state is not RotationState.PREPARED:
            return ()
        return self._settle(self.journal.current)

    def abandon(self) -> None:
        """The journal of a rotation that was just ordered could not be saved: forget it."""
        if self.state is RotationState.PREPARED:
            self.journal = replace(self.journal, coming=None)
            self._enter(RotationState.STEADY)

    def handshake(self, unix_s: int = 0) -> tuple[Step, ...]:
        """A handshake completed with the key in use."""
        if self.state in (RotationState.STEADY, RotationState.PREPARED):
            return ()
        failed = self.state is RotationState.ROLLING_BACK
        return (*self._settle(self.in_use, unix_s), Report(self.in_use, failed))

    def tick(self, now_s: float) -> tuple[Step, ...]:
        """Time passed."""
        if self._deadline_s is None or now_s < self._deadline_s:
            return ()
        current, coming = self.journal.current, self.journal.coming
        assert coming is not None
        if self.state is RotationState.PROVING:
            self._enter(RotationState.ROLLING_BACK, now_s)
            self.in_use = current
            return (Use(current), Report(current, True))
        # Neither key has answered so far: perhaps the network is away. Take turns.
        self._enter(self.state, now_s)
        self.in_use = coming if self.in_use == current else current
        return (Use(self.in_use),)

    def poll_at(self) -> float | None:
        return self._deadline_s

    def _settle(self, key: bytes, unix_s: int = 0) -> tuple[Step, ...]:
        self._enter(RotationState.STEADY)
        since = self.journal.since_unix_s if key == self.journal.current else unix_s
        self.journal = Journal(key, None, since)
        self.in_use = key
        return (Save(self.journal),)

    def _enter(self, state: RotationState, now_s: float | None = None) -> None:
        self.state = state
        self._deadline_s = None if now_s is None else now_s + self.proof_s
