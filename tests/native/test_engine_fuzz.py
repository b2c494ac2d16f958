"""The fuzz targets of engine and wire on their corpus and on repeatable random input."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cext.engine import fuzz as engine
from cext.wire import fuzz as wire
from tests.support import packets
from tests.support.packets import Segment

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
TARGETS = [
    ("engine", "gso", engine.run),
    ("engine", "gro", engine.run),
    ("engine", "body", engine.run),
    ("wire", "ip", wire.run),
]
RELAY = ("engine", "relay", engine.run)


@pytest.mark.parametrize(("room", "name", "run"), [*TARGETS, RELAY])
def test_corpus(room: str, name: str, run: Callable[[str, bytes], int]) -> None:
    seeds = sorted((CORPUS / f"{room}_{name}").iterdir())
    assert seeds
    for seed in seeds:
        assert run(name, seed.read_bytes()) == 0


@pytest.mark.parametrize(("room", "name", "run"), TARGETS)
def test_arbitrary_bytes(room: str, name: str, run: Callable[[str, bytes], int]) -> None:
    rng = random.Random(f"{room} {name}")
    for _ in range(3000):
        assert run(name, rng.randbytes(rng.randrange(600))) == 0


def test_flows_that_join() -> None:
    """Steps that follow on, so that most of them end up in groups."""
    rng = random.Random(7)
    for _ in range(2000):
        kind, fields = rng.randrange(16), rng.choice([0, 4, 8])
        steps = bytearray()
        for i in range(rng.randrange(2, 60)):
            noise = rng.random() < 0.1
            steps += bytes([kind | (0x30 if noise else 0), fields, i % 256, 0x40])
        assert engine.run("gro", bytes(steps)) == 0


def test_bodies_that_are_nearly_right() -> None:
    rng = random.Random(11)
    pieces = [b"0", b"1", b"A", b";", b"x", b" ", b"\r\n", b"\r\n", b"\r", b"\n", b"2\r\nab\r\n"]
    for _ in range(20_000):
        body = b"".join(rng.choices(pieces, k=rng.randrange(12)))
        end = rng.choice([b"", b"0\r\n\r\n", b"\r\n0\r\n\r\nGET"])
        assert engine.run("body", b"\1" + rng.randbytes(1) + body + end) == 0


def test_headers_cut_short() -> None:
    for segment in (Segment(payload=bytes(99)), Segment(protocol=packets.UDP, payload=b"x" * 9)):
        packet, header = segment.unfinished(10)
        raw = b"\0" + b"".join([bytes(header[:2]), *(v.to_bytes(2, "little") for v in header[2:])])
        for end in range(len(packet)):
            assert engine.run("gso", raw + packet[:end]) == 0


def test_relays_whatever_happens() -> None:
    """Steps of which most connect, carry and let time pass, so that streams get somewhere."""
    rng = random.Random(11)
    usual = [11, 2, 2, 2, 2, 12, 13, 5, 6, 5, 7, 8, 0, 1, 4, 3, 14, 15, 9]
    for _ in range(400):
        steps = bytearray(rng.randbytes(4))
        for _ in range(rng.randrange(1, 200)):
            what = rng.choice(usual) if rng.random() < 0.9 else rng.randrange(16)
            steps += bytes([what | rng.randrange(16) << 4, *rng.randbytes(3)])
        assert engine.run("relay", bytes(steps)) == 0


def test_no_such_target() -> None:
    for run in (engine.run, wire.run):
        with pytest.raises(KeyError):
            run("nothing", b"")
