"""The agent's life as a table: which state, on which event, goes where and what it does.

    NEW -> UNREGISTERED -> REGISTERING -> CONFIGURING -> RUNNING <-> DEGRADED -> STOPPED

Rules
  Every transition is in TRANSITIONS; a pair that is not there is a bug of the caller.
  Nothing here reads a clock, a file or a socket; the conductor does what `step` answers.
  Once a tunnel runs, no event but STOP ends it: a server that is away, a token that has
  expired and a device that was forgotten make the agent DEGRADED, with the tunnel kept.
  DEGRADED has no reasons of its own. They are the standing conditions (code, reason,
  remedy); FAULT is said when the first one comes and RECOVERED when the last one goes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    NEW = "new"
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    CONFIGURING = "configuring"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPED = "stopped"


class Event(Enum):
    STARTED_CONFIGURED = "started with a configuration (from the file or the cache)"
    STARTED_EMPTY = "started with nothing to run"
    REGISTERING = "asks the control server to register"
    REFUSED = "cannot register until an operator acts"
    REGISTERED = "the control server knows this device"
    CONFIGURED = "a configuration is to be run"
    FORGOTTEN = "the control server does not know this device any more"
    FAULT = "a condition stands"
    RECOVERED = "no condition stands any more"
    STOP = "told to end"


class Action(Enum):
    NOTHING = "nothing"
    START_TUNNEL = "bring the tunnel up"
    APPLY = "apply the difference"
    CLOSE = "take everything down"


class LifecycleError(Exception):
    """An event came in a state that has no transition for it."""


S, E, A = State, Event, Action

TRANSITIONS: Final[dict[tuple[State, Event], tuple[State, Action]]] = {
    (S.NEW, E.STARTED_CONFIGURED): (S.RUNNING, A.START_TUNNEL),
    (S.NEW, E.STARTED_EMPTY): (S.UNREGISTERED, A.START_TUNNEL),
    (S.NEW, E.STOP): (S.STOPPED, A.CLOSE),
    #
    (S.UNREGISTERED, E.REGISTERING): (S.REGISTERING, A.NOTHING),
    (S.UNREGISTERED, E.REFUSED): (S.UNREGISTERED, A.NOTHING),
    (S.UNREGISTERED, E.REGISTERED): (S.CONFIGURING, A.NOTHING),
    (S.UNREGISTERED, E.CONFIGURED): (S.RUNNING, A.APPLY),
    (S.UNREGISTERED, E.FAULT): (S.UNREGISTERED, A.NOTHING),
    (S.UNREGISTERED, E.RECOVERED): (S.UNREGISTERED, A.NOTHING),
    (S.UNREGISTERED, E.STOP): (S.STOPPED, A.CLOSE),
    #
    (S.REGISTERING, E.REGISTERING): (S.REGISTERING, A.NOTHING),
    (S.REGISTERING, E.REFUSED): (S.UNREGISTERED, A.NOTHING),
    (S.REGISTERING, E.REGISTERED): (S.CONFIGURING, A.NOTHING),
    (S.REGISTERING, E.CONFIGURED): (S.RUNNING, A.APPLY),
    (S.REGISTERING, E.FAULT): (S.REGISTERING, A.NOTHING),
    (S.REGISTERING, E.RECOVERED): (S.REGISTERING, A.NOTHING),
    (S.REGISTERING, E.STOP): (S.STOPPED, A.CLOSE),
    #
    (S.CONFIGURING, E.CONFIGURED): (S.RUNNING, A.APPLY),
    (S.CONFIGURING, E.REGISTERED): (S.CONFIGURING, A.NOTHING),
    (S.CONFIGURING, E.REGISTERING): (S.REGISTERING, A.NOTHING),
    (S.CONFIGURING, E.FORGOTTEN): (S.UNREGISTERED, A.NOTHING),
    (S.CONFIGURING, E.FAULT): (S.CONFIGURING, A.NOTHING),
    (S.CONFIGURING, E.RECOVERED): (S.CONFIGURING, A.NOTHING),
    (S.CONFIGURING, E.STOP): (S.STOPPED, A.CLOSE),
    #
    (S.RUNNING, E.CONFIGURED): (S.RUNNING, A.APPLY),
    (S.RUNNING, E.REGISTERING): (S.RUNNING, A.NOTHING),
    (S.RUNNING, E.REGISTERED): (S.RUNNING, A.NOTHING),
    (S.RUNNING, E.REFUSED): (S.DEGRADED, A.NOTHING),
    (S.RUNNING, E.FORGOTTEN): (S.DEGRADED, A.NOTHING),
    (S.RUNNING, E.FAULT): (S.DEGRADED, A.NOTHING),
    (S.RUNNING, E.RECOVERED): (S.RUNNING, A.NOTHING),
    (S.RUNNING, E.STOP): (S.STOPPED, A.CLOSE),
    #
    (S.DEGRADED, E.CONFIGURED): (S.DEGRADED, A.APPLY),
    (S.DEGRADED, E.REGISTERING): (S.DEGRADED, A.NOTHING),
    (S.DEGRADED, E.REGISTERED): (S.DEGRADED, A.NOTHING),
    (S.DEGRADED, E.REFUSED): (S.DEGRADED, A.NOTHING),
    (S.DEGRADED, E.FORGOTTEN): (S.DEGRADED, A.NOTHING),
    (S.DEGRADED, E.FAULT): (S.DEGRADED, A.NOTHING),
    (S.DEGRADED, E.RECOVERED): (S.RUNNING, A.NOTHING),
    (S.DEGRADED, E.STOP): (S.STOPPED, A.CLOSE),
}

HAS_TUNNEL: Final = frozenset({S.RUNNING, S.DEGRADED})

EXPLAINED: Final[dict[State, tuple[str, str]]] = {
    S.NEW: ("the agent is starting", ""),
    S.UNREGISTERED: (
        "the control server does not know this device",
        "Pass an enrolment token with -token-file, or sign in with -auth-url.",
    ),
    S.REGISTERING: ("the device is registering with the control server", ""),
    S.CONFIGURING: ("the device is registered and waits for its configuration", ""),
    S.RUNNING: ("everything is as it should be", ""),
    S.DEGRADED: ("the tunnel is kept; the conditions say what is wrong", ""),
    S.STOPPED: ("the agent has ended", ""),
}
"""Reason and remedy of each state, for status; conditions say more."""


def step(state: State, event: Event) -> tuple[State, Action]:
    """Return the next state and what to do. LifecycleError."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LifecycleError(f"{event.name} cannot happen in {state.name}") from None
