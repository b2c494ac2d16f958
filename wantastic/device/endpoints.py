"""Which of a peer's addresses to try: pure, in the caller's time.

Theory of operation
  A configured endpoint is a name or an address. A name gives candidates, IPv6 and IPv4
  mixed as the resolver orders them. The engine tells how many handshake initiations in
  a row went unanswered. After ATTEMPTS_EACH of them the next candidate is taken; when
  all were tried, the name is resolved again, at most once per RESOLVE_MIN, doubling up
  to RESOLVE_MAX. There is no last state: it goes on for ever.

  A peer that answers keeps the endpoint that it answered from, roamed or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from wantastic.config.model import HostPort
from wantastic.config.values import is_numeric

SECOND_NS = 10**9
ATTEMPTS_EACH = 2
RESOLVE_MIN_NS = 5 * SECOND_NS
RESOLVE_MAX_NS = 60 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: tell the engine an address, ask the resolver, both or neither."""

    address: str | None = None
    resolve: bool = False


class EndpointKeeper:
    """The candidates of one configured endpoint."""

    def __init__(self, place: HostPort) -> None:
        self.place = place
        self.is_name = not is_numeric(place.host.partition("%")[0])
        self.candidates: tuple[str, ...] = () if self.is_name else (place.host,)
        self.resolving = False
        self._index = 0
        self._attempts_before = 0
        self._tried = 0
        self._next_resolve_ns = 0
        self._pause_ns = RESOLVE_MIN_NS

    @property
    def current(self) -> str | None:
        """The address that the engine was last told."""
        return self.candidates[self._index] if self.candidates else None

    def start(self, now_ns: int) -> Step:
        """Return the first step."""
        return self._resolve(now_ns) if self.is_name else Step(address=self.place.host)

    def resolved(self, addresses: tuple[str, ...], now_ns: int) -> Step:
        """Take what the resolver found; nothing found keeps what there was."""
        self.resolving = False
        if not addresses:
            return Step()
        before = self.current
        self.candidates = tuple(dict.fromkeys(addresses))
        self._tried = 0
        if before in self.candidates:
            # The address that just failed stays known, and the next one is tried first.
            self._index = self.candidates.index(before)
            return Step()
        self._index = 0
        return Step(address=self.current)

    def attempts(self, unanswered: int, now_ns: int) -> Step:
        """Judge how many initiations in a row the engine has sent without an answer."""
        if unanswered == 0:
            self._attempts_before, self._tried = 0, 0
            if not self.candidates:
                return self._resolve(now_ns)
            self._pause_ns = RESOLVE_MIN_NS
            return Step()
        if not self.candidates:
            return self._resolve(now_ns)
        # The engine starts again from 0 after it gave up; so do we.
        self._attempts_before = min(self._attempts_before, unanswered)
        if unanswered - self._attempts_before < ATTEMPTS_EACH:
            return Step()
        self._attempts_before = unanswered
        self._tried += 1
        step = self._resolve(now_ns) if self._tried >= len(self.candidates) else Step()
        if len(self.candidates) > 1:
            self._index = (self._index + 1) % len(self.candidates)
            return Step(self.current, step.resolve)
        return step

    def _resolve(self, now_ns: int) -> Step:
        if not self.is_name or self.resolving or now_ns < self._next_resolve_ns:
            return Step()
        self.resolving = True
        self._next_resolve_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, RESOLVE_MAX_NS)
        return Step(resolve=True)
