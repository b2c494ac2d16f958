"""SIGKILL and power cuts while the agent's own records are written: nothing torn, nothing lost.

The writers are the real ones: the conductor writes configuration and identity, the control
plane the credentials. Power cuts are simulated on a disk that gives every content it may
have after each of its operations; kills are real, of a process that writes to a real disk.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.support.disks import CutDisk, after_cut
from tests.support.fake_control import FakeServer, Harness
from tests.support.virtual_time import run_virtual
from tests.unit.test_agent_conductor import (
    GATEWAYS,
    HOUR,
    OWN,
    World,
    ordered,
    received,
    stated,
)
from wantastic.agent.conductor import Flash
from wantastic.agent.runner import IdentityRecord
from wantastic.config.keys import public_key_of
from wantastic.config.model import AuthConfig, Config, PeerConfig
from wantastic.control.configuration import Received
from wantastic.control.credentials import Credentials
from wantastic.control.rotation import Journal
from wantastic.store.store import Store

KILLS = 1000
DAY = 86400.0


@dataclass
class Written:
    """One write: which moments of the disk it took, and what it left."""

    began: int
    ended: int
    before: bytes | None
    after: bytes


@dataclass
class Watched:
    """A record that notes when each of its writes began and was acknowledged."""

    disk: CutDisk
    inner: object
    read_raw: Callable[[], bytes | None]
    writes: list[Written] = field(default_factory=list)

    def read(self) -> bytes | None:
        return self.read_raw()

    def write(self, payload: bytes) -> bool:
        before, began = self.read_raw(), len(self.disk.moments)
        changed: bool = self.inner.write(payload)  # type: ignore[attr-defined]
        if changed:
            self.writes.append(Written(began, len(self.disk.moments), before, payload))
        return changed

    def remove(self) -> None:
        raise AssertionError("the agent removes nothing")

    def allowed(self, moment: int) -> set[bytes | None]:
        """Return what may be read after a cut right after an operation of the disk."""
        value: bytes | None = self.writes[0].before if self.writes else None
        for write in self.writes:
            if moment < write.began:
                break
            if moment < write.ended - 1:
                return {write.before, write.after}
            value = write.after
        return {value}


class Life:
    """A device whose three records lie on a disk that loses power at every moment."""

    def __init__(self) -> None:
        self.disk = CutDisk()
        self.store = Store("/s", self.disk, random.Random(3).randbytes)
        self.watched: dict[str, Watched] = {}

    def watch(self, name: str) -> Watched:
        record = self.store.record(name)
        inner = IdentityRecord(record) if name == "identity" else record

        def read() -> bytes | None:
            # Another reader: the record itself keeps what it knows.
            return Store("/s", self.disk).record(name).read()

        self.watched[name] = Watched(self.disk, inner, read)
        return self.watched[name]

    def flash(self) -> Flash:
        """Return the conductor's records, with an identity that was made before."""
        flash = Flash(self.watch("configuration"), self.watch("identity"))
        flash.identity.write(Journal(OWN).render())
        return flash

    def check(self, judge: Callable[[int, Store], None] = lambda moment, store: None) -> int:
        """Boot from every content after every operation; return how many there were."""
        boots = 0
        for moment, possible in enumerate(self.disk.moments):
            allowed = {name: watched.allowed(moment) for name, watched in self.watched.items()}
            for contents in possible:
                boots += 1
                store = Store("/s", after_cut(contents))
                for name in self.watched:
                    assert store.record(name).read() in allowed[name], (moment, name)
                judge(moment, store)
        return boots


def test_a_token_is_never_lost_once_the_device_may_rely_on_it() -> None:
    """Enrolment, days of refreshing with a certificate, forgotten and enrolled again."""

    async def main() -> Life:
        life = Life()
        server = FakeServer({"reusable": None}, sign=lambda request: [])
        record = life.watch("credentials")
        device = Harness.make(server, token="reusable", record=record)  # type: ignore[arg-type]
        task = asyncio.ensure_future(device.run_for(4 * DAY))
        await asyncio.sleep(2 * DAY)
        server.forget()
        await task
        # Whatever was acknowledged last is what the plane works with.
        assert Credentials.parse(record.read_raw() or b"") == device.plane.credentials
        return life

    life = run_virtual(main())
    assert len(life.watched["credentials"].writes) > 5
    names = set()

    def judge(moment: int, store: Store) -> None:
        data = store.record("credentials").read()
        found = Credentials.parse(data) if data else None
        if data:
            assert found is not None
            names.add(found.device_id)

    assert life.check(judge) > 200
    assert len(names) == 1, "the device forgot its name over a power cut"


def test_a_configuration_that_worked_is_there_after_every_cut() -> None:
    life = Life()
    flash = life.flash()
    world = World(flash=flash).enrol(received(1, stated()))
    world.run_for(10)
    for version in range(2, 9):
        world.conductor.configuration(received(version, stated(version % 3)))
        # Every third one cuts the tunnel, and is taken back.
        world.tunnel.answering_keys = {b"nobody"} if version % 3 == 0 else set()
        world.run_for(60)
        world.tunnel.answering_keys = set()
        world.run_for(60)
    proved = {1, 2, 4, 5, 7, 8}
    versions = set()

    def judge(moment: int, store: Store) -> None:
        data = store.record("configuration").read()
        if data is None:
            assert moment <= life.watched["configuration"].writes[0].ended
            return
        found = Received.parse(data)
        assert found is not None
        versions.add(found.version)

    assert life.check(judge) > 50
    assert versions == proved, "one that was taken back is what a boot starts with"


def test_a_static_key_that_the_server_knows_is_there_after_every_cut() -> None:
    """Two rotations that work and two that do not, with the server's view of every moment."""
    life = Life()
    flash = life.flash()
    world = World(flash=flash).enrol(received(1, stated()))
    world.run_for(10)
    # (moment, the private keys of which the server takes at least one from then on)
    takes: list[tuple[int, set[bytes]]] = [(0, {OWN})]
    for number, works in enumerate((True, False, True, False), 2):
        old = world.conductor.public_key
        world.conductor.configuration(received(number, ordered(world)))
        began_s = world.now_s
        while len(world.server.keys) < number - 1:
            world.run_for(10)
            # At once, or an hour or so after one that failed.
            assert world.now_s < began_s + 2 * HOUR
        current, coming = world.server.keys[-1]
        assert current == old
        journal = Journal.parse(life.watched["identity"].read_raw() or b"")
        assert journal is not None
        assert journal.coming is not None
        assert public_key_of(journal.coming) == coming
        # From here the server may take either, and once it has seen one, only that.
        keeps = journal.coming if works else journal.current
        world.tunnel.answering_keys = {keeps}
        takes.append((len(life.disk.moments), {keeps}))
        world.conductor.key_registered()
        world.run_for(200)
        assert world.conductor.public_key == public_key_of(keeps)
        world.tunnel.answering_keys = set()
    # Once made, and twice a rotation: with both keys, with the one that stays.
    assert len(life.watched["identity"].writes) == 9

    def judge(moment: int, store: Store) -> None:
        journal = Journal.parse(store.record("identity").read() or b"")
        if journal is None:
            assert moment < life.watched["identity"].writes[0].ended
            return
        needed = next(keys for began, keys in reversed(takes) if began <= moment)
        assert needed & {journal.current, journal.coming}, f"no usable key after {moment}"

    assert life.check(judge) > 100


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("proved", [True, False])
def test_after_every_cut_of_a_rotation_the_tunnel_comes_back(scheduled: bool, proved: bool) -> None:
    """The boot itself: the conductor starts from what is left and finds the key that works."""
    life = Life()
    flash = life.flash()
    began = len(life.disk.moments)
    late = 1_800_000_000 - round(2 * DAY)
    config = Config(auth=AuthConfig(key_rotation_ns=round(DAY) * 10**9 if scheduled else 0))
    world = World(config, journal=Journal(OWN, None, late), flash=flash)
    world.enrol(received(1, stated()))
    world.run_for(10)
    if not scheduled:
        world.conductor.configuration(received(2, ordered(world)))
    while not world.server.keys:
        world.run_for(1)
        assert world.now_s < 2 * HOUR, "no rotation began"
    announced = len(life.disk.moments)
    if not proved:
        world.tunnel.answering_keys = {OWN}
    world.conductor.key_registered()
    world.run_for(100)
    new = next(key for key in reversed(world.tunnel.keys) if key != OWN)
    assert world.tunnel.keys[-1] == (new if proved else OWN)
    assert [r.code for r in world.server.reports if r.code] == (
        [] if proved else 2 * ["no_handshake"]
    )
    booted = 0
    for moment, possible in enumerate(life.disk.moments[began:], began):
        # The server knows the new key once it was announced, and may have dropped the old one.
        may_be_new = proved and moment >= announced - 1
        for works in ({OWN}, {new}) if may_be_new else ({OWN},):
            for contents in {frozenset(c.items()): c for c in possible}.values():
                left = Store("/s", after_cut(contents))
                journal = Journal.parse(left.record("identity").read() or b"")
                assert journal is not None
                if moment >= announced and journal.coming is None and journal.current not in works:
                    assert proved
                    continue  # Proved: the server saw the new key, and keeps that one.
                cached = Received.parse(left.record("configuration").read() or b"")
                file = replace(config, server=PeerConfig(GATEWAYS[0]))
                again = World(file, cached=cached, journal=journal)
                again.tunnel.answering_keys = works
                again.tunnel.asked = True
                again.run_for(200)
                assert again.tunnel.last_s is not None, moment
                assert {again.tunnel.keys[-1]} == works, moment
                booted += 1
    assert booted > 20


def test_a_thousand_kills_tear_nothing_and_lose_nothing_acknowledged(tmp_path: Path) -> None:
    """Of identity, credentials, configuration and state, each written by its own writer."""
    command = [sys.executable, "-m", "tests.support.killed_writer"]
    done = subprocess.run(
        [*command, str(tmp_path / "state"), str(KILLS), "7"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["rounds"] == KILLS
    assert found["acknowledged"] >= KILLS
    # The kills did fall into writes, not between them.
    assert found["cut half way"] > KILLS / 20, found
    assert found["came through unsaid"] > KILLS / 50, found
