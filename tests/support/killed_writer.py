"""Writers of the agent's own records that are killed at random moments, and what they leave.

    python -m tests.support.killed_writer FOLDER ROUNDS SEED  -> a line of JSON

A small process of its own, so that a fork costs a millisecond and not a test runner's size.
Each round forks a writer that goes on from what is on disk: it writes the records in turn
through the agent's own functions and says each number once the write was acknowledged. It is
killed by SIGKILL; what is on disk then has to be whole, and not older than what was said.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wantastic.agent.runner import IdentityRecord
from wantastic.control.configuration import Received
from wantastic.control.credentials import Credentials
from wantastic.control.rotation import Journal
from wantastic.control.token import Terms
from wantastic.store.store import Store

SAID = 5
LONGEST_S = 0.012


def key(number: int) -> bytes:
    return number.to_bytes(8, "big") * 4


def write_identity(store: Store, number: int) -> None:
    # A rotation under way: both keys are in the record.
    coming = key(number + 1) if number % 3 else None
    IdentityRecord(store.record("identity")).write(Journal(key(number), coming, number).render())


def read_identity(store: Store) -> int | None:
    data = store.record("identity").read()
    if data is None:
        return None
    journal = Journal.parse(data)
    assert journal is not None, "the identity cannot be read"
    assert journal.current == key(journal.since_unix_s), "the key is another one"
    return journal.since_unix_s


def write_credentials(store: Store, number: int) -> None:
    token = f"token-{number}-" + "x" * 700
    terms = Terms(86400 + number, 0)
    store.record("credentials").write(Credentials("s:1", "d-1", "", token, terms).render())


def read_credentials(store: Store) -> int | None:
    data = store.record("credentials").read()
    if data is None:
        return None
    found = Credentials.parse(data)
    assert found is not None, "the credentials cannot be read"
    number = found.terms.lifetime_s - 86400
    assert found.token == f"token-{number}-" + "x" * 700, "the token is another one"
    return number


def write_configuration(store: Store, number: int) -> None:
    statement = {"addresses": ["10.0.0.2/32"], "peers": [{"name": str(number)}] * 60}
    store.record("configuration").write(Received(f"v{number}", number, statement, 1).render())


def read_configuration(store: Store) -> int | None:
    data = store.record("configuration").read()
    if data is None:
        return None
    found = Received.parse(data)
    assert found is not None, "the configuration cannot be read"
    assert found.statement["peers"][-1] == {"name": str(found.version)}, "the peers are others"
    return found.version


def write_state(store: Store, number: int) -> None:
    assert store.raise_floor(number)


def read_state(store: Store) -> int | None:
    return store.state().timestamp_floor_unix_ns or None


@dataclass(frozen=True)
class Kind:
    """A record, how the agent writes it, and the number in what it reads."""

    write: Callable[[Store, int], None]
    read: Callable[[Store], int | None]


KINDS = (
    Kind(write_identity, read_identity),
    Kind(write_credentials, read_credentials),
    Kind(write_configuration, read_configuration),
    Kind(write_state, read_state),
)


def write_on(folder: Path, pipe: int, first: int) -> None:
    """Write for ever; say (kind, number) for each write that was acknowledged."""
    store = Store(folder)
    number = first
    while True:
        kind = number % len(KINDS)
        KINDS[kind].write(store, number)
        os.write(pipe, bytes((kind,)) + number.to_bytes(SAID - 1, "big"))
        number += 1


def kill_one(folder: Path, first: int, after_s: float) -> dict[int, int]:
    """Let a writer write and kill it; return the last number said of each kind."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            write_on(folder, writer, first)
        finally:
            os._exit(1)
    os.close(writer)
    said: dict[int, int] = {}

    def take(data: bytes) -> None:
        for at in range(0, len(data) - SAID + 1, SAID):
            said[data[at]] = int.from_bytes(data[at + 1 : at + SAID], "big")

    take(os.read(reader, SAID))
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
    while data := os.read(reader, SAID * 4096):
        take(data)
    os.close(reader)
    return said


def run(folder: Path, rounds: int, seed: int) -> dict[str, float]:
    """Kill writers; AssertionError for what is lost or damaged."""
    rng = random.Random(seed)
    # A write takes from microseconds to milliseconds, by disk: kill within one or a few.
    last: dict[int, int] = {}
    number, acknowledged, unsaid, halfway = 1, 0, 0, 0
    began = time.monotonic()
    for _ in range(rounds):
        said = kill_one(folder, number, rng.random() ** 3 * LONGEST_S)
        acknowledged += max(said.values(), default=number - 1) - number + 1
        halfway += any(folder.glob("*.new"))
        highest = max([number - 1, *said.values()])
        store = Store(folder)
        for kind, record in enumerate(KINDS):
            found = record.read(store)
            least = max(last.get(kind, 0), said.get(kind, 0))
            # The one that was under way may have come through, and no other.
            allowed = {least, highest + 1 if (highest + 1) % len(KINDS) == kind else least}
            assert (found or 0) in allowed, f"{record.read.__name__}: {found}, not {allowed}"
            unsaid += (found or 0) > least
            last[kind] = found or 0
        assert store.notices == [], store.notices
        number = max(number, *last.values()) + 1
    return {
        "rounds": rounds,
        "acknowledged": acknowledged,
        "came through unsaid": unsaid,
        "cut half way": halfway,
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
