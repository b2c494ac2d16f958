"""The netstack's fuzz targets: the kept corpus, and programs made at random from it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cext.netstack import fuzz

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
TARGETS = ["packet", "tcp_header", "reassembly", "tcp", "tcp_pair"]


def seeds(target: str) -> list[bytes]:
    return [p.read_bytes() for p in sorted((CORPUS / f"netstack_{target}").iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str) -> None:
    assert seeds(target)
    for data in [b"", *seeds(target)]:
        assert fuzz.run(target, data) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_mutations(target: str) -> None:
    rng = random.Random(target)
    kept = seeds(target)
    for _ in range(800):
        data = bytearray(rng.choice(kept))
        if rng.random() < 0.5:
            data += rng.choice(kept)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 255, rng.randrange(256)])
        fuzz.run(target, bytes(data))


def program(rng: random.Random) -> bytes:
    """Steps of fuzz_tcp that mostly keep a connection going."""
    shape = 7 if rng.random() < 0.7 else 0
    steps = [bytes([0, 2, 0, 5, 0, shape, 255, 160]), bytes([0, 16, 0, 5, 0, shape & 4, 200, 1])]
    for _ in range(rng.randrange(80)):
        step = bytearray(rng.randbytes(8))
        if rng.random() < 0.6:
            step[0] &= 0x3F
        for at in (2, 4):
            if rng.random() < 0.6:
                step[at] = 0
        if rng.random() < 0.5:
            step[1] = (step[1] & 0xC0) | 16
        steps.append(bytes(step))
    return b"".join(steps)


@pytest.mark.parametrize("seed", range(8))
def test_connections_under_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        fuzz.run("tcp", program(rng))


def exchange(rng: random.Random) -> bytes:
    """Steps of fuzz_tcp_pair: a network of some temper between two busy ends."""
    hostile = rng.choice([0.0, 0.05, 0.2, 0.6])
    steps = [rng.randbytes(4)]
    for _ in range(rng.randrange(10, 300)):
        what = rng.choice([0, 1, 3, 3, 8, 8]) if rng.random() >= hostile else rng.randrange(16)
        steps.append(bytes([rng.choice([0, 16]) | rng.choice([0, 0, 0, 128]) | what]))
        steps.append(rng.randbytes(3))
    return b"".join(steps)


@pytest.mark.parametrize("seed", range(8))
def test_two_ends_under_random_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(300):
        fuzz.run("tcp_pair", exchange(rng))
