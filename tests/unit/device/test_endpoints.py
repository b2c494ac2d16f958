"""Endpoint keepers in virtual time: a table of lives, and for ever."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.config.model import HostPort
from wantastic.device.endpoints import (
    RESOLVE_MAX_NS,
    RESOLVE_MIN_NS,
    SECOND_NS,
    EndpointKeeper,
    Step,
)

NAME = HostPort("wg.example", 51820)
A, B, C = "192.0.2.1", "2001:db8::2", "192.0.2.3"


def test_an_address_is_told_once_and_never_looked_up() -> None:
    keeper = EndpointKeeper(HostPort(A, 1))
    assert keeper.start(0) == Step(address=A)
    for attempts in range(20):
        assert keeper.attempts(attempts, attempts * SECOND_NS) == Step()


# (what happens, what follows), each a second after the one before
LIFE: list[tuple[tuple[str, object], Step]] = [
    (("resolved", (A, B)), Step(A)),
    (("attempts", 0), Step()),
    (("attempts", 1), Step()),
    (("attempts", 2), Step(B)),
    (("attempts", 3), Step()),
    (("attempts", 4), Step(A, resolve=True)),
    (("attempts", 6), Step(B)),
    (("resolved", (B, C)), Step()),
    (("attempts", 8), Step(C)),
    (("attempts", 0), Step()),
    (("attempts", 2), Step(B)),
    (("attempts", 1), Step()),
    (("attempts", 3), Step(C, resolve=True)),
    (("resolved", ()), Step()),
    (("attempts", 0), Step()),
]


def test_a_life() -> None:
    keeper, now = EndpointKeeper(NAME), 0
    assert keeper.start(now) == Step(resolve=True)
    for number, ((what, value), expected) in enumerate(LIFE):
        now += 4 * SECOND_NS
        found = keeper.resolved(value, now) if what == "resolved" else keeper.attempts(value, now)
        assert found == expected, number


def test_a_name_that_does_not_resolve_is_asked_for_again_and_again() -> None:
    keeper, asked = EndpointKeeper(NAME), []
    keeper.start(0)
    keeper.resolved((), 0)
    for second in range(0, 3600, 5):
        if keeper.attempts(0, second * SECOND_NS).resolve:
            asked.append(second)
            keeper.resolved((), second * SECOND_NS)
    pauses = [b - a for a, b in pairwise(asked)]
    assert pauses[:4] == [10, 20, 40, 60]
    assert set(pauses[4:]) == {60}


@given(st.lists(st.integers(0, 20) | st.lists(st.sampled_from([A, B, C])), max_size=60))
def test_every_candidate_is_tried_and_lookups_are_rare(steps: list[int | list[str]]) -> None:
    keeper, lookups = EndpointKeeper(NAME), []
    keeper.start(0)
    for number, step in enumerate(steps):
        now = number * SECOND_NS
        found = (
            keeper.attempts(step, now)
            if isinstance(step, int)
            else keeper.resolved(tuple(step), now)
        )
        if found.resolve:
            lookups.append(now)
        assert found.address is None or found.address in keeper.candidates
        assert keeper.current is None or keeper.current in keeper.candidates
    gaps = [b - a for a, b in pairwise(lookups)]
    assert all(gap >= RESOLVE_MIN_NS for gap in gaps)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_dead_peer_is_tried_at_every_address_for_ever(count: int) -> None:
    """A day without an answer, in virtual time."""
    addresses = tuple(f"192.0.2.{n}" for n in range(count))
    keeper, told, lookups = EndpointKeeper(NAME), [], 0
    keeper.start(0)
    keeper.resolved(addresses, 0)
    for tick in range(24 * 3600 // 5):
        step = keeper.attempts(1 + tick % 18, tick * 5 * SECOND_NS)
        if step.address:
            told.append(step.address)
        if step.resolve:
            lookups += 1
            keeper.resolved(addresses, tick * 5 * SECOND_NS)
    assert lookups > 24 * 3600 * SECOND_NS // RESOLVE_MAX_NS // 6
    if count > 1:
        assert set(told[-count:]) == set(addresses)
