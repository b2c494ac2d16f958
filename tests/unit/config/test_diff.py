"""Differences between tunnels: a naive model applies them and must arrive."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import ALICE_PRIVATE, BOB_PUBLIC, document, tunnels
from tests.unit.config.test_parse import parse
from wantastic.config import diff as d
from wantastic.config.diff import Tunnel, TunnelPeer, diff, tunnel_of
from wantastic.config.model import HostPort

FIELD = {
    d.SetPrivateKey: ("private_key", "private_key"),
    d.SetListenPort: ("listen_port", "port"),
    d.SetFwmark: ("fwmark", "mark"),
    d.SetBindInterface: ("bind_interface", "name"),
    d.SetMtu: ("mtu_bytes", "mtu_bytes"),
    d.SetDefaultRoute: ("default_route", "versions"),
}


@singledispatch
def apply(change: object, tunnel: Tunnel) -> Tunnel:
    field, value = FIELD[type(change)]
    assert getattr(tunnel, field) != getattr(change, value), "a change that changes nothing"
    return replace(tunnel, **{field: getattr(change, value)})


@apply.register
def _(change: d.AddAddress, tunnel: Tunnel) -> Tunnel:
    assert change.address not in tunnel.addresses
    return replace(tunnel, addresses=tunnel.addresses | {change.address})


@apply.register
def _(change: d.RemoveAddress, tunnel: Tunnel) -> Tunnel:
    assert change.address in tunnel.addresses
    return replace(tunnel, addresses=tunnel.addresses - {change.address})


@apply.register
def _(change: d.AddRoute, tunnel: Tunnel) -> Tunnel:
    return replace(tunnel, routes=tunnel.routes | {change.network})


@apply.register
def _(change: d.RemoveRoute, tunnel: Tunnel) -> Tunnel:
    return replace(tunnel, routes=tunnel.routes - {change.network})


@apply.register
def _(change: d.RemovePeer, tunnel: Tunnel) -> Tunnel:
    kept = tuple(p for p in tunnel.peers if p.public_key != change.public_key)
    assert len(kept) == len(tunnel.peers) - 1
    return replace(tunnel, peers=kept)


@apply.register
def _(change: d.SetPeer, tunnel: Tunnel) -> Tunnel:
    """As the engine does: a range that is given to one peer is taken from the others."""
    peers = {p.public_key: p for p in tunnel.peers}
    peer = peers.get(change.public_key, TunnelPeer(change.public_key))
    added = set(change.added_allowed_ips)
    for key, other in peers.items():
        peers[key] = replace(other, allowed_ips=other.allowed_ips - added)
    peers[change.public_key] = replace(
        peer,
        preshared_key=(
            peer.preshared_key if change.preshared_key is None else change.preshared_key
        ),
        endpoint=change.endpoint or peer.endpoint,
        keepalive_s=peer.keepalive_s if change.keepalive_s is None else change.keepalive_s,
        allowed_ips=(peer.allowed_ips - set(change.removed_allowed_ips)) | added,
    )
    return replace(tunnel, peers=tuple(peers.values()))


def comparable(tunnel: Tunnel, endpoints: Tunnel) -> Tunnel:
    """Peers in any order; an endpoint that is not wanted any more stays as it was."""
    before = {p.public_key: p.endpoint for p in endpoints.peers}
    peers = [
        p if p.endpoint else replace(p, endpoint=before.get(p.public_key)) for p in tunnel.peers
    ]
    return replace(tunnel, peers=tuple(sorted(peers, key=lambda p: p.public_key)))


@given(tunnels(), tunnels())
def test_applying_the_difference_arrives(running: Tunnel, wanted: Tunnel) -> None:
    tunnel = running
    for change in diff(running, wanted):
        tunnel = apply(change, tunnel)
    assert comparable(tunnel, running) == comparable(wanted, running)


@given(tunnels())
def test_equal_tunnels_need_nothing(tunnel: Tunnel) -> None:
    assert diff(tunnel, tunnel) == ()
    assert diff(tunnel, replace(tunnel, peers=tuple(reversed(tunnel.peers)))) == ()


@given(tunnels(), tunnels())
def test_an_equal_peer_is_never_touched(running: Tunnel, wanted: Tunnel) -> None:
    same = {p.public_key for p in running.peers} & {
        w.public_key for w in wanted.peers if w in running.peers
    }
    for change in diff(running, wanted):
        if isinstance(change, d.SetPeer | d.RemovePeer):
            assert change.public_key not in same


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"interface__mtu": 1400}, [d.SetMtu(1400)]),
        ({"interface__listen_port": 0}, [d.SetListenPort(0)]),
        ({"interface__default_route": True}, [d.SetDefaultRoute(frozenset({4, 6}))]),
        (
            {"server__persistent_keepalive": 25},
            [d.SetPeer(BOB_PUBLIC, keepalive_s=25)],
        ),
        (
            {"server__endpoint": "192.0.2.1"},
            [d.SetPeer(BOB_PUBLIC, endpoint=HostPort("192.0.2.1", 51820))],
        ),
        # Listing what was allowed anyway changes the routes only, and never by a default route.
        (
            {"server__allowed_ips": ["0.0.0.0/0", "::/0"]},
            [],
        ),
        ({"device_id": "other", "log__level": "debug"}, []),
    ],
)
def test_one_edit_of_the_file_is_one_change(
    changes: dict[str, object], expected: list[d.Change]
) -> None:
    old = tunnel_of(parse(document()), ALICE_PRIVATE)
    assert list(diff(old, tunnel_of(parse(document(**changes)), ALICE_PRIVATE))) == expected


def test_routes_are_the_listed_ranges_without_the_default_one() -> None:
    listed = document(server__allowed_ips=["0.0.0.0/0", "10.9.0.0/16"])
    assert tunnel_of(parse(listed), None).routes == {ip_network("10.9.0.0/16")}
    assert tunnel_of(parse(document()), None).routes == frozenset()


INTERFACES = [f"10.{n}.0.{host}/{bits}" for n in (1, 2) for host in (1, 2) for bits in (24, 32)]


@given(st.sets(st.sampled_from(INTERFACES)), st.sets(st.sampled_from(INTERFACES)))
def test_an_interface_keeps_an_ipv4_address_where_it_can(
    running: set[str], wanted: set[str]
) -> None:
    """Without one Linux drops its IPv4 routes, and traffic would leave beside the tunnel."""
    before = Tunnel(addresses=frozenset(map(ip_interface, running)))
    after = Tunnel(addresses=frozenset(map(ip_interface, wanted)))
    there = set(before.addresses)
    gone = before.addresses - after.addresses
    new = after.addresses - before.addresses
    apart = {a for a in new if gone and not any(a.network.overlaps(b.network) for b in gone)}
    for change in d.diff(before, after):
        if isinstance(change, d.AddAddress):
            there.add(change.address)
        elif isinstance(change, d.RemoveAddress):
            # The kernel takes the others of its subnet along that are not its first.
            assert change.address in there
            there.discard(change.address)
            assert apart <= there
    assert there == after.addresses
