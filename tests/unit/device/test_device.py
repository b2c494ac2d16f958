"""A device over a fake engine and a fake host: start, apply, refusals, events, the end."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network

import pytest

from tests.support.configs import ALICE_PRIVATE, ALICE_PUBLIC, BOB_PUBLIC, document
from tests.support.disks import RefusingDisk
from tests.support.fake_engine import IFINDEX, FakeEngine
from tests.support.fake_host import FakeHost
from tests.unit.config.test_parse import parse
from wantastic.config.keys import encode_key
from wantastic.config.model import Config
from wantastic.device import device
from wantastic.device import netlink as nl
from wantastic.device.device import Device, StartError
from wantastic.device.peers import endpoint_of
from wantastic.device.service import what_changed
from wantastic.device.uapi import PeerSet, Set
from wantastic.device.view import view
from wantastic.store.store import State, Store
from wantastic.telemetry.conditions import Conditions
from wantastic.telemetry.log import Log
from wantastic.telemetry.status import status_to_json
from wantastic.version import BUILD_UNIX_NS

NOW = BUILD_UNIX_NS + 10**15
HUB = "192.0.2.1"


@dataclass
class FakeResolver:
    """Answers from a table."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def resolve(self, name: str, mark: int = 0) -> tuple[str, ...]:
        self.asked.append(name)
        return self.names.get(name, ())


class Bench:
    """A device and everything around it."""

    def __init__(self, **engine: object) -> None:
        self.engine = FakeEngine(**engine)  # type: ignore[arg-type]
        self.host = FakeHost()
        self.resolver = FakeResolver()
        self.disk = RefusingDisk()
        self.store = Store("/s", self.disk)
        self.now = NOW
        self.lines: list[str] = []
        log = Log(sink=lambda level, line: self.lines.append(line))
        self.conditions = Conditions(log, lambda: self.now)
        self.device = Device(
            self.engine,  # type: ignore[arg-type]
            self.host,
            self.resolver,
            self.store,
            self.conditions,
            log,
            lambda: self.now,
        )

    def start(self, config: Config | None = None) -> None:
        self.device.start(config or wanted(), ALICE_PRIVATE)

    def codes(self) -> list[str]:
        return [c.code for c in self.conditions.all()]


def wanted(**changes: object) -> Config:
    return parse(document(**({"server__endpoint": HUB} | changes)))


LISTED = {"server__allowed_ips": ["0.0.0.0/0", "::/0", "10.9.0.0/16"]}


def test_a_configuration_comes_up() -> None:
    bench = Bench()
    bench.start(wanted(**LISTED))
    engine, host = bench.engine, bench.host
    assert engine.private_key == ALICE_PRIVATE
    assert engine.status().listen_port == 51820
    assert engine.peers[BOB_PUBLIC].endpoint == endpoint_of(HUB, 51820)
    assert engine.peers[BOB_PUBLIC].initiations == 1
    assert host.up
    assert host.mtu_bytes == 1420
    assert host.addresses == {ip_interface("10.0.0.2/32")}
    assert host.table == {(ip_network("10.9.0.0/16"), 254)}
    assert bench.codes() == []


def test_the_end_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.start(wanted(interface__default_route=True, **LISTED))
    assert len(bench.host.policy) == 4
    bench.device.close()
    bench.device.close()
    assert bench.host.is_untouched
    assert not bench.engine.running


def test_an_identical_configuration_touches_nothing() -> None:
    bench = Bench()
    bench.start(wanted(**LISTED))
    before = list(bench.engine.calls)
    assert bench.device.apply(wanted(**LISTED), ALICE_PRIVATE) == 0
    assert bench.engine.calls == before


def test_a_reload_touches_only_what_differs() -> None:
    bench = Bench()
    bench.start(wanted(**LISTED))
    bench.engine.handshake(BOB_PUBLIC, NOW)
    session = bench.engine.peers[BOB_PUBLIC].session
    del bench.engine.calls[:]
    hub2 = {"public_key": encode_key(b"\x07" * 32), "allowed_ips": ["10.10.0.0/16"]}
    done = bench.device.apply(wanted(peers=[hub2], interface__mtu=1300, **LISTED), ALICE_PRIVATE)
    assert done == 3
    assert bench.engine.calls == ["set_mtu 1300", "set_peer"]
    assert bench.engine.peers[BOB_PUBLIC].session is session
    assert bench.device.apply(wanted(**LISTED), ALICE_PRIVATE) == 3
    assert list(bench.engine.peers) == [BOB_PUBLIC]
    assert bench.host.table == {(ip_network("10.9.0.0/16"), 254)}


def test_a_roamed_peer_is_not_called_back_by_a_reload() -> None:
    bench = Bench()
    bench.start()
    roamed = endpoint_of("203.0.113.9", 7)
    bench.engine.peers[BOB_PUBLIC].endpoint = roamed
    bench.device.apply(wanted(server__persistent_keepalive=9), ALICE_PRIVATE)
    assert bench.engine.peers[BOB_PUBLIC].endpoint == roamed


def test_what_wg_changed_is_put_right_by_a_reload() -> None:
    bench = Bench()
    bench.start()
    engine = bench.engine
    engine.set_private_key(None)
    engine.set_peer(b"\x09" * 32)
    engine.set_peer(BOB_PUBLIC, keepalive_s=3)
    assert bench.device.apply(wanted(), ALICE_PRIVATE) == 3
    assert engine.private_key == ALICE_PRIVATE
    assert list(engine.peers) == [BOB_PUBLIC]
    assert engine.peers[BOB_PUBLIC].keepalive_s == 0


# -- the listen port --


def test_a_taken_port_falls_back_loudly() -> None:
    bench = Bench(busy_ports={51820})
    bench.start()
    assert bench.engine.status().listen_port == 40001
    assert bench.codes() == ["listen_port_taken"]
    assert any("taken" in line and "40001" in line for line in bench.lines)


def test_a_taken_port_ends_a_strict_start() -> None:
    bench = Bench(busy_ports={51820})
    with pytest.raises(StartError, match="strict_port"):
        bench.start(wanted(interface__strict_port=True))
    assert not bench.engine.running
    assert bench.host.is_untouched


def test_a_taken_port_at_reload_keeps_the_old_one() -> None:
    bench = Bench(busy_ports={99})
    bench.start()
    bench.device.apply(wanted(interface__listen_port=99), ALICE_PRIVATE)
    assert bench.engine.status().listen_port == 51820
    assert bench.codes() == ["listen_port_taken"]
    bench.engine.busy_ports.clear()
    bench.device.apply(wanted(interface__listen_port=99), ALICE_PRIVATE)
    assert bench.engine.status().listen_port == 99
    assert bench.codes() == []


# -- what the host refuses --


@pytest.mark.parametrize(
    ("code", "word"),
    [(errno.EPERM, "CAP_NET_ADMIN"), (errno.ENOENT, "tun module"), (errno.EBUSY, "interface.name")],
)
def test_no_tun_says_why(code: int, word: str) -> None:
    bench = Bench(no_tun=code)
    with pytest.raises(StartError, match=word):
        bench.start(wanted(interface__mode="tun" if code != errno.EBUSY else "auto"))
    assert not bench.engine.running


def fake_net(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Put a netstack in place that only says what it was told."""
    made: list[tuple[object, ...]] = []

    class Net:
        def __init__(self, engine: object, addresses: tuple[str, ...]) -> None:
            if not addresses:
                raise ValueError("memory_limit_bytes: too little")
            made.append(addresses)

        def set_addresses(self, addresses: tuple[str, ...]) -> None:
            made.append(addresses)

        def set_mtu(self, mtu_bytes: int) -> None:
            made.append((mtu_bytes,))

    monkeypatch.setattr(device, "TunnelNet", Net)
    return made


def test_the_first_proxy_at_a_reload_needs_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake_net(monkeypatch)
    bench = Bench()
    bench.start()
    assert (bench.device.mode, bench.device.net, made) == ("tun", None, [])
    bench.device.apply(wanted(proxy__socks5={}, interface__addresses=[]), ALICE_PRIVATE)
    assert (bench.device.mode, bench.codes()) == ("tun", ["userspace_failed"])
    bench.device.apply(wanted(proxy__socks5={}), ALICE_PRIVATE)
    assert (bench.device.mode, bench.codes(), made) == ("both", [], [("10.0.0.2",)])
    # The last one goes: what is open stays.
    bench.device.apply(wanted(), ALICE_PRIVATE)
    assert (bench.device.mode, bench.codes()) == ("both", [])


def test_auto_goes_on_in_userspace_without_tun(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fake_net(monkeypatch)
    bench = Bench(no_tun=errno.EPERM)
    bench.start(wanted(interface__default_route=True, **LISTED))
    assert bench.device.mode == "userspace"
    assert bench.host.is_untouched
    assert sorted(bench.codes()) == ["default_route_failed", "tun_missing"]
    assert "needs a TUN device" in str(bench.conditions.all())
    assert set(made) == {("10.0.0.2",)}
    more = {"interface__mtu": 1300, "interface__addresses": ["10.0.0.3/32"]}
    bench.device.apply(wanted(**more), ALICE_PRIVATE)
    assert made[-2:] == [("10.0.0.3",), (1300,)]
    assert bench.codes() == ["tun_missing"]


def test_a_mark_without_the_right_to_set_it_is_a_condition_and_the_tunnel_runs() -> None:
    bench = Bench(no_mark=errno.EPERM)
    bench.start(wanted(interface__fwmark=77))
    assert bench.codes() == ["fwmark_failed"]
    assert "CAP_NET_ADMIN" in bench.conditions.all()[0].remedy
    assert [peer.public_key for peer in bench.engine.status().peers]
    bench.engine.no_mark = 0
    assert bench.device.apply(wanted(interface__fwmark=77), ALICE_PRIVATE) == 1
    assert bench.codes() == []


def test_a_refused_address_is_a_condition_and_tried_again() -> None:
    bench = Bench()
    bench.host.refused = {"add_address": errno.EACCES}
    bench.start()
    assert bench.codes() == ["address_failed"]
    assert "IPv6 is switched off" in bench.conditions.all()[0].remedy
    bench.host.refused = {}
    assert bench.device.apply(wanted(), ALICE_PRIVATE) == 1
    assert bench.codes() == []


def test_a_route_that_leads_elsewhere_is_a_condition() -> None:
    bench = Bench()
    bench.host.other_routes = [nl.RouteNotice(False, 3, "10.9.0.0", 16, 254)]
    bench.start(wanted(**LISTED))
    assert bench.codes() == ["route_failed"]
    assert not bench.device.footprint.is_routed(ip_network("10.9.0.0/16"))


def test_a_route_that_an_address_made_is_fine() -> None:
    bench = Bench()
    bench.host.other_routes = [nl.RouteNotice(False, IFINDEX, "10.9.0.0", 16, 254)]
    bench.start(wanted(**LISTED))
    assert bench.codes() == []
    assert bench.device.footprint.is_routed(ip_network("10.9.0.0/16"))


def test_too_many_peers_are_a_condition() -> None:
    bench = Bench(room_for_peers=1)
    more = [{"public_key": encode_key(b"\x07" * 32), "allowed_ips": ["10.10.0.0/16"]}]
    bench.start(wanted(peers=more))
    assert list(bench.engine.peers) == [BOB_PUBLIC]
    assert bench.codes() == ["peer_failed"]
    assert "memory_limit" in bench.conditions.all()[0].remedy


# -- the default route --


def test_the_default_route_is_taken_only_when_asked_for() -> None:
    bench = Bench()
    bench.start(wanted(**LISTED))
    assert bench.host.policy == []
    bench.device.apply(wanted(interface__default_route=True, **LISTED), ALICE_PRIVATE)
    assert bench.engine.fwmark == 51820
    assert (ip_network("0.0.0.0/0"), 51820) in bench.host.table
    assert bench.device.footprint.is_routed(ip_network("0.0.0.0/0"))
    assert bench.device.apply(wanted(interface__default_route=True, **LISTED), ALICE_PRIVATE) == 0
    bench.device.apply(wanted(**LISTED), ALICE_PRIVATE)
    assert bench.host.policy == []
    assert bench.engine.fwmark == 0


def test_the_default_route_follows_ranges_and_mark() -> None:
    bench = Bench()
    on = {"interface__default_route": True}
    bench.start(wanted(**on, server__allowed_ips=["0.0.0.0/0"]))
    assert {rule.version for rule in bench.host.policy} == {4}
    bench.device.apply(wanted(**on, server__allowed_ips=["0.0.0.0/0", "::/0"]), ALICE_PRIVATE)
    assert {rule.version for rule in bench.host.policy} == {4, 6}
    bench.device.apply(wanted(**on, interface__fwmark=99), ALICE_PRIVATE)
    assert bench.engine.fwmark == 99
    assert {rule.table for rule in bench.host.policy} == {99, 254}
    bench.device.apply(wanted(**on), ALICE_PRIVATE)
    assert bench.engine.fwmark == 51820
    assert {rule.table for rule in bench.host.policy} == {51820, 254}
    bench.device.apply(wanted(interface__fwmark=7), ALICE_PRIVATE)
    assert bench.host.policy == []
    assert bench.engine.fwmark == 7


def test_a_refused_default_route_is_undone_and_tried_again() -> None:
    bench = Bench()
    bench.host.refused = {"add_rule4": errno.EPERM}
    bench.start(wanted(interface__default_route=True))
    assert bench.codes() == ["default_route_failed"]
    assert bench.engine.fwmark == 0
    assert not bench.host.policy
    bench.host.refused = {}
    assert bench.device.apply(wanted(interface__default_route=True), ALICE_PRIVATE) == 1
    assert bench.codes() == []


def test_a_disk_that_refuses_is_a_condition() -> None:
    from cext.engine.engine import EVENT_TIMESTAMP_FLOOR, Event

    bench = Bench()
    bench.start()
    bench.disk.fail_at = 0
    bench.device.on_event(Event(EVENT_TIMESTAMP_FLOOR, b"", NOW))
    assert bench.codes() == ["state_unsaved"]
    bench.disk.fail_at = -1
    bench.device.on_event(Event(EVENT_TIMESTAMP_FLOOR, b"", NOW + 1))
    assert bench.codes() == []


def test_a_host_without_ipv6_gets_the_ipv4_default_route() -> None:
    bench = Bench()
    bench.host.refused = {"add_route6": errno.EOPNOTSUPP}
    bench.start(wanted(interface__default_route=True))
    assert {rule.version for rule in bench.host.policy} == {4}
    assert bench.codes() == []
    assert bench.device.footprint.is_routed(ip_network("0.0.0.0/0"))
    assert not bench.device.footprint.is_routed(ip_network("::/0"))


# -- time and flash --


def test_a_boot_at_1970_starts_from_the_saved_floor() -> None:
    bench = Bench()
    bench.store.save_state(State(timestamp_floor_unix_ns=NOW))
    bench.now = 5 * 10**9
    bench.start()
    assert bench.engine.floor_unix_ns == NOW
    assert bench.codes() == ["clock_wrong"]
    bench.now = NOW
    bench.device.tick()
    assert bench.codes() == []


def test_without_a_floor_the_build_time_serves() -> None:
    bench = Bench()
    bench.now = 0
    bench.start()
    assert bench.engine.floor_unix_ns == BUILD_UNIX_NS


def test_the_floor_is_saved_when_the_engine_asks() -> None:
    from cext.engine.engine import EVENT_TIMESTAMP_FLOOR, Event

    bench = Bench()
    bench.start()
    bench.device.on_event(Event(EVENT_TIMESTAMP_FLOOR, b"", NOW + 7))
    assert bench.store.state().timestamp_floor_unix_ns == NOW + 7
    assert bench.store.writes == 1


# -- endpoints --


def test_a_name_is_resolved_and_remembered_and_the_memory_serves_without_dns() -> None:
    async def life() -> None:
        bench = Bench()
        bench.resolver.names = {"wg.example": (HUB,)}
        bench.start(wanted(server__endpoint="wg.example"))
        assert bench.engine.peers[BOB_PUBLIC].endpoint is None
        await asyncio.sleep(0.01)
        assert bench.engine.peers[BOB_PUBLIC].endpoint == endpoint_of(HUB, 51820)
        bench.engine.handshake(BOB_PUBLIC, NOW)
        for event in bench.engine.events():
            bench.device.on_event(event)
        again = Bench()
        again.store.save_state(bench.store.state())
        again.start(wanted(server__endpoint="wg.example"))
        await asyncio.sleep(0.01)
        assert again.engine.peers[BOB_PUBLIC].endpoint == endpoint_of(HUB, 51820)
        assert again.codes() == ["endpoint_unresolved"]

    asyncio.run(life())


def test_an_unanswered_address_gives_way_to_the_next() -> None:
    async def life() -> None:
        bench = Bench()
        bench.resolver.names = {"wg.example": ("192.0.2.1", "2001:db8::1")}
        bench.start(wanted(server__endpoint="wg.example"))
        await asyncio.sleep(0.01)
        bench.engine.peers[BOB_PUBLIC].attempts = 2
        bench.device.peers.tick()
        assert bench.engine.peers[BOB_PUBLIC].endpoint == endpoint_of("2001:db8::1", 51820)
        bench.engine.peers[BOB_PUBLIC].attempts = 4
        bench.device.peers.tick()
        assert bench.engine.peers[BOB_PUBLIC].endpoint == endpoint_of("192.0.2.1", 51820)

    asyncio.run(life())


def test_a_silent_server_is_a_condition_until_it_answers() -> None:
    from cext.engine.engine import EVENT_HANDSHAKE_GIVEN_UP, Event

    async def life() -> None:
        bench = Bench()
        bench.start()
        bench.device.on_event(Event(EVENT_HANDSHAKE_GIVEN_UP, BOB_PUBLIC, 0))
        assert bench.codes() == ["no_handshake"]
        before = bench.engine.peers[BOB_PUBLIC].initiations
        bench.device.on_network_change(wan=False)
        assert bench.engine.peers[BOB_PUBLIC].initiations == before
        bench.device.on_network_change(wan=True)
        assert bench.engine.peers[BOB_PUBLIC].initiations == before + 1
        bench.engine.handshake(BOB_PUBLIC, NOW)
        for event in bench.engine.events():
            bench.device.on_event(event)
        assert bench.codes() == []
        bench.device.close()

    asyncio.run(life())


def test_a_bound_interface_that_comes_later_is_bound_then() -> None:
    bench = Bench()
    real, missing = bench.engine.set_bind_interface, [True]

    def bind(name: str | None) -> None:
        if missing:
            raise OSError(errno.ENODEV, "No such device")
        real(name)

    bench.engine.set_bind_interface = bind  # type: ignore[method-assign]
    bench.start(wanted(interface__bind_interface="ppp0"))
    assert bench.codes() == ["bind_interface_failed"]
    missing.clear()
    bench.device.on_network_change(wan=True)
    assert bench.engine.bind_interface == "ppp0"
    assert bench.codes() == []


@pytest.mark.parametrize(
    ("notice", "bound_to", "expected"),
    [
        (nl.AddressNotice(False, 2, "192.0.2.1", 24), "", True),
        (nl.RouteNotice(True, 2, "0.0.0.0", 0, 254), "", True),
        (nl.RouteNotice(False, 2, "10.0.0.0", 8, 254), "", False),
        (nl.LinkNotice(False, 2, "ppp0", True, 1492), "ppp0", True),
        (nl.LinkNotice(False, 2, "eth0", True, 1500), "ppp0", None),
        (nl.LinkNotice(False, 2, "", True, 1500), "", None),
    ],
)
def test_which_notices_count(notice: nl.Body, bound_to: str, expected: bool | None) -> None:
    assert what_changed(notice, bound_to) is expected


def test_an_idle_day_writes_to_flash_a_few_times() -> None:
    """As the engine asks: four hours ahead, again when three of them are gone."""
    from cext.engine.engine import EVENT_HANDSHAKE, EVENT_TIMESTAMP_FLOOR, Event

    bench = Bench()
    bench.start()
    saved = bench.store.writes
    floor, hour = 0, 3600 * 10**9
    for now in range(NOW, NOW + 24 * hour, 120 * 10**9):
        if now + hour > floor:
            floor = now + 4 * hour
            bench.device.on_event(Event(EVENT_TIMESTAMP_FLOOR, b"", floor))
        bench.device.on_event(Event(EVENT_HANDSHAKE, BOB_PUBLIC, now))
    assert 0 < bench.store.writes - saved <= 24


# -- wg, and the bare interface --


def test_wg_taking_the_key_away_is_a_condition_and_not_the_end_of_the_identity() -> None:
    bench = Bench()
    key = bench.store.make_identity()
    bench.device.start(wanted(), key)
    bench.engine.set_private_key(None)
    bench.device.on_uapi(Set(private_key=bytes(32), replace_peers=True))
    assert bench.codes() == ["no_private_key"]
    assert bench.store.identity() == key


def test_a_bare_interface_follows_its_link() -> None:
    bench = Bench()
    bench.device.start_bare("wg0")
    assert not bench.engine.is_up
    bench.device.on_uapi(Set(listen_port=7, peers=[PeerSet(BOB_PUBLIC)]))
    bench.device.on_link(nl.LinkNotice(False, IFINDEX, "wg0", True, 1380))
    assert bench.engine.is_up
    assert bench.engine.mtu == 1380
    bench.device.on_link(nl.LinkNotice(False, IFINDEX, "wg0", False, 1380))
    assert not bench.engine.is_up


def test_a_deleted_interface_ends_the_device_and_a_moved_one_does_not() -> None:
    """Both look alike from here: the link is gone. Only the TUN descriptor knows."""
    from cext.engine.engine import EVENT_INNER_CLOSED, Event

    bench = Bench()
    bench.device.start_bare("wg0")
    ended: list[bool] = []
    bench.device.closed_by_host = lambda: ended.append(True)
    bench.device.on_link(nl.LinkNotice(True, IFINDEX, "wg0", False, 1420))
    assert bench.engine.is_up
    assert ended == []
    bench.device.on_event(Event(EVENT_INNER_CLOSED, b"", errno.EBADFD))
    assert ended == [True]


def test_a_moved_interface_is_looked_at_where_it_is() -> None:
    from cext.engine.engine import InnerLink

    bench = Bench()
    bench.device.start_bare("wg0")
    bench.engine.link = InnerLink(5, 1420, is_up=False)
    assert not bench.device.look_at_link(), "the host tells of what is here"
    bench.device.on_link(nl.LinkNotice(True, IFINDEX, "wg0", False, 1420))
    assert bench.device.look_at_link()
    assert bench.engine.is_up, "moving set it down, and it will be set up"
    assert bench.device.awaits_link
    bench.engine.link = InnerLink(5, 1420, is_up=True)
    bench.device.look_at_link()
    bench.engine.link = InnerLink(5, 1420, is_up=False)
    bench.device.look_at_link()
    assert not bench.engine.is_up
    bench.engine.link = InnerLink(5, 1300, is_up=True)
    # Somebody else's link has got the number.
    bench.device.on_link(nl.LinkNotice(False, IFINDEX, "eth7", False, 9000))
    assert bench.engine.is_up
    assert bench.engine.mtu == 1300
    assert not bench.device.awaits_link
    bench.engine.link = InnerLink(5, 65535, is_up=True)
    bench.device.look_at_link()
    assert bench.engine.mtu == 65000, "what a packet of ours can carry"


def test_where_the_kernel_does_not_tell_a_moved_interface_counts_as_up() -> None:
    bench = Bench()
    bench.device.start_bare("wg0")
    bench.device.on_link(nl.LinkNotice(True, IFINDEX, "wg0", False, 1420))
    assert not bench.device.look_at_link()
    assert bench.engine.is_up
    bench.device.on_link(nl.LinkNotice(False, IFINDEX, "wg0", False, 1420))
    assert not bench.engine.is_up, "it came back"


# -- status --


def test_the_status_tells_routed_from_allowed() -> None:
    bench = Bench()
    bench.start(wanted(**LISTED))
    bench.engine.handshake(BOB_PUBLIC, NOW - 10**9)
    status = view(bench.device, bench.store, bench.conditions, NOW, NOW)
    found = status_to_json(status)
    (peer,) = found["peers"]
    assert {r["network"]: r["routed"] for r in peer["allowed_ips"]} == {
        "0.0.0.0/0": False,
        "10.9.0.0/16": True,
        "::/0": False,
    }
    assert peer["state"] == "connected"
    assert peer["endpoint"] == "192.0.2.1:51820"
    assert found["interface"]["public_key"] == encode_key(ALICE_PUBLIC)
    assert found["drops"] == {"wg_bad_mac1": 3}
    assert found["healthy"] is True
    text = str(found)
    assert encode_key(ALICE_PRIVATE) not in text


def test_handshakes_of_the_key_before_prove_nothing_of_the_next() -> None:
    """Events are told late: one may be on its way when a new key comes into force."""
    bench = Bench()
    bench.start()
    proved: list[bytes] = []
    bench.device.shook_hands = proved.append
    bench.engine.handshake(BOB_PUBLIC, NOW)
    bench.device.apply(wanted(), bytes([8]) * 32)
    assert bench.engine.events() == []
    assert proved == []
    bench.engine.handshake(BOB_PUBLIC, NOW + 1)
    for event in bench.engine.events():
        bench.device.on_event(event)
    assert proved == [BOB_PUBLIC]


def test_a_peer_with_our_own_key_is_left_out_and_named() -> None:
    bench = Bench()
    bench.start(wanted(server__public_key=encode_key(ALICE_PUBLIC)))
    assert bench.engine.peers == {}
    assert bench.codes() == ["own_peer"]
