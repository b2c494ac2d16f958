"""The uplink: what it tells the conductor when the control plane does not do as it should."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from wantastic.agent.uplink import Enrolment, Outside, Uplink
from wantastic.config.model import Config, HostPort
from wantastic.control.errors import ControlError, RemoteError
from wantastic.store.store import Store
from wantastic.telemetry.log import Log


class Told:
    """A conductor that remembers what it was told of a key."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def key_registered(self) -> None:
        self.answers.append("registered")

    def key_refused(self, error: ControlError) -> None:
        self.answers.append(error.code)


class Plane:
    """A control plane whose next call fails as given."""

    is_registered = True

    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure

    async def register_key(self, current: bytes, coming: bytes) -> None:
        if self.failure:
            raise self.failure


ROWS: list[tuple[BaseException | None, str]] = [
    (None, "registered"),
    (RemoteError("rate_limited", "later"), "rate_limited"),
    # Nobody foresaw these; a rotation that gets no answer would never end.
    (RuntimeError("secret"), "server_failed"),
    (OSError(5, "x"), "server_failed"),
]


@pytest.mark.parametrize(("failure", "answer"), ROWS)
def test_every_announced_key_is_answered(
    failure: BaseException | None, answer: str, tmp_path: Path
) -> None:
    told: Any = Told()

    async def main() -> None:
        uplink = Uplink(
            Config(),
            Enrolment(HostPort("control.test", 443)),
            told,
            Store(tmp_path),
            Log(sink=lambda level, line: None),
            held=None,
            random=random.Random(1).random,
            unix=lambda: 0.0,
            clock_floor_unix_s=0.0,
            outside=Outside(),
        )
        # Before there is a control plane, and then with one.
        uplink.register_key(b"a" * 32, b"b" * 32)
        await asyncio.sleep(0)
        uplink._plane = Plane(failure)  # type: ignore[assignment]
        uplink.register_key(b"a" * 32, b"b" * 32)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert told.answers == ["no_token", answer]
