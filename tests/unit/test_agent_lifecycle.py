"""The lifecycle's table: complete where it must be, and never ending a running tunnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.agent.lifecycle import (
    EXPLAINED,
    HAS_TUNNEL,
    TRANSITIONS,
    Action,
    Event,
    LifecycleError,
    State,
    step,
)


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_every_path_stays_in_the_table(events: list[Event]) -> None:
    state = State.NEW
    for event in events:
        if (state, event) in TRANSITIONS:
            after, action = step(state, event)
            if state in HAS_TUNNEL:
                assert (after in HAS_TUNNEL) == (event is not Event.STOP)
            assert (action is Action.CLOSE) == (after is State.STOPPED)
            state = after
        else:
            with pytest.raises(LifecycleError):
                step(state, event)


def test_stop_is_possible_everywhere_but_in_stopped() -> None:
    assert {s for s in State if (s, Event.STOP) not in TRANSITIONS} == {State.STOPPED}


def test_conditions_and_registration_may_come_in_every_state_that_lives() -> None:
    living = set(State) - {State.NEW, State.STOPPED}
    for event in (Event.FAULT, Event.RECOVERED, Event.REGISTERING, Event.REGISTERED):
        missing = {s for s in living if (s, event) not in TRANSITIONS}
        assert not missing, event


def test_every_state_is_reached_and_explained() -> None:
    reached = {State.NEW} | {state for state, _ in TRANSITIONS.values()}
    assert reached == set(State) == set(EXPLAINED)
    assert all(reason for reason, _ in EXPLAINED.values())
    assert EXPLAINED[State.UNREGISTERED][1]


def test_the_usual_life() -> None:
    state = State.NEW
    for event, expected in [
        (Event.STARTED_EMPTY, State.UNREGISTERED),
        (Event.REGISTERING, State.REGISTERING),
        (Event.REGISTERED, State.CONFIGURING),
        (Event.CONFIGURED, State.RUNNING),
        (Event.FAULT, State.DEGRADED),
        (Event.CONFIGURED, State.DEGRADED),
        (Event.RECOVERED, State.RUNNING),
        (Event.FORGOTTEN, State.DEGRADED),
        (Event.STOP, State.STOPPED),
    ]:
        state, _ = step(state, event)
        assert state is expected
