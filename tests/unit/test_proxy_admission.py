"""Which openings give way: a table of moments, and a property against what must always hold."""

from __future__ import annotations

import random

import pytest

from wantastic.proxy.admission import MAX_OPENING, SHARE, Admission, Place, source_of


class Crowd:
    """A table, and who was ended."""

    def __init__(self, size: int = MAX_OPENING, share: int = SHARE) -> None:
        self.table = Admission(size, share)
        self.ended: list[int] = []
        self.count = 0

    def enter(self, address: str) -> tuple[int, Place | None]:
        number = self.count
        self.count += 1
        return number, self.table.enter(address, lambda: self.ended.append(number))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "this host"),
        ("127.9.9.9", "this host"),
        ("::1", "this host"),
        ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_sources(address: str, source: str) -> None:
    assert source_of(address) == source


def test_silent_ones_of_one_source_lock_nobody_out() -> None:
    crowd = Crowd()
    for _ in range(10 * MAX_OPENING):
        assert crowd.enter("192.0.2.1")[1] is not None
    assert len(crowd.table) == SHARE
    assert crowd.ended == list(range(10 * MAX_OPENING - SHARE))
    assert crowd.enter("192.0.2.2")[1] is not None
    assert len(crowd.table) == SHARE + 1


def test_silent_ones_of_many_sources_lock_nobody_out() -> None:
    crowd = Crowd()
    for number in range(MAX_OPENING):
        assert crowd.enter(f"10.0.{number // 200}.{number % 200}")[1] is not None
    assert crowd.ended == []
    number, place = crowd.enter("192.0.2.2")
    assert place is not None
    assert crowd.ended == [0]
    assert number == MAX_OPENING


def test_requests_that_are_carried_out_are_not_ended() -> None:
    crowd = Crowd()
    for _ in range(SHARE):
        _, place = crowd.enter("192.0.2.1")
        assert place is not None
        place.asked()
    assert crowd.enter("192.0.2.1")[1] is None
    assert crowd.enter("192.0.2.2")[1] is not None
    assert crowd.ended == []


def test_clients_of_this_host_may_have_it_all() -> None:
    crowd = Crowd()
    for _ in range(MAX_OPENING):
        _, place = crowd.enter("127.0.0.1")
        assert place is not None
        place.asked()
    assert crowd.enter("::1")[1] is None
    assert crowd.ended == []


@pytest.mark.parametrize("seed", range(20))
def test_properties(seed: int) -> None:
    rng = random.Random(seed)
    crowd = Crowd(size=8, share=3)
    inside: dict[int, tuple[str, Place]] = {}
    for _ in range(2000):
        what = rng.random()
        if what < 0.6:
            address = f"192.0.2.{rng.randrange(5)}"
            before, ended = dict(inside), len(crowd.ended)
            number, place = crowd.enter(address)
            for gone in crowd.ended[ended:]:
                assert before[gone][1].asks
                older = [n for n, (a, p) in before.items() if p.asks and n < gone]
                # Nobody who asks for longer stays, but those of other sources.
                assert all(before[n][0] != before[gone][0] for n in older)
                del inside[gone]
            if place is None:
                full = [p for a, p in before.values() if a == address or len(before) == 8]
                assert full
                assert not any(p.asks for a, p in before.values() if a == address)
            else:
                inside[number] = (address, place)
        elif inside:
            number = rng.choice(list(inside))
            if what < 0.8:
                inside[number][1].asked()
            else:
                crowd.table.leave(inside.pop(number)[1])
        assert len(crowd.table) == len(inside) <= 8
        for address in {a for a, _ in inside.values()}:
            assert sum(a == address for a, _ in inside.values()) <= 3
