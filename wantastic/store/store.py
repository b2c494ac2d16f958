"""What the agent keeps on flash: its identity, the clock's floor, what worked last.

    identity        the private key that this device made for itself
    state           the TAI64N floor and the last good addresses of each name
    configuration   the last configuration that the control server gave
    record(name)    room for other rooms' values, such as a token

Each is a Record: written only when it changes, atomically, 0600. An identity that cannot be
used, as after a step back from a later version, is kept aside. A folder that we make is
0700; one that stands already is left as it is, and refused when others may write to it.
Nothing here raises because a disk is full or read-only unless the caller has to know:
save_state() reports through `trouble` and the agent goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from wantastic.config import keys
from wantastic.store.filesystem import Filesystem, RealFilesystem
from wantastic.store.record import Record, StoreError, anything

# Names whose addresses are remembered; the oldest go first.
MAX_NAMES = 64


@dataclass(frozen=True, slots=True)
class State:
    """What changes while the agent runs and must outlive a power cut."""

    timestamp_floor_unix_ns: int = 0
    last_good: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Store:
    """The state folder of one agent."""

    def __init__(
        self,
        folder: str | Path,
        disk: Filesystem | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.folder = Path(folder)
        self.notices: list[str] = []
        self.trouble: StoreError | None = None
        self._disk: Filesystem = disk or RealFilesystem()
        self._entropy = entropy
        self._records: dict[str, Record] = {}
        self._state: State | None = None

    @property
    def writes(self) -> int:
        """How often a value was written since the start."""
        return sum(record.writes for record in self._records.values())

    def record(self, name: str) -> Record:
        """Return the value of that name; the same object each time."""
        if name not in self._records:
            usable = USABLE.get(name, anything)
            self._records[name] = Record(self.folder, name, self._disk, self.notices.append, usable)
        return self._records[name]

    # -- identity --

    def identity(self) -> bytes | None:
        """Return this device's own private key, None when it has not made one."""
        payload = self.record("identity").read()
        key = private_key_in(payload) if payload is not None else None
        return keys.clamp(key) if key is not None else None

    def make_identity(self) -> bytes:
        """Return the private key, made now when there is none; StoreError when it cannot last.

        A key that is not on disk would be another one after the next boot, and the
        server would take this router for a stranger: hence the error.
        """
        key = self.identity()
        if key is None:
            key = keys.generate_private_key(self._entropy)
            self.save_identity(key)
        return key

    def save_identity(self, private_key: bytes) -> None:
        """Replace the identity, lastingly."""
        payload = json.dumps({"private_key": keys.encode_key(private_key)}).encode()
        record = self.record("identity")
        record.write(payload)
        record.keep_copy()

    # -- state --

    def state(self) -> State:
        """Return the saved state, an empty one when there is none."""
        if self._state is None:
            self._state = self._read_state()
        return self._state

    def _read_state(self) -> State:
        try:
            payload = self.record("state").read()
        except StoreError as error:
            self.trouble = error
            return State()
        return parse_state(payload) if payload else State()

    def save_state(self, state: State) -> bool:
        """Save what differs; False, with `trouble` set, when the disk refused."""
        self._state = state
        try:
            self.record("state").write(render_state(state))
        except StoreError as error:
            self.trouble = error
            return False
        self.trouble = None
        return True

    def raise_floor(self, unix_ns: int) -> bool:
        """Save a higher TAI64N floor; a lower one is none."""
        state = self.state()
        if unix_ns <= state.timestamp_floor_unix_ns:
            return True
        return self.save_state(replace(state, timestamp_floor_unix_ns=unix_ns))

    def remember_addresses(self, name: str, addresses: tuple[str, ...]) -> bool:
        """Keep what a name resolved to when a handshake succeeded there."""
        state = self.state()
        if not addresses or set(state.last_good.get(name, ())) == set(addresses):
            return True
        last_good = {n: a for n, a in state.last_good.items() if n != name}
        last_good[name] = addresses
        for old in list(last_good)[:-MAX_NAMES]:
            del last_good[old]
        return self.save_state(replace(state, last_good=last_good))


def private_key_in(payload: bytes) -> bytes | None:
    """Return the private key of an identity, None when it has none that can be read."""
    try:
        return keys.decode_key(json.loads(payload)["private_key"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def is_identity(payload: bytes) -> bool:
    """Return whether an identity can be used."""
    return private_key_in(payload) is not None


# What a value must be for its owner; of the others an older copy is as good as any.
USABLE: dict[str, Callable[[bytes], bool]] = {"identity": is_identity}


def render_state(state: State) -> bytes:
    """Return the state's JSON."""
    value = {
        "timestamp_floor_unix_ns": state.timestamp_floor_unix_ns,
        "last_good": {name: list(found) for name, found in state.last_good.items()},
    }
    return json.dumps(value).encode()


def parse_state(payload: bytes) -> State:
    """Return a state; what another version wrote and this one cannot use is left out."""
    try:
        value = json.loads(payload)
    except ValueError:
        return State()
    if not isinstance(value, dict):
        return State()
    floor, names = value.get("timestamp_floor_unix_ns"), value.get("last_good")
    last_good = {
        name: tuple(found)
        for name, found in (names if isinstance(names, dict) else {}).items()
        if isinstance(found, list) and all(isinstance(a, str) for a in found)
    }
    if type(floor) is not int or not 0 <= floor < 2**63:
        floor = 0
    return State(floor, last_good)
