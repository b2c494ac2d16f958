"""What a server states, laid over a file: any statement is used or refused, and only narrows."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wantastic.config.diff import tunnel_of
from wantastic.config.model import (
    AccessRule,
    Config,
    DnsRecord,
    ExitNodeConfig,
    InterfaceConfig,
    PeerConfig,
)
from wantastic.control import auth_pb2 as pb
from wantastic.control import wire
from wantastic.control.configuration import (
    NOT_REGISTERED,
    Received,
    StatementError,
    merge,
    narrow,
    overlay,
)

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="

MESSAGE = pb.Configuration(
    addresses=pb.AddressList(addresses=["10.0.0.2/32", "fd00::2/128"]),
    mtu=1380,
    peers=pb.PeerList(
        peers=[
            pb.Peer(
                public_key=KEY,
                preshared_key=OTHER,
                allowed_ips=["10.0.0.0/8"],
                endpoints=["gw.example", "[2001:db8::1]:5"],
                persistent_keepalive_s=25,
                name="gate\x07way",
            )
        ]
    ),
    dns=pb.Dns(
        servers=["10.0.0.53"],
        search=["corp.example"],
        routes=[pb.DnsRoute(domain="corp.example", servers=["10.0.0.54:5353"])],
        records=[
            pb.DnsRecord(name="nas.corp.example", type="A", value="10.1.2.3"),
            pb.DnsRecord(name="nas.corp.example", type="AAAA", value="fd00::3"),
            pb.DnsRecord(name="x.corp.example", type="TXT", value="kept as it is", ttl_s=60),
            pb.DnsRecord(
                name="_ldap._tcp.corp.example", type="srv", value="0 5 389 Nas.corp.example."
            ),
        ],
    ),
    health=pb.HealthList(messages=[pb.HealthMessage(code="a", severity=pb.SEVERITY_ERROR)]),
    rekey_before=pb.RekeyOrder(public_key=OTHER, before_unix_s=7),
)


def over(statement: dict[str, Any], config: Config | None = None) -> Any:
    return overlay(config or Config(), NOT_REGISTERED, statement, 1000.0)


def test_everything_that_a_server_can_state() -> None:
    statement = wire.statement_of(MESSAGE)
    assert json.loads(json.dumps(statement)) == statement
    found = over(statement)
    config = found.config
    assert [str(a) for a in config.interface.addresses] == ["10.0.0.2/32", "fd00::2/128"]
    assert config.interface.mtu_bytes == 1380
    (peer,) = config.all_peers
    assert str(peer.endpoint) == "gw.example:51820"
    assert [str(e) for e in found.other_endpoints[peer.public_key]] == ["[2001:db8::1]:5"]
    assert (peer.keepalive_s, peer.name) == (25, "gate way")
    assert peer.preshared_key is not None
    assert str(config.dns.servers[0].address) == "10.0.0.53:53"
    assert str(config.dns.routes[0].servers[0].address) == "10.0.0.54:5353"
    assert config.dns.records == (("nas.corp.example", ("10.1.2.3", "fd00::3")),)
    assert config.dns.other_records == (
        DnsRecord("x.corp.example", "TXT", "kept as it is", 60),
        DnsRecord("_ldap._tcp.corp.example", "SRV", "0 5 389 nas.corp.example"),
    )
    assert found.unused_records == {"TXT": 1, "SRV": 1}
    assert found.health[0]["severity"] == "error"
    assert found.rekey is not None
    assert found.rekey[1] == 7


def test_the_cache_brings_the_same_back() -> None:
    one = Received("e", 3, wire.statement_of(MESSAGE), 5)
    again = Received.parse(one.render())
    assert again == one
    assert over(one.statement) == over(again.statement if again else {})
    assert KEY not in repr(one)


def test_the_file_keeps_what_the_server_does_not_state() -> None:
    config = Config(
        peers=(PeerConfig(bytes([9]) * 32, name="own"),), interface=InterfaceConfig(mtu_bytes=1300)
    )
    found = over(wire.statement_of(MESSAGE), config).config
    assert [p.name for p in found.all_peers] == ["gate way", "own"]
    assert found.interface.mtu_bytes == 1300  # the smaller one: the owner knows the path
    assert over({}, config).config == config


def test_absent_is_unchanged_and_empty_is_none() -> None:
    before = wire.statement_of(MESSAGE)
    assert merge(before, wire.statement_of(pb.Configuration())) == before
    emptied = merge(before, wire.statement_of(pb.Configuration(peers=pb.PeerList())))
    assert over(emptied).config.all_peers == ()
    assert over(emptied).config.interface.addresses


@pytest.mark.parametrize(
    ("allowed", "routes", "expected"),
    [
        (["10.0.0.0/8"], None, {"10.0.0.0/8"}),
        (["10.0.0.0/8"], [], set()),
        (["10.0.0.0/8"], ["10.0.0.0/8"], {"10.0.0.0/8"}),
        # Each range by itself: one that is not stated does not take the others with it.
        (["10.0.0.0/24", "10.2.0.0/24", "fd00::/64"], ["10.2.0.0/24"], {"10.2.0.0/24"}),
        # A part of what may cross; and of a wider route what may cross.
        (["0.0.0.0/0", "::/0"], ["10.0.0.0/8", "fd00::/8"], {"10.0.0.0/8", "fd00::/8"}),
        (["10.0.0.0/24", "10.1.0.0/24"], ["10.0.0.0/8"], {"10.0.0.0/24", "10.1.0.0/24"}),
        # What no peer may have is not routed: it would be swallowed.
        (["10.0.0.0/24"], ["192.168.0.0/16", "::/0"], set()),
        # A default route is the file's to take.
        (["0.0.0.0/0"], ["0.0.0.0/0"], set()),
        (["0.0.0.0/0"], None, set()),
    ],
)
def test_routes_decide_range_by_range_what_is_routed(
    allowed: list[str], routes: list[str] | None, expected: set[str]
) -> None:
    own = PeerConfig(bytes([9]) * 32, allowed_ips=(ip_network("172.16.0.0/12"),))
    statement: dict[str, Any] = {"peers": [{"public_key": KEY, "allowed_ips": allowed}]}
    if routes is not None:
        statement["routes"] = routes
    config = over(statement, Config(peers=(own,))).config
    routed = {str(n) for n in tunnel_of(config, None).routes}
    # What the file's own peers list is the file's business.
    assert routed == expected | {"172.16.0.0/12"}
    assert set(map(str, config.all_peers[0].allowed_ips)) == set(allowed)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(28, 32)), max_size=5), st.data())
def test_every_routed_address_is_stated_and_allowed(
    allowed: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Against the sets of addresses that the ranges hold."""
    routes = data.draw(st.lists(st.tuples(st.integers(0, 15), st.integers(28, 32)), max_size=5))

    def texts(pairs: list[tuple[int, int]]) -> list[str]:
        return [str(ip_network(f"10.0.0.{low}/{length}", strict=False)) for low, length in pairs]

    def addresses(ranges: Any) -> set[Any]:
        return {address for text in ranges for address in ip_network(text)}

    peer = {"public_key": KEY, "allowed_ips": texts(allowed)}
    config = over({"peers": [peer], "routes": texts(routes)}).config
    routed = addresses(map(str, tunnel_of(config, None).routes))
    assert routed == addresses(texts(allowed)) & addresses(texts(routes))


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("A", "10.0.0.1", "10.0.0.1"),
        ("A", "fd00::1", None),
        ("AAAA", "10.0.0.1", None),
        ("AAAA", "FD00::01", "fd00::1"),
        ("CNAME", "Nas.example.", "nas.example"),
        ("CNAME", "no name", None),
        ("PTR", "host.example", "host.example"),
        ("SRV", "1 2 3 t.example", "1 2 3 t.example"),
        ("SRV", "0 0 0 .", "0 0 0 ."),
        ("SRV", "1 2 t.example", None),
        ("SRV", "1 2 70000 t.example", None),
        ("SRV", "1 x 3 4 t.example", None),
        ("SRV", "", None),
        ("TXT", "v=spf1 -all \x1b", "v=spf1 -all \x1b"),
        ("TXT", "x" * 5000, None),
        ("SVCB", "1 . alpn=h2", ""),
        ("", "x", None),
    ],
)
def test_dns_records(kind: str, value: str, kept: str | None) -> None:
    statement = {"dns": {"records": [{"name": "*.X.example", "type": kind, "value": value}]}}
    if kept is None:
        with pytest.raises(StatementError, match=r"dns\.records\[0\]\.(value|type)"):
            over(statement)
        return
    found = over(statement)
    if kind in ("A", "AAAA"):
        assert found.config.dns.records == (("*.x.example", (kept,)),)
        assert found.unused_records == {}
        return
    # A type that this version does not know is counted and not kept for the resolver.
    other = (DnsRecord("*.x.example", kind, kept),) if kept else ()
    assert found.config.dns.other_records == other
    assert found.unused_records == {kind: 1}


NAMES = ["addresses", "mtu", "peers", "routes", "dns", "exit_node", "health", "rekey_before"]
INNER = ["public_key", "allowed_ips", "endpoints", "servers", "deny", "range", "domain", "name"]
LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**70), st.text("a1:/.-\x1b", max_size=8),
    st.sampled_from([KEY, "10.0.0.0/8", "h:5"]),
)  # fmt: skip
TREE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(NAMES), TREE, max_size=4))
def test_any_statement_is_used_or_refused(statement: dict[str, Any]) -> None:
    try:
        found = over(statement)
    except StatementError:
        return
    for peer in found.config.all_peers:
        assert len(peer.public_key) == 32
    assert not found.config.exit_node.enabled


@given(st.binary(max_size=100))
def test_any_cache_is_read(data: bytes) -> None:
    Received.parse(data)


def test_a_cache_nested_without_end_is_none() -> None:
    depth = 100_000
    assert Received.parse(b'{"statement":' + b"[" * depth + b"]" * depth + b"}") is None


# ---- The exit node ------------------------------------------------------------------

RANGES = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "::/0", "fd00::/8"]
PORTS = st.sampled_from([(0, 65535), (80, 443), (443, 443), (1000, 2000)])
PROTOCOL = st.sampled_from(["any", "tcp", "udp"])
RULE = st.builds(
    lambda network, protocol, ports: AccessRule(ip_network(network), protocol, ports),
    st.sampled_from(RANGES), PROTOCOL, PORTS,
)  # fmt: skip
FLOWS = [
    (address, protocol, port)
    for address in ("10.1.2.3", "10.9.9.9", "192.0.2.5", "8.8.8.8", "fd00::1", "2001:db8::1")
    for protocol in ("tcp", "udp")
    for port in (53, 80, 443, 1500)
]


def stated_rule(rule: AccessRule) -> dict[str, Any]:
    first, last = (0, 0) if rule.ports == (0, 65535) else rule.ports
    protocol = "" if rule.protocol == "any" else rule.protocol
    return {"range": str(rule.network), "protocol": protocol, "first_port": first,
            "last_port": last}  # fmt: skip


def permits(node: ExitNodeConfig, flow: tuple[str, str, int]) -> bool:
    """The rules as docs/configuration.md has them: deny wins, an empty allow list allows all."""
    address, protocol, port = flow
    network = ip_network(address)

    def hit(rule: AccessRule) -> bool:
        same = rule.network.version == network.version
        return (
            same
            and network.subnet_of(rule.network)  # type: ignore[arg-type]
            and rule.protocol in ("any", protocol)
            and rule.ports[0] <= port <= rule.ports[1]
        )

    routed = any(
        network.version == r.version and network.subnet_of(r)  # type: ignore[arg-type]
        for r in node.routes
    )
    allowed = not node.allow or any(map(hit, node.allow))
    return node.enabled and routed and allowed and not any(map(hit, node.deny))


@given(
    st.booleans(), st.lists(RULE, max_size=3), st.lists(RULE, max_size=2),
    st.lists(st.sampled_from(RANGES), max_size=3),
    st.booleans(), st.lists(RULE, max_size=3), st.lists(RULE, max_size=2),
    st.lists(st.sampled_from(RANGES), max_size=3),
)  # fmt: skip
def test_a_server_only_narrows(
    on: bool, allow: list[AccessRule], deny: list[AccessRule], routes: list[str],
    stated_on: bool, stated_allow: list[AccessRule], stated_deny: list[AccessRule],
    stated_routes: list[str],
) -> None:  # fmt: skip
    """Exactly what both allow is allowed, by a model that asks the two one after the other."""
    everything = tuple(map(ip_network, ("0.0.0.0/0", "::/0")))
    own_routes = tuple(map(ip_network, routes)) or everything
    own = ExitNodeConfig(on, own_routes, (), False, tuple(allow), tuple(deny))
    server = ExitNodeConfig(
        stated_on, tuple(map(ip_network, stated_routes)) or everything, (), True,
        tuple(stated_allow), tuple(stated_deny),
    )  # fmt: skip
    result = narrow(
        own,
        {
            "enabled": stated_on,
            "allow_lan": True,
            "routes": stated_routes,
            "allow": [stated_rule(r) for r in stated_allow],
            "deny": [stated_rule(r) for r in stated_deny],
        },
    )
    assert not result.allow_lan
    for flow in FLOWS:
        assert permits(result, flow) == (permits(own, flow) and permits(server, flow)), flow


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_the_field(name: str) -> None:
    if name == "mtu":
        return
    with pytest.raises(StatementError) as caught:
        over({name: 5})
    assert name in str(caught.value)
