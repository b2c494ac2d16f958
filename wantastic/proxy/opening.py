"""What the opening of every proxied connection shares: states, buffers, their limits."""

from __future__ import annotations

from enum import Enum, auto

from wantastic.proxy.credentials import Credentials

EARLY_BYTES = 64 * 1024


class State(Enum):
    """
    HEAD      bytes are parsed until a request is whole
    WAITING   a request was returned; the caller connects, then accepts or refuses;
              bytes that come meanwhile are kept, EARLY_BYTES at most
    OPEN      nothing is parsed any more; rest() gives what came early
    CLOSED    the last answer is in data_to_send(); close after sending it
    """

    HEAD = auto()
    WAITING = auto()
    OPEN = auto()
    CLOSED = auto()


class Opening:
    """One client connection until its bytes flow. With credentials, the client must log in."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials
        self._state = State.HEAD
        self._received = bytearray()
        self._to_send = bytearray()

    @property
    def state(self) -> State:
        return self._state

    def data_to_send(self) -> bytes:
        """Return what the client must be sent now, and forget it."""
        data = bytes(self._to_send)
        self._to_send.clear()
        return data

    def rest(self) -> bytes:
        """Return, once OPEN, what the client sent behind its request."""
        assert self._state is State.OPEN, self._state
        data = bytes(self._received)
        self._received.clear()
        return data

    def _keep(self, data: bytes) -> bool:
        """Take bytes in; return whether they are still to be parsed."""
        if self._state is State.CLOSED:
            return False
        self._received += data
        if self._state is State.HEAD:
            return True
        if len(self._received) > EARLY_BYTES:
            self._close()
        return False

    def _close(self) -> None:
        self._state = State.CLOSED
        self._received.clear()
