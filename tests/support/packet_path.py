"""A bad path for packets: delay, loss, reordering, duplication and a rate, by a seed.

What happens to the n-th packet follows from the seed and n alone, so that a run that
failed can be had again. Time is an argument.

    put() -> lost | queued behind what the rate lets through -> delayed -> take()
                  + late: overtaken by those behind it
                  + twice

python -m tests.support.packet_path FAR_HOST FAR_PORT < JSON

relays UDP datagrams over such paths. The first line of standard input is a list of
[seed, object with the fields of Path]. Each path gets a port: datagrams to it go on to
FAR, the answers back to whom they came from, with the same impairments each way. Prints
the list of ports. Each further line has such a list again, which replaces what the paths
do; the answer is what every direction has passed, lost and found no room for since the
last.
"""

from __future__ import annotations

import heapq
import json
import random
import select
import socket
import sys
import time
from dataclasses import dataclass

SO_RCVBUFFORCE = 33
BUFFER_BYTES = 8 << 20
BATCH = 64


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
        self._heap: list[tuple[int, int, bytes]] = []
        self._count = 0
        self._free_ns = 0
        self._begin(path, seed)

    def _begin(self, path: Path, seed: int) -> None:
        self.path = path
        self.passed = self.lost = self.late = self.doubled = self.overflown = 0
        self._random = random.Random(seed)

    def become(self, path: Path, seed: int) -> tuple[int, int, int]:
        """Change what happens to packets from now on; (passed, lost, overflown) up to now."""
        counted = self.passed, self.lost, self.overflown
        self._begin(path, seed)
        return counted

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
        self.passed += len(arrived)
        return arrived

    def next_at(self) -> int | None:
        """Return when the next one arrives; None when nothing is on its way."""
        return self._heap[0][0] if self._heap else None


class Way:
    """One direction of a relayed path: from one socket to whom the other one talks to."""

    def __init__(self, source: socket.socket, out: socket.socket, path: Path, seed: int) -> None:
        self.source, self.out = source, out
        self.impairment = Impairment(path, seed)
        self.to: tuple[str, int] | None = None

    def receive(self) -> tuple[str, int] | None:
        """Take a batch in; return who sent it."""
        sender = None
        for _ in range(BATCH):
            try:
                data, sender = self.source.recvfrom(65536)
            except BlockingIOError:
                break
            self.impairment.put(data, time.monotonic_ns())
        return sender

    def send(self, now_ns: int) -> None:
        for data in self.impairment.take(now_ns):
            if self.to:
                self.out.sendto(data, self.to)


def bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    made.bind(("0.0.0.0", 0))
    made.setblocking(False)
    return made


def read_paths() -> list[tuple[int, Path]] | None:
    line = sys.stdin.readline()
    return [(seed, Path(**fields)) for seed, fields in json.loads(line)] if line else None


def relay(paths: list[tuple[int, Path]], far: tuple[str, int]) -> None:
    """Relay until standard input ends."""
    pairs: list[tuple[Way, Way]] = []
    for seed, path in paths:
        near_side, far_side = bound(), bound()
        there = Way(near_side, far_side, path, seed)
        back = Way(far_side, near_side, path, seed + 1)
        there.to = far
        pairs.append((there, back))
    by_fd = {way.source.fileno(): (way, other) for two in pairs for way, other in (two, two[::-1])}
    print(json.dumps([there.source.getsockname()[1] for there, _ in pairs]), flush=True)
    while True:
        due = [at for way, _ in by_fd.values() if (at := way.impairment.next_at()) is not None]
        wait = max(0, min(due) - time.monotonic_ns()) / 1e9 if due else None
        ready, _, _ = select.select([*by_fd, sys.stdin.fileno()], [], [], wait)
        for fd in ready:
            if fd != sys.stdin.fileno():
                way, other = by_fd[fd]
                sender = way.receive()
                if way.to == far and sender:
                    other.to = sender
                continue
            changed = read_paths()
            if changed is None:
                return
            counted = [
                [way.impairment.become(path, seed + i) for i, way in enumerate(two)]
                for (seed, path), two in zip(changed, pairs, strict=True)
            ]
            print(json.dumps(counted), flush=True)
        now_ns = time.monotonic_ns()
        for way, _ in by_fd.values():
            way.send(now_ns)


if __name__ == "__main__":
    first = read_paths()
    if first is not None:
        relay(first, (sys.argv[1], int(sys.argv[2])))
