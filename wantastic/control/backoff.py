"""How long to wait before trying again: for ever, capped, with full jitter.

A wait is drawn uniformly from 0 to the current ceiling, so that devices that failed together
do not come back together; the ceiling doubles from `first_s` up to `cap_s`. A server's
retry_after is a floor, and the draw goes on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Random = Callable[[], float]
"""Uniform in [0, 1)."""

MAX_RETRY_AFTER_S: Final = 24 * 3600.0

ENROL: Final = (2.0, 300.0)
"""Somebody may be watching."""
RECONNECT: Final = (30.0, 900.0)
"""Nobody waits: the tunnel runs. A restarted server gets its devices back over 30 s."""
OPERATOR: Final = (300.0, 3600.0)
"""Only an operator can cure it, so ask seldom."""


class Backoff:
    """Waits for one kind of failure; `reset` after a success."""

    def __init__(self, pace: tuple[float, float], random: Random) -> None:
        self.first_s, self.cap_s = pace
        self._random = random
        self.failures = 0

    def reset(self) -> None:
        self.failures = 0

    def next_s(self, retry_after_s: float = 0.0) -> float:
        """Count a failure and return the wait that follows it."""
        ceiling = self.cap_s
        if self.failures < 32:
            ceiling = min(self.cap_s, self.first_s * 2.0**self.failures)
        self.failures += 1
        floor = min(max(retry_after_s, 0.0), MAX_RETRY_AFTER_S)
        return floor + self._random() * max(ceiling, floor / 4)


def spread_s(interval_s: float, random: Random, part: float = 0.1) -> float:
    """Return an interval shortened by up to `part` of itself."""
    return interval_s * (1.0 - part * random())
