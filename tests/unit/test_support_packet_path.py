"""The impairment that interop tests and benchmarks rely on, in virtual time, and its relay."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import asdict
from itertools import pairwise

import pytest

from tests.support.packet_path import Impairment, Path
from tests.support.tree import ROOT

MS = 1_000_000
COUNT = 20_000


def packets() -> list[bytes]:
    return [number.to_bytes(4, "big") + bytes(96) for number in range(COUNT)]


def through(path: Path, seed: int = 1, every_ns: int = 100_000) -> list[bytes]:
    """Return what comes out when a packet goes in every so often."""
    impairment, out = Impairment(path, seed), []
    for index, packet in enumerate(packets()):
        impairment.put(packet, index * every_ns)
        out += impairment.take(index * every_ns)
    while (at := impairment.next_at()) is not None:
        out += impairment.take(at)
    return out


def test_a_good_path_changes_nothing() -> None:
    assert through(Path()) == through(Path(delay_ms=50)) == packets()


def test_the_same_seed_does_the_same() -> None:
    path = Path(delay_ms=3, loss=0.1, reorder=0.1, duplicate=0.1)
    assert through(path, 7) == through(path, 7)
    assert through(path, 7) != through(path, 8)


def test_what_one_packet_meets_does_not_move_the_others() -> None:
    kept = set(through(Path(loss=0.1)))
    assert set(through(Path(loss=0.1, reorder=0.5, duplicate=0.5))) == kept


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_shares(share: float) -> None:
    assert 1 - len(through(Path(loss=share))) / COUNT == pytest.approx(share, rel=0.2)
    assert len(through(Path(duplicate=share))) / COUNT - 1 == pytest.approx(share, rel=0.2)
    late = through(Path(reorder=share, late_ms=5))
    assert sorted(late) == packets()
    overtaken = sum(a > b for a, b in pairwise(late))
    assert overtaken >= share * COUNT / 3


def test_the_rate_and_its_queue() -> None:
    impairment = Impairment(Path(rate_bytes_s=1e6, queue_bytes=50_000, delay_ms=10), 1)
    for packet in packets()[:2000]:
        impairment.put(packet, 0)
    assert impairment.overflown == 2000 - 501
    # 100 bytes each: one every 0.1 ms, behind the delay.
    assert len(impairment.take(10 * MS)) == 0
    assert len(impairment.take(15 * MS)) == 50
    assert len(impairment.take(10_000 * MS)) == 451


def test_a_new_path_counts_from_zero_and_keeps_what_is_on_its_way() -> None:
    impairment = Impairment(Path(delay_ms=1), 1)
    impairment.put(b"early", 0)
    impairment.put(b"late", MS)
    assert impairment.take(MS) == [b"early"]
    assert impairment.become(Path(loss=1.0), 3) == (1, 0, 0)
    impairment.put(b"lost", MS)
    assert impairment.take(2 * MS) == [b"late"]
    assert impairment.become(Path(), 3) == (1, 1, 0)
    assert impairment.become(Path(), 3) == (0, 0, 0)


def test_the_relay_carries_both_ways_and_counts() -> None:
    """Real sockets, so only what does not depend on time: a whole path, then none."""
    far, near = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    far.bind(("127.0.0.1", 0))
    program = [sys.executable, "-m", "tests.support.packet_path", *map(str, far.getsockname())]
    whole, nothing = [[1, asdict(Path(delay_ms=1))]], [[1, asdict(Path(loss=1.0))]]
    with (
        far,
        near,
        subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process,
    ):
        assert process.stdin
        assert process.stdout

        def become(paths: list[list[object]]) -> list[object]:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(paths) + "\n")
            process.stdin.flush()
            answer: list[object] = json.loads(process.stdout.readline())
            return answer

        (port,) = become(whole)
        for one in (far, near):
            one.settimeout(20)
        near.sendto(b"question", ("127.0.0.1", int(str(port))))
        data, back = far.recvfrom(100)
        assert data == b"question"
        far.sendto(b"answer", back)
        assert near.recv(100) == b"answer"
        assert become(nothing) == [[[1, 0, 0], [1, 0, 0]]]
        near.sendto(b"lost", ("127.0.0.1", int(str(port))))
        far.sendto(b"lost", back)
        lost = [0, 0]
        while lost != [1, 1]:
            ((there, away),) = become(nothing)
            assert isinstance(there, list)
            assert isinstance(away, list)
            lost = [lost[0] + there[1], lost[1] + away[1]]
            assert there[0] == away[0] == 0
        process.stdin.close()
        assert process.wait(20) == 0
