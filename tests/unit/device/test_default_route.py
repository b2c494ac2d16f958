"""The default route: what is added, and that all of it goes again, whatever fails."""

from __future__ import annotations

import errno
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_host import FakeHost
from wantastic.config.model import IpInterface
from wantastic.device import netlink as nl
from wantastic.device.default_route import DefaultRoute, free_table
from wantastic.device.footprint import Footprint
from wantastic.telemetry.log import Log

V4 = ip_network("0.0.0.0/0")
RULES4 = [nl.Rule(4, 51820, not_fwmark=51820), nl.Rule(4, 254, suppress_prefixlength=0)]


def test_both_versions_come_and_go() -> None:
    host = FakeHost()
    route = DefaultRoute(host, 77, 51820)
    route.add(4)
    assert host.policy == RULES4
    assert host.table == {(V4, 51820)}
    assert host.valid_mark == "1"
    route.add(6)
    assert len(host.policy) == 4
    route.remove()
    assert host.is_untouched


def test_a_main_rule_of_somebody_else_stays() -> None:
    host = FakeHost(policy=[RULES4[1]], valid_mark="1")
    route = DefaultRoute(host, 77, 51820)
    route.add(4)
    route.remove()
    assert host.policy == [RULES4[1]]
    assert host.valid_mark == "1"


def test_what_a_killed_run_left_is_taken_over() -> None:
    host = FakeHost(policy=list(RULES4))
    route = DefaultRoute(host, 77, 51820)
    route.add(4)
    assert host.policy == RULES4
    route.remove()
    assert host.is_untouched


@pytest.mark.parametrize("name", ["add_route4", "add_rule4"])
def test_a_refusal_leaves_nothing_behind(name: str) -> None:
    host = FakeHost(refused={name: errno.EOPNOTSUPP})
    with pytest.raises(OSError, match=r"."):
        DefaultRoute(host, 77, 51820).add(4)
    assert host.is_untouched


@pytest.mark.parametrize(
    ("code", "taken"), [(errno.EOPNOTSUPP, True), (errno.EACCES, True), (errno.ENOBUFS, False)]
)
def test_only_a_host_without_ipv6_goes_without_its_route(code: int, taken: bool) -> None:
    """Anything else would let IPv6 traffic leave outside the tunnel."""
    host = FakeHost(refused={"add_route6": code})
    footprint = Footprint(host, Log(sink=lambda level, line: None))
    footprint.ifindex = 77
    if taken:
        footprint.take_default(frozenset({4, 6}), 51820)
        assert footprint.has_default
        return
    with pytest.raises(OSError, match=r"."):
        footprint.take_default(frozenset({4, 6}), 51820)
    assert host.is_untouched


ADDRESSES = [ip_interface(a) for a in ("10.9.0.1/24", "10.9.0.2/24", "10.8.0.1/32", "fd09::1/64")]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(ADDRESSES)), max_size=12))
def test_changing_addresses_costs_no_route(steps: list[tuple[bool, IpInterface]]) -> None:
    """Linux takes routes, and other addresses, along with an IPv4 address."""
    host = FakeHost()
    footprint = Footprint(host, Log(sink=lambda level, line: None))
    footprint.ifindex = 77
    footprint.add_address(ADDRESSES[0])
    footprint.add_route(ip_network("10.20.0.0/16"))
    footprint.add_route(ip_network("fd20::/64"))
    footprint.take_default(frozenset({4, 6}), 51820)
    routes = set(host.table)
    assert len(routes) == 4
    for add, address in steps:
        if add:
            footprint.add_address(address)
        else:
            footprint.remove_address(address)
        assert host.table == routes
        assert host.addresses == footprint.addresses
    footprint.close()
    assert host.is_untouched


def test_a_table_that_is_in_use_is_left_alone() -> None:
    other = nl.RouteNotice(False, 3, "10.0.0.0", 8, 51820)
    assert free_table(FakeHost(other_routes=[other]), 0) == 51821
    assert free_table(FakeHost(), 0) == 51820
    assert free_table(FakeHost(other_routes=[other]), 99) == 99
