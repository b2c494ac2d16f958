"""The conductor: what is received becomes what runs; trials, rotations, cold starts, conditions."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.agent.conductor import Conductor, Flash, NoServer
from wantastic.agent.lifecycle import State
from wantastic.agent.runner import AgentService, Asked, IdentityRecord
from wantastic.config.keys import encode_key, generate_private_key, public_key_of
from wantastic.config.model import AuthConfig, Config, ExitNodeConfig, PeerConfig
from wantastic.control.configuration import Received, Registration
from wantastic.control.errors import RemoteError, TransportError
from wantastic.control.report import ApplyReport
from wantastic.control.rotation import Journal
from wantastic.device.service import real_world
from wantastic.store.record import unseal
from wantastic.store.store import Store
from wantastic.telemetry.log import Log

RNG = random.Random(7)
OWN = generate_private_key(RNG.randbytes)
GATEWAYS = [public_key_of(generate_private_key(RNG.randbytes)) for _ in range(4)]
HOUR = 3600.0


def stated(gateway: int = 0, *, address: str = "10.0.0.2/32", **more: Any) -> dict[str, Any]:
    peer = {
        "public_key": encode_key(GATEWAYS[gateway]),
        "endpoints": ["192.0.2.1:51820"],
        "allowed_ips": ["10.0.0.0/8"],
        **more.pop("peer", {}),
    }
    return {"addresses": [address], "peers": [peer], **more}


def received(version: int, statement: dict[str, Any]) -> Received:
    return Received(f"v{version}", version, statement, 1000)


@dataclass
class FakeTunnel:
    """Peers answer when they are in `answering`, a second after being asked."""

    world: World
    configs: list[Config] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    answering: set[bytes] = field(default_factory=set)
    answering_keys: set[bytes] = field(default_factory=set)
    last_s: float | None = None
    asked: bool = False

    def apply(self, config: Config, private_key: bytes) -> int:
        self.configs.append(config)
        self.keys.append(private_key)
        return 1

    def handshake_age_s(self) -> float | None:
        return None if self.last_s is None else self.world.now_s - self.last_s

    def initiate_handshakes(self) -> bool:
        self.asked = True
        return any(p.endpoint for p in self.configs[-1].all_peers) if self.configs else True

    def after_a_second(self, conductor: Conductor) -> None:
        if self.last_s is not None and self.world.now_s - self.last_s >= 120:
            self.asked = True  # REKEY_AFTER_TIME
        if not self.asked or not self.configs:
            return
        self.asked = False
        known = {p.public_key for p in self.configs[-1].all_peers}
        good = not self.answering_keys or self.keys[-1] in self.answering_keys
        for peer in known & self.answering if good else ():
            self.last_s = self.world.now_s
            conductor.handshake(peer)


@dataclass
class Standing:
    severity: str


@dataclass
class FakeConditions:
    standing: dict[tuple[str, str], str] = field(default_factory=dict)

    def set(self, code: str, severity: Any, reason: str, remedy: str, subject: str = "") -> None:
        self.standing[code, subject] = severity

    def clear(self, code: str, subject: str = "") -> None:
        self.standing.pop((code, subject), None)

    def all(self) -> list[Standing]:
        return [Standing(severity) for severity in self.standing.values()]


@dataclass
class FakeServer:
    reports: list[ApplyReport] = field(default_factory=list)
    keys: list[tuple[bytes, bytes]] = field(default_factory=list)

    def report(self, report: ApplyReport) -> None:
        self.reports.append(report)

    def register_key(self, current: bytes, coming: bytes) -> None:
        self.keys.append((current, coming))


class SilentLog:
    def info(self, message: str, **fields: object) -> None: ...
    def warning(self, message: str, **fields: object) -> None: ...


@dataclass
class MemoryRecord:
    payload: bytes | None = None
    failing: bool = False

    def write(self, payload: bytes) -> bool:
        if self.failing:
            raise OSError(28, "No space left on device")
        self.payload = payload
        return True


class World:
    """One conductor and everything around it, in virtual time."""

    def __init__(
        self,
        config: Config | None = None,
        cached: Received | None = None,
        journal: Journal | None = None,
        registration: Registration | None = None,
        flash: Flash | None = None,
    ) -> None:
        self.now_s = 0.0
        self.tunnel = FakeTunnel(self, answering=set(GATEWAYS))
        self.conditions = FakeConditions()
        self.server = FakeServer()
        self.configuration, self.identity = MemoryRecord(), MemoryRecord()
        rng = random.Random(1)
        self.conductor = Conductor(
            config or Config(),
            journal or Journal(OWN),
            self.tunnel,
            flash or Flash(self.configuration, self.identity),
            self.conditions,
            SilentLog(),
            now=lambda: self.now_s,
            unix=lambda: 1_800_000_000 + self.now_s,
            random=rng.random,
            entropy=rng.randbytes,
        )
        started = self.conductor.start(cached, registration or Registration())
        self.tunnel.apply(*started)
        self.conductor.server = self.server

    def enrol(self, *first: Received) -> World:
        self.conductor.registering()
        self.conductor.registered(Registration(encode_key(GATEWAYS[0]), "gw.example"))
        for one in first:
            self.conductor.configuration(one)
        return self

    def run_for(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            self.now_s += 1
            self.tunnel.after_a_second(self.conductor)
            self.conductor.tick()

    @property
    def peer(self) -> PeerConfig:
        return self.tunnel.configs[-1].all_peers[0]

    @property
    def cached(self) -> Received | None:
        return Received.parse(self.configuration.payload or b"")


# ---- Starting -----------------------------------------------------------------------


def test_first_enrolment() -> None:
    world = World()
    assert world.conductor.state is State.UNREGISTERED
    world.enrol()
    assert world.conductor.state is State.CONFIGURING
    world.conductor.configuration(received(1, stated()))
    assert world.conductor.state is State.RUNNING
    assert world.peer.public_key == GATEWAYS[0]
    assert world.cached == received(1, stated())
    assert world.server.reports[-1].applied_version == 1


def test_a_server_that_states_nothing_gives_the_registered_gateway() -> None:
    world = World().enrol(received(0, {}))
    assert world.conductor.state is State.RUNNING
    peer = world.tunnel.configs[-1].server
    assert peer is not None
    assert (peer.public_key, str(peer.endpoint)) == (GATEWAYS[0], "gw.example:51820")
    assert [str(n) for n in peer.allowed_ips] == ["0.0.0.0/0", "::/0"]


def test_cold_start_runs_the_cache_and_tells_its_age() -> None:
    world = World(cached=received(7, stated(1)))
    assert world.conductor.state is State.RUNNING
    assert world.peer.public_key == GATEWAYS[1]
    world.conductor.trouble(TransportError("refused", "Nothing listens"))
    assert world.conductor.state is State.DEGRADED
    status = world.conductor.status()
    assert status["configuration"]["version"] == 7
    assert status["configuration"]["age_s"] == 1_800_000_000 - 1000
    world.conductor.fine()
    assert world.conductor.state is State.RUNNING
    assert world.conditions.standing == {}


def test_a_cache_that_cannot_be_used_falls_back_to_the_file() -> None:
    file = Config(server=PeerConfig(GATEWAYS[2]))
    world = World(file, cached=received(7, {"peers": "nonsense"}))
    assert world.peer.public_key == GATEWAYS[2]
    assert world.conductor.received is None


def test_a_file_alone_is_enough() -> None:
    world = World(Config(server=PeerConfig(GATEWAYS[2])))
    assert world.conductor.state is State.RUNNING
    world.run_for(10)
    world.conductor.stop()
    assert world.conductor.state is State.STOPPED
    world.conductor.stop()


# ---- Commit-confirm -----------------------------------------------------------------


def running(*more: Received) -> World:
    world = World().enrol(received(1, stated()))
    world.run_for(10)
    assert world.tunnel.handshake_age_s() is not None
    for one in more:
        world.conductor.configuration(one)
    return world


def test_a_configuration_without_handshake_is_taken_back_and_told() -> None:
    world = running()
    world.tunnel.answering.discard(GATEWAYS[3])
    world.conductor.configuration(received(2, stated(3)))
    assert world.peer.public_key == GATEWAYS[3]
    assert world.cached == received(1, stated())  # a power cut now comes back with what worked
    world.run_for(44)
    assert world.peer.public_key == GATEWAYS[3]
    world.run_for(2)
    assert world.peer.public_key == GATEWAYS[0]
    report = world.server.reports[-1]
    assert (report.applied_version, report.failed_version, report.code) == (1, 2, "no_handshake")
    assert world.conductor.state is State.DEGRADED
    assert ("configuration_rejected", "") in world.conditions.standing
    world.conductor.configuration(received(3, stated(1)))
    world.run_for(10)
    assert world.cached == received(3, stated(1))
    assert world.conductor.state is State.RUNNING
    report = world.server.reports[-1]
    assert (report.applied_version, report.failed_version, report.code) == (3, 0, "")


def test_a_configuration_that_works_is_kept_once_a_peer_shook_hands() -> None:
    world = running(received(2, stated(1)))
    assert world.conductor.status()["configuration"]["on_trial"]
    world.run_for(3)
    assert world.cached == received(2, stated(1))
    world.run_for(100)
    assert world.peer.public_key == GATEWAYS[1]
    assert not world.conductor.status()["configuration"]["on_trial"]


def test_what_cannot_cut_the_tunnel_is_kept_at_once() -> None:
    world = running()
    world.tunnel.answering.clear()
    message = [{"code": "subscription-ends", "severity": "warning", "reason": "soon"}]
    world.conductor.configuration(received(2, stated(health=message)))
    assert world.cached is not None
    assert world.cached.version == 2
    assert world.conditions.standing == {("subscription-ends", "server"): "warning"}
    assert world.conductor.state is State.DEGRADED
    world.conductor.configuration(received(3, stated(health=[])))
    assert world.conditions.standing == {}
    assert world.conductor.state is State.RUNNING


def test_without_a_tunnel_that_worked_there_is_nothing_to_go_back_to() -> None:
    world = World().enrol(received(1, stated()))
    world.tunnel.answering.clear()
    world.run_for(300)
    world.conductor.configuration(received(2, stated(1)))
    world.run_for(300)
    assert world.peer.public_key == GATEWAYS[1]
    assert world.cached is not None
    assert world.cached.version == 2


@pytest.mark.parametrize(
    ("row", "statement"),
    [
        (1, {"peers": [{"public_key": "short"}]}),
        (2, stated(peer={"allowed_ips": ["10.0.0.0/99"]})),
        (3, stated(peer={"endpoints": ["host:99999"]})),
        (4, stated(peer={"preshared_key": "x"})),
        (5, stated(address="nonsense")),
        (6, stated() | {"mtu": 5}),
        (7, stated() | {"dns": {"servers": ["not an address"]}}),
        (8, stated() | {"exit_node": {"deny": [{"range": "x"}]}}),
        (9, {"peers": [stated()["peers"][0]] * 2}),
        (10, {"peers": [stated(0)["peers"][0], stated(1)["peers"][0]]}),
        (11, {"peers": [{"public_key": encode_key(bytes(32))}]}),
        (12, stated() | {"peers": 5}),
        (13, stated() | {"rekey_before": {"public_key": "x"}}),
    ],
)
def test_a_broken_configuration_changes_nothing_and_is_told(
    row: int, statement: dict[str, Any]
) -> None:
    world = running()
    before = len(world.tunnel.configs)
    world.conductor.configuration(received(2, statement))
    assert len(world.tunnel.configs) == before
    report = world.server.reports[-1]
    assert (report.applied_version, report.failed_version, report.code) == (1, 2, "invalid")
    assert report.reason


def test_expired_peers_go() -> None:
    expiring = stated(peer={"expires_unix_s": 1_800_000_100})
    world = World().enrol(received(1, expiring))
    world.run_for(90)
    assert world.tunnel.configs[-1].all_peers
    world.run_for(20)
    assert not world.tunnel.configs[-1].all_peers


def test_reload_lays_the_statement_over_the_new_file() -> None:
    world = running()
    world.conductor.reload(Config(peers=(PeerConfig(GATEWAYS[2]),)))
    assert {p.public_key for p in world.tunnel.configs[-1].all_peers} == {
        GATEWAYS[0], GATEWAYS[2],
    }  # fmt: skip


def test_the_exit_node_can_only_become_narrower() -> None:
    owner = Config(exit_node=ExitNodeConfig(enabled=True, allow_lan=False))
    wide = {"enabled": True, "allow_lan": True, "deny": [{"range": "192.0.2.0/24"}]}
    world = World(owner).enrol(received(1, stated(exit_node=wide)))
    exit_node = world.tunnel.configs[-1].exit_node
    assert (exit_node.enabled, exit_node.allow_lan) == (True, False)
    assert str(exit_node.deny[0].network) == "192.0.2.0/24"
    world = World(Config()).enrol(received(1, stated(exit_node=wide)))
    assert not world.tunnel.configs[-1].exit_node.enabled


def test_each_endpoint_of_a_peer_is_tried_in_turn_until_one_answers() -> None:
    places = ["192.0.2.1:1", "192.0.2.2:2", "[2001:db8::3]:3"]
    world = World().enrol(received(1, stated(peer={"endpoints": places})))
    world.tunnel.answering.clear()
    seen = []
    for _ in range(100):
        world.run_for(1)
        if not seen or seen[-1] != str(world.peer.endpoint):
            seen.append(str(world.peer.endpoint))
    assert seen[:4] == [*places, places[0]]
    world.tunnel.answering.update(GATEWAYS)
    world.run_for(30)
    settled = world.peer.endpoint
    world.run_for(HOUR)
    assert world.peer.endpoint == settled


# ---- Conditions and states ----------------------------------------------------------


def test_nothing_that_the_control_server_does_ends_the_tunnel() -> None:
    world = running()
    configs = len(world.tunnel.configs)
    for code in ("token_expired", "device_removed", "refused", "clock_wrong"):
        kind = RemoteError if code.startswith(("token", "device")) else TransportError
        world.conductor.trouble(kind(code, "why"))
        assert world.conductor.state is State.DEGRADED
        assert list(world.conditions.standing) == [(code, "control")]
    world.conductor.forgotten(RemoteError("device_unknown", "who?"))
    world.conductor.registering()
    world.run_for(HOUR)
    assert world.conductor.state is State.DEGRADED
    assert len(world.tunnel.configs) == configs
    world.conductor.fine()
    world.conductor.registered(world.conductor.registration)
    assert world.conductor.state is State.RUNNING


def test_one_trouble_after_another_is_no_recovery_in_between() -> None:
    world = running()
    world.conductor.trouble(TransportError("refused", "no"))
    since = world.conductor.state_since_unix_s
    world.now_s += 60
    world.conductor.trouble(TransportError("timeout", "no"))
    assert world.conductor.state is State.DEGRADED
    assert world.conductor.state_since_unix_s == since
    assert world.conditions.standing == {("timeout", "control"): "warning"}
    world.conductor.fine()
    assert world.conductor.state is State.RUNNING


def test_a_refused_enrolment_says_so() -> None:
    world = World()
    world.conductor.registering()
    world.conductor.trouble(RemoteError("token_used", "another device has it"))
    assert world.conductor.state is State.UNREGISTERED
    assert world.conditions.standing == {("token_used", "control"): "error"}
    assert world.conductor.status()["remedy"]
    world.conductor.trouble(TransportError("refused", "Nothing listens"))
    assert world.conditions.standing == {("refused", "control"): "warning"}


def test_conditions_of_other_rooms_count() -> None:
    world = running()
    world.conditions.set("exit_node_missing", "warning", "", "")
    world.conditions.set("note", "info", "", "")
    world.run_for(1)
    assert world.conductor.state is State.DEGRADED
    world.conditions.clear("exit_node_missing")
    world.run_for(1)
    assert world.conductor.state is State.RUNNING


def test_dns_records_that_are_not_answered_are_told() -> None:
    records = [{"name": "a.example", "type": "TXT", "value": "x"}]
    world = World().enrol(received(1, stated(dns={"records": records})))
    assert world.conditions.standing == {("dns_records_unused", "server"): "info"}
    assert world.conductor.state is State.RUNNING
    world.conductor.configuration(received(2, stated(dns={})))
    assert world.conditions.standing == {}


def test_clock_offset() -> None:
    world = running()
    world.conductor.clock_offset(-86400.0)
    assert world.conductor.state is State.DEGRADED
    world.conductor.clock_offset(-2.0)
    assert world.conductor.state is State.RUNNING


def test_a_full_disk_is_a_condition() -> None:
    world = World()
    world.configuration.failing = True
    world.enrol(received(1, stated()))
    assert world.conductor.state is State.DEGRADED
    assert ("state_unsaved", "control") in world.conditions.standing
    world.configuration.failing = False
    world.conductor.configuration(received(2, stated() | {"mtu": 1300}))
    assert world.conductor.state is State.RUNNING


EVENTS = st.sampled_from(
    ["registering", "registered", "forgotten", "refused", "lost", "fine", "good", "bad", "time"]
)


@given(st.booleans(), st.lists(EVENTS, max_size=40))
def test_any_order_of_the_control_planes_news_is_survived(cached: bool, events: list[str]) -> None:
    """Only the order that the control plane keeps: forgotten comes after registered."""
    world = World(cached=received(1, stated()) if cached else None)
    conductor, known, version = world.conductor, False, 1
    for event in events:
        version += 1
        if event == "registering":
            conductor.registering()
            known = False
        elif event == "registered":
            conductor.registered(Registration(encode_key(GATEWAYS[0]), "gw.example"))
            known = True
        elif event == "forgotten" and known:
            conductor.forgotten(RemoteError("device_unknown", "who?"))
            known = False
        elif event == "refused":
            conductor.trouble(RemoteError("token_used", "no"))
        elif event == "lost":
            conductor.trouble(TransportError("lost", "no"))
        elif event == "fine":
            conductor.fine()
        elif event == "good" and known:
            conductor.configuration(received(version, stated(version % 4)))
        elif event == "bad" and known:
            conductor.configuration(received(version, {"peers": 5}))
        elif event == "time":
            world.run_for(20)
        standing = [s for s in world.conditions.standing.values() if s != "info"]
        if conductor.state is State.RUNNING:
            assert not standing
        if conductor.state is State.DEGRADED:
            assert standing
        json.dumps(conductor.status())
    if cached:
        assert conductor.state in (State.RUNNING, State.DEGRADED)


# ---- Rotation -----------------------------------------------------------------------


def ordered(world: World, *, before_unix_s: int = 0) -> dict[str, Any]:
    order = {
        "public_key": encode_key(world.conductor.public_key),
        "before_unix_s": before_unix_s,
    }
    return stated(rekey_before=order)


def test_an_ordered_rotation_proves_the_new_key_before_the_old_one_goes() -> None:
    world = running()
    old = world.conductor.public_key
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    ((current, coming),) = world.server.keys
    assert current == old
    journal = Journal.parse(world.identity.payload or b"")
    assert journal is not None
    assert journal.coming is not None
    assert public_key_of(journal.coming) == coming
    assert world.conductor.public_key == old
    world.conductor.key_registered()
    assert world.conductor.public_key == coming
    world.run_for(5)
    journal = Journal.parse(world.identity.payload or b"")
    assert journal is not None
    assert (public_key_of(journal.current), journal.coming) == (coming, None)
    assert world.server.reports[-1].public_key == coming
    assert world.server.reports[-1].code == ""
    # The order names the old key: it is carried out.
    world.run_for(HOUR)
    assert len(world.server.keys) == 1


def test_a_key_is_not_named_to_the_server_before_it_is_proved() -> None:
    """Whatever else is reported while it is on trial: the server would drop the old one."""
    world = running()
    old = world.conductor.public_key
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    world.tunnel.answering_keys = {OWN}
    world.conductor.key_registered()
    world.conductor.configuration(received(3, ordered(world)))
    world.conductor.configuration(received(4, {"peers": "nonsense"}))
    world.run_for(30)
    assert world.conductor.public_key != old
    world.tunnel.answering_keys = set()
    assert {report.public_key for report in world.server.reports} == {old}
    world.run_for(60)
    assert world.server.reports[-1].public_key == world.conductor.public_key != old


def test_a_rotation_whose_key_brings_no_handshake_is_rolled_back() -> None:
    world = running()
    old = world.conductor.public_key
    world.tunnel.answering_keys = {OWN}
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    world.conductor.key_registered()
    world.run_for(59)
    assert world.conductor.public_key != old
    world.run_for(10)
    assert world.conductor.public_key == old
    assert world.server.reports[-1].public_key == old
    assert world.server.reports[-1].code == "no_handshake"
    journal = Journal.parse(world.identity.payload or b"")
    assert journal is not None
    assert journal.coming is None


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_rotation_that_fails_is_tried_ever_more_seldom(scheduled: bool) -> None:
    """The order stands, and comes again with the configuration in which the key was dropped."""
    day_ns = 86_400 * 10**9 if scheduled else 0
    config = Config(auth=AuthConfig(key_rotation_ns=day_ns))
    world = World(config, journal=Journal(OWN, None, 1_800_000_000 - 2 * 86_400))
    world.enrol(received(1, stated()))
    world.run_for(10)
    world.tunnel.answering_keys = {OWN}
    version, silent_s = 2, 0
    began: list[float] = []
    while world.now_s < 5 * 86_400:
        if not scheduled and (version == 2 or len(world.server.keys) > len(began)):
            world.conductor.configuration(received(version, ordered(world)))
            version += 1
        if len(world.server.keys) > len(began):
            began.append(world.now_s)
            world.conductor.key_registered()
        world.run_for(1)
        silent_s += world.tunnel.keys[-1] != OWN
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert 5 <= len(began) <= 12
    assert gaps[0] >= HOUR / 2
    assert gaps[-1] >= 12 * HOUR
    assert silent_s <= 61 * len(began)
    # One that works at last begins afresh.
    world.tunnel.answering_keys = set()
    while world.tunnel.keys[-1] == OWN:
        world.run_for(1)
        assert world.now_s < 8 * 86_400
        if len(world.server.keys) > len(began):
            began.append(world.now_s)
            world.conductor.key_registered()
    world.run_for(60)
    assert world.server.reports[-1].code == ""
    assert world.server.reports[-1].public_key == world.server.keys[-1][1]


@pytest.mark.parametrize("good", [True, False])
def test_a_configuration_that_comes_during_a_rotation_is_judged_for_itself(good: bool) -> None:
    """The new key brings no handshake: that is not the configuration's fault. One that cuts
    the tunnel is taken back all the same, once the old key had its chance with it."""
    world = running()
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    world.tunnel.answering_keys = {OWN}
    world.conductor.key_registered()
    world.run_for(10)
    world.tunnel.answering = {GATEWAYS[1]} if good else {GATEWAYS[0]}
    world.conductor.configuration(received(3, stated(1)))
    world.run_for(55)
    rejected = [r.failed_version for r in world.server.reports if r.failed_version]
    assert rejected == []
    world.run_for(120)
    rejected = [r.failed_version for r in world.server.reports if r.failed_version]
    assert rejected == ([] if good else [3])
    assert world.peer.public_key == GATEWAYS[1 if good else 0]
    assert world.conductor.status()["key_rotation"] == "steady"
    assert world.conductor.public_key == public_key_of(OWN)
    assert world.tunnel.last_s is not None
    assert world.now_s - world.tunnel.last_s < 120


def test_a_rotation_waits_for_a_control_plane_to_announce_it_to() -> None:
    world = running()
    world.conductor.server = NoServer()
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    assert world.conductor.status()["key_rotation"] == "steady"
    world.conductor.server = world.server
    world.run_for(2 * HOUR)
    assert len(world.server.keys) == 1


def test_an_order_is_carried_out_after_a_power_cut() -> None:
    """The boot finds out which key is in force; that the other one was ordered still counts."""
    other = generate_private_key(random.Random(5).randbytes)
    order = {"public_key": encode_key(public_key_of(OWN)), "before_unix_s": 0}
    cached = received(2, stated(rekey_before=order))
    world = World(cached=cached, journal=Journal(OWN, other))
    world.tunnel.answering_keys = {OWN}
    world.tunnel.asked = True
    world.run_for(100)
    assert len(world.server.keys) == 1


def test_a_rotation_that_the_server_refuses_is_tried_again_later() -> None:
    world = running()
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(61)
    world.conductor.key_refused(TransportError("lost", "no"))
    world.run_for(2 * HOUR)
    assert len(world.server.keys) == 2


def test_a_rotation_is_not_announced_when_its_key_cannot_be_kept() -> None:
    world = running()
    world.identity.failing = True
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(120)
    assert world.server.keys == []
    assert world.conductor.public_key == public_key_of(OWN)
    world.identity.failing = False
    world.run_for(2 * HOUR)
    assert len(world.server.keys) == 1


def test_a_power_cut_during_a_rotation_finds_the_key_that_works() -> None:
    other = generate_private_key(random.Random(5).randbytes)
    for working in (OWN, other):
        world = World(cached=received(1, stated()), journal=Journal(OWN, other))
        world.tunnel.answering_keys = {working}
        world.tunnel.asked = True
        world.run_for(200)
        assert world.conductor.public_key == public_key_of(working)
        journal = Journal.parse(world.identity.payload or b"")
        assert journal is not None
        assert (journal.current, journal.coming) == (working, None)
        assert bool(journal.since_unix_s) == (working == other)


def test_scheduled_rotation_is_off_by_default_and_keeps_its_time_over_restarts() -> None:
    world = running()
    world.run_for(40 * 24 * 10)
    assert world.server.keys == []
    day_ns = 86_400 * 10**9
    config = Config(auth=AuthConfig(key_rotation_ns=day_ns))
    world = World(config, cached=received(1, stated()))
    journal = Journal.parse(world.identity.payload or b"")
    assert journal is not None
    assert journal.since_unix_s == 1_800_000_000
    late = Journal(OWN, None, 1_800_000_000 - 86_000)
    world = World(config, cached=received(1, stated()), journal=late)
    world.tunnel.asked = True
    world.run_for(5)
    world.run_for(9000)
    assert len(world.server.keys) == 1


def test_a_key_from_the_file_is_never_rotated() -> None:
    file = Config(private_key=OWN)
    world = World(file).enrol(received(1, stated()))
    world.run_for(10)
    world.conductor.configuration(received(2, ordered(world)))
    world.run_for(HOUR)
    assert world.server.keys == []
    assert ("rekey_impossible", "") in world.conditions.standing


def test_the_journal_is_an_identity_for_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = generate_private_key(random.Random(5).randbytes)
    store.record("identity").write(Journal(OWN, other, 5).render())
    assert Store(tmp_path).make_identity() == OWN
    data = Store(tmp_path).record("identity").read()
    assert Journal.parse(data or b"") == Journal(OWN, other, 5)


def test_a_journal_that_is_read_in_part_outlives_the_next_write(tmp_path: Path) -> None:
    """Its key is good; what else it holds may be the key that the server knows."""
    later = {"private_key": encode_key(OWN), "coming_private_key": {"of": "a later version"}}
    record = Store(tmp_path).record("identity")
    record.write(json.dumps(later).encode())
    record.keep_copy()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"state_dir": str(tmp_path), "interface": {"listen_port": 0}}))
    config.chmod(0o600)
    command = Asked(str(config), "", "")
    service = AgentService(command, lambda c: c, Log(sink=lambda level, line: None), real_world())
    assert service._load() == OWN
    store = service.store
    assert store is not None
    IdentityRecord(store.record("identity")).write(Journal(OWN, None, 5).render())
    kept = unseal((tmp_path / "identity.unreadable").read_bytes())
    assert json.loads(kept or b"") == later
    assert Store(tmp_path).identity() == OWN
