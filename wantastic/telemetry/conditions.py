"""Health conditions: what is not as it should be, in a code, a reason and a remedy.

A condition is set and cleared by the room that knows. Setting one that stands already
changes its reason, and not since when it stands; each change is logged once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from wantastic.telemetry.log import Log

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One finding that stands. `subject` tells several of one code apart: a peer, a range."""

    code: str
    subject: str
    severity: Severity
    reason: str
    remedy: str
    since_unix_ns: int


class Conditions:
    """The conditions that stand now."""

    def __init__(self, log: Log, clock_ns: Callable[[], int]) -> None:
        self._log = log
        self._clock_ns = clock_ns
        self._standing: dict[tuple[str, str], Condition] = {}

    def set(
        self, code: str, severity: Severity, reason: str, remedy: str, subject: str = ""
    ) -> None:
        """Let a condition stand."""
        before = self._standing.get((code, subject))
        since = before.since_unix_ns if before else self._clock_ns()
        new = Condition(code, subject, severity, reason, remedy, since)
        if new == before:
            return
        self._standing[code, subject] = new
        fields: dict[str, object] = {"code": code, "remedy": remedy}
        self._log.write(severity, reason, fields | ({"subject": subject} if subject else {}))

    def clear(self, code: str, subject: str = "") -> None:
        """Say that it is as it should be again."""
        if self._standing.pop((code, subject), None):
            self._log.info("condition cleared", code=code, subject=subject or "-")

    def has(self, code: str, subject: str = "") -> bool:
        return (code, subject) in self._standing

    def all(self) -> tuple[Condition, ...]:
        """Return them, the gravest first."""
        order = {"error": 0, "warning": 1, "info": 2}
        return tuple(sorted(self._standing.values(), key=lambda c: (order[c.severity], c.code)))
