"""The seeded path of benchmarks: what it does to datagrams, in virtual time."""

from __future__ import annotations

import itertools
import random
import socket

import pytest

from tests.support.impairment import Direction, Path

DATA = bytes(1250)  # 0.1 ms at 100 Mbit/s


class Sent:
    """Stands for the socket on the far side."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []

    def sendto(self, data: bytes, _: tuple[str, int]) -> None:
        self.datagrams.append(data)


def direction(path: Path) -> tuple[Direction, Sent]:
    sent = Sent()
    unused = socket.socket()
    unused.close()
    made = Direction(path, random.Random(path.seed), unused, sent, ("", 1))  # type: ignore[arg-type]
    return made, sent


@pytest.mark.parametrize(("at", "given"), [(0.0100, 0), (0.0102, 1)])
def test_delay_is_half_the_round_trip_behind_the_bottleneck(at: float, given: int) -> None:
    way, sent = direction(Path(rtt_ms=20))
    way.take(DATA, 0.0)
    way.give(at)
    assert len(sent.datagrams) == given


def test_the_bottleneck_spaces_and_its_queue_ends() -> None:
    way, sent = direction(Path(queue_ms=10))
    for _ in range(200):
        way.take(DATA, 0.0)
    assert way.overflowed == 200 - 101
    way.give(0.00501)
    assert len(sent.datagrams) == 50


def test_the_same_seed_loses_and_swaps_the_same() -> None:
    def run(seed: int) -> tuple[list[bytes], int]:
        way, sent = direction(Path(seed=seed, loss=0.01, swapped=0.01, rtt_ms=5))
        for number in range(20_000):
            way.take(number.to_bytes(4, "big") + DATA[4:], number * 1e-4)
        way.give(1e9)
        return sent.datagrams, way.lost

    first, lost = run(1)
    assert (first, lost) == run(1)
    assert first != run(2)[0]
    assert 150 < lost < 250
    assert len(first) == 20_000 - lost
    late = sum(a > b for a, b in itertools.pairwise(first))
    assert 150 < late < 250


def test_a_new_path_counts_from_zero() -> None:
    way, _ = direction(Path(loss=1.0))
    way.take(DATA, 0.0)
    assert way.become(Path(), 3) == (0, 1, 0)
    way.take(DATA, 0.0)
    way.give(1.0)
    assert way.become(Path(), 3) == (1, 0, 0)
