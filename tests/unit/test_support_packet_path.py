"""The impairment that interop tests rely on: its shares, its order, its seed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.packet_path import Impairment, Path

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
