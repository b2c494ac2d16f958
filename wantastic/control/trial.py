"""Commit-confirm of a new configuration, as a pure state machine.

    IDLE --begin--> TRIAL --proof--> IDLE      the new one is kept (Keep)
                      |---timeout--> IDLE      the old one comes back (Revert), and the
                      |                        server is told
                      +---begin----> TRIAL     a newer one; the old one stays the fall-back

A new configuration is on trial when it could cut the tunnel (keys, peers, addresses, ports)
and when the one before it had proved itself; then a handshake within `proof_s` decides.
What only changes names or rules is kept at once, and so is a first configuration: there is
nothing better to go back to. On flash stays the proved one until the new one is kept, so a
power cut during a trial comes back with what worked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

PROOF_S: Final = 45.0
"""Nine handshake attempts of five seconds."""


class TrialState(Enum):
    IDLE = "idle"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Keep(Generic[Value]):
    """Make this the configuration to start with after a power cut."""

    value: Value


@dataclass(frozen=True, slots=True)
class Revert(Generic[Value]):
    """Apply `value` again; `rejected` brought no handshake."""

    value: Value
    rejected: Value
    waited_s: float


class Trial(Generic[Value]):
    """The trial of one configuration after another."""

    def __init__(self, proof_s: float = PROOF_S) -> None:
        self.proof_s = proof_s
        self.state = TrialState.IDLE
        self._proved: Value | None = None
        self._candidate: Value | None = None
        self._began_s = 0.0

    def begin(
        self, now_s: float, candidate: Value, fallback: Value | None, *, risky: bool
    ) -> Keep[Value] | None:
        """A configuration was applied. `fallback` is what ran before it, None when that had
        not proved itself. Return Keep when no trial is needed."""
        if self.state is TrialState.TRIAL:
            fallback, risky = self._proved, True
        if fallback is None or not risky:
            self._set(TrialState.IDLE)
            return Keep(candidate)
        self._proved, self._candidate, self._began_s = fallback, candidate, now_s
        self._set(TrialState.TRIAL)
        return None

    def proof(self) -> Keep[Value] | None:
        """A handshake completed after the configuration was applied."""
        if self.state is not TrialState.TRIAL or self._candidate is None:
            return None
        kept = Keep(self._candidate)
        self._set(TrialState.IDLE)
        return kept

    def tick(self, now_s: float) -> Revert[Value] | None:
        """Time passed."""
        if self.state is not TrialState.TRIAL or now_s < self._began_s + self.proof_s:
            return None
        assert self._proved is not None
        assert self._candidate is not None
        revert = Revert(self._proved, self._candidate, now_s - self._began_s)
        self._set(TrialState.IDLE)
        return revert

    def restart(self, now_s: float) -> None:
        """Something else that decides about handshakes changed: count from now."""
        self._began_s = now_s

    def poll_at(self) -> float | None:
        """When tick() has something to do; None: nothing to wait for."""
        return self._began_s + self.proof_s if self.state is TrialState.TRIAL else None

    def _set(self, state: TrialState) -> None:
        self.state = state
        if state is TrialState.IDLE:
            self._proved = self._candidate = None
