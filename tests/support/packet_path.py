"""A bad path for packets: delay, loss, reordering, duplication and a rate, by a seed.

What happens to the n-th packet follows from the seed and n alone, so that a run that
failed can be had again. Time is an argument.

    put() -> lost | queued behind what the rate lets through -> delayed -> take()
                  + late: overtaken by those behind it
                  + twice
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Path:
    """One direction. Shares are of all packets; a rate of 0 is none."""

    delay_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    late_ms: float = 5.0
    duplicate: float = 0.0
    rate_bytes_s: float = 0.0
    queue_bytes: int = 256 * 1024


class Impairment:
    """Packets on their way over a Path."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.lost = self.late = self.doubled = self.overflown = 0
        self._random = random.Random(seed)
        self._heap: list[tuple[int, int, bytes]] = []
        self._count = 0
        self._free_ns = 0

    def put(self, packet: bytes, now_ns: int) -> None:
        """Take a packet in."""
        path = self.path
        # Always as many draws for a packet: what becomes of one does not move the others.
        lost, late, doubled = (self._random.random() for _ in range(3))
        if lost < path.loss:
            self.lost += 1
            return
        at_ns = now_ns
        if path.rate_bytes_s:
            start_ns = max(now_ns, self._free_ns)
            if (start_ns - now_ns) / 1e9 * path.rate_bytes_s > path.queue_bytes:
                self.overflown += 1
                return
            at_ns = self._free_ns = start_ns + int(len(packet) / path.rate_bytes_s * 1e9)
        at_ns += int(path.delay_ms * 1e6)
        if late < path.reorder:
            self.late += 1
            at_ns += int(path.late_ms * 1e6)
        self._push(at_ns, packet)
        if doubled < path.duplicate:
            self.doubled += 1
            self._push(at_ns, packet)

    def _push(self, at_ns: int, packet: bytes) -> None:
        heapq.heappush(self._heap, (at_ns, self._count, packet))
        self._count += 1

    def take(self, now_ns: int) -> list[bytes]:
        """Return what has arrived, in order of arrival."""
        arrived = []
        while self._heap and self._heap[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._heap)[2])
        return arrived

    def next_at(self) -> int | None:
        """Return when the next one arrives; None when nothing is on its way."""
        return self._heap[0][0] if self._heap else None
