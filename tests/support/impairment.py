"""A path with delay, loss, reordering and a rate, made of a seed: relays UDP datagrams.

python -m tests.support.impairment FAR_HOST FAR_PORT < JSON

The first line of standard input is a list of objects with the fields of Path. Each path
gets a port: datagrams to it go on to FAR, the answers back to whom they came from, with
the same impairments each way. Prints the list of ports. Each further line has such a
list again, which replaces what the paths do; the answer is what every direction has
passed, lost and found no room for since the last.
"""

from __future__ import annotations

import heapq
import json
import random
import select
import socket
import sys
import time
from dataclasses import dataclass, field

SO_RCVBUFFORCE = 33
BUFFER_BYTES = 8 << 20
BATCH = 64


@dataclass(frozen=True)
class Path:
    """What happens to a datagram on its way, in each direction."""

    seed: int = 1
    rtt_ms: float = 0.0
    loss: float = 0.0
    swapped: float = 0.0
    rate_mbit: float = 100.0
    queue_ms: float = 100.0


@dataclass
class Direction:
    """One way of a path: a bottleneck with a queue, then the delay."""

    path: Path
    rng: random.Random
    source: socket.socket
    out: socket.socket
    to: tuple[str, int] | None
    free_at: float = 0.0
    waiting: list[tuple[float, int, bytes]] = field(default_factory=list)
    number: int = 0
    passed: int = 0
    lost: int = 0
    overflowed: int = 0

    def become(self, path: Path, seed: int) -> tuple[int, int, int]:
        """Change what happens from now on; return the counters up to now."""
        counted = self.passed, self.lost, self.overflowed
        self.path, self.rng = path, random.Random(seed)
        self.passed = self.lost = self.overflowed = 0
        return counted

    def take(self, data: bytes, now: float) -> None:
        """Decide about one datagram that arrived."""
        path = self.path
        if self.rng.random() < path.loss:
            self.lost += 1
            return
        start = max(now, self.free_at)
        if start - now > path.queue_ms / 1000:
            self.overflowed += 1
            return
        self.free_at = start + len(data) * 8 / (path.rate_mbit * 1e6)
        due = self.free_at + path.rtt_ms / 2000
        if self.rng.random() < path.swapped:
            due += 4 * len(data) * 8 / (path.rate_mbit * 1e6)
        self.number += 1
        heapq.heappush(self.waiting, (due, self.number, data))

    def give(self, now: float) -> None:
        """Send what is due."""
        while self.waiting and self.waiting[0][0] <= now:
            data = heapq.heappop(self.waiting)[2]
            if self.to:
                self.out.sendto(data, self.to)
                self.passed += 1


def bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    made.bind(("0.0.0.0", 0))
    made.setblocking(False)
    return made


def read_paths() -> list[Path] | None:
    line = sys.stdin.readline()
    return [Path(**row) for row in json.loads(line)] if line else None


def run(paths: list[Path], far: tuple[str, int]) -> None:
    pairs: list[tuple[Direction, Direction]] = []
    for path in paths:
        near_side, far_side = bound(), bound()
        there = Direction(path, random.Random(path.seed), near_side, far_side, far)
        back = Direction(path, random.Random(path.seed + 1), far_side, near_side, None)
        pairs.append((there, back))
    by_fd = {way.source.fileno(): (way, other) for two in pairs for way, other in (two, two[::-1])}
    print(json.dumps([there.source.getsockname()[1] for there, _ in pairs]), flush=True)
    while True:
        due = min((way.waiting[0][0] for way, _ in by_fd.values() if way.waiting), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select([*by_fd, sys.stdin.fileno()], [], [], wait)
        for fd in ready:
            if fd == sys.stdin.fileno():
                changed = read_paths()
                if changed is None:
                    return
                counted = [
                    (there.become(path, path.seed), back.become(path, path.seed + 1))
                    for path, (there, back) in zip(changed, pairs, strict=True)
                ]
                print(json.dumps(counted), flush=True)
                continue
            way, other = by_fd[fd]
            for _ in range(BATCH):
                try:
                    data, source = way.source.recvfrom(65536)
                except BlockingIOError:
                    break
                if way.to == far:
                    other.to = source
                way.take(data, time.monotonic())
        now = time.monotonic()
        for way, _ in by_fd.values():
            way.give(now)


if __name__ == "__main__":
    first = read_paths()
    if first is not None:
        run(first, (sys.argv[1], int(sys.argv[2])))
