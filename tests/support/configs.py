"""Configurations for tests: the document's own, and hypothesis strategies for any other."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import Any

from hypothesis import strategies as st

from wantastic.config import model
from wantastic.config.diff import Tunnel, TunnelPeer
from wantastic.config.keys import clamp, encode_key, is_low_order

# The configuration file of the product's document, as printed there.
DOCUMENT = """{
    "device_id": "unique-device-id",
    "tenant_id": "tenant-uuid",
    "private_key": "client-private-key",
    "public_key": "client-public-key",
    "server": {
        "endpoint": "wg.wantastic.app",
        "port": 51820,
        "public_key": "server-public-key"
    },
    "interface": {
        "addresses": ["10.0.0.2/32"],
        "listen_port": 51820,
        "mtu": 1420
    },
    "exit_node": {
        "enabled": false,
        "routes": ["0.0.0.0/0"],
        "dns": ["8.8.8.8", "1.1.1.1"],
        "allow_lan": false
    },
    "auth": {
        "server_url": "auth.wantastic.app:443",
        "token": "authentication-token",
        "refresh_time": "24h"
    }
}
"""

# RFC 7748, section 6.1.
ALICE_PRIVATE = clamp(
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
)
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")


def document(**changes: object) -> dict[str, Any]:
    """Return the document's file with real keys; `changes` are `section__field=value`."""
    value: dict[str, Any] = json.loads(DOCUMENT)
    value |= {"private_key": "", "public_key": ""}
    value["server"]["public_key"] = encode_key(BOB_PUBLIC)
    for name, new in changes.items():
        *path, last = name.split("__")
        table = value
        for step in path:
            table = table.setdefault(step, {})
        table[last] = new
    return value


public_keys = st.binary(min_size=32, max_size=32).filter(lambda k: not is_low_order(k))
private_keys = st.binary(min_size=32, max_size=32).map(clamp)
secrets = st.binary(min_size=32, max_size=32).filter(any)
texts = st.text(max_size=20).filter(str.isprintable)
names = st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z][a-z0-9]{0,5}){0,2}", fullmatch=True)
addresses = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: not a.scope_id)
).map(str)
hosts = st.one_of(names, addresses)
ports = st.integers(1, 65535)
places = st.builds(model.HostPort, hosts, ports)
numeric_places = st.builds(model.HostPort, addresses, ports)


def _network(version: int, bits: int, length: int) -> model.IpNetwork:
    address = IPv4Address(bits % 2**32) if version == 4 else IPv6Address(bits)
    return ip_network(f"{address}/{length % (33 if version == 4 else 129)}", strict=False)


ranges = st.builds(
    _network, st.sampled_from([4, 6]), st.integers(0, 2**128 - 1), st.integers(0, 4289)
)
range_sets = st.lists(ranges, max_size=4, unique=True).map(tuple)


def _usable(address: IPv4Address | IPv6Address) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_loopback)


own_addresses = st.lists(
    st.ip_addresses().filter(_usable).map(ip_interface), max_size=3, unique_by=lambda a: a.ip
).map(tuple)
file_names = st.one_of(st.just(""), st.from_regex(r"/[a-z]{1,8}/[a-z.]{1,8}", fullmatch=True))
dns_servers = st.builds(model.DnsServer, numeric_places, st.one_of(st.just(""), names))
rules = st.builds(
    model.AccessRule,
    ranges,
    st.sampled_from(["any", "tcp", "udp"]),
    st.tuples(ports, ports).map(lambda p: (min(p), max(p))),
) | st.builds(model.AccessRule, ranges, st.just("icmp"))
keepalives = st.integers(0, 65535)


proxies = st.builds(
    model.ProxyListenConfig, st.just(model.HostPort("127.0.0.1", 1080))
) | st.builds(
    model.ProxyListenConfig,
    st.builds(model.HostPort, addresses, st.integers(1, 2000)),
    st.just("user"),
    texts.filter(bool),
)
logins = st.builds(
    model.ProxyListenConfig,
    st.builds(model.HostPort, addresses, st.integers(3000, 4000)),
    st.just("user"),
    texts.filter(bool),
)
forwards = st.builds(
    model.ForwardConfig, st.just("local"), st.just("tcp"), numeric_places, places
) | st.builds(
    model.ForwardConfig,
    st.just("tunnel"),
    st.sampled_from(model.FORWARD_PROTOCOLS),
    st.builds(model.HostPort, st.just(""), ports),
    numeric_places,
)


@st.composite
def configs(draw: st.DrawFn) -> model.Config:
    """Any configuration that parse_config() may return."""
    keys = draw(st.lists(public_keys, max_size=4, unique=True))
    owned: set[model.IpNetwork] = set()
    peers = []
    for key in keys:
        allowed = tuple(n for n in draw(range_sets) if n not in owned)
        owned |= set(allowed)
        peers.append(
            model.PeerConfig(
                public_key=key,
                endpoint=draw(st.none() | places),
                preshared_key=draw(st.none() | secrets),
                allowed_ips=allowed,
                keepalive_s=draw(keepalives),
                name=draw(texts),
            )
        )
    has_server = bool(peers) and draw(st.booleans())
    return model.Config(
        device_id=draw(texts),
        tenant_id=draw(texts),
        private_key=draw(st.none() | private_keys),
        server=peers[0] if has_server else None,
        peers=tuple(peers[1:] if has_server else peers),
        interface=model.InterfaceConfig(
            name=draw(st.from_regex(r"[a-z][a-z0-9_-]{0,14}", fullmatch=True)),
            addresses=draw(own_addresses),
            listen_port=draw(st.integers(0, 65535)),
            strict_port=draw(st.booleans()),
            mtu_bytes=draw(st.integers(1280, 9000)),
            mode=draw(st.sampled_from(model.MODES)),
            default_route=draw(st.booleans()),
            fwmark=draw(st.integers(0, 2**32 - 1)),
            bind_interface=draw(st.sampled_from(["", "ETH0"])),
        ),
        exit_node=model.ExitNodeConfig(
            enabled=draw(st.booleans()),
            routes=draw(range_sets),
            dns=tuple(map(str, draw(st.lists(numeric_places, max_size=2)))),
            allow_lan=draw(st.booleans()),
            allow=tuple(draw(st.lists(rules, max_size=3))),
            deny=tuple(draw(st.lists(rules, max_size=3))),
        ),
        dns=model.DnsConfig(
            listen=draw(st.none() | places),
            servers=tuple(draw(st.lists(dns_servers, max_size=2))),
            search=tuple(draw(st.lists(names, max_size=2))),
            routes=tuple(
                model.DnsRoute(domain, tuple(draw(st.lists(dns_servers, max_size=2))))
                for domain in draw(st.lists(names, max_size=2, unique=True))
            ),
            records=tuple(
                (domain, tuple(draw(st.lists(addresses, max_size=2))))
                for domain in draw(st.lists(names, max_size=2, unique=True))
            ),
            cache_entries=draw(st.integers(0, 100_000)),
        ),
        proxy=model.ProxyConfig(draw(st.none() | proxies), draw(st.none() | logins)),
        forwards=tuple(draw(st.lists(forwards, max_size=4, unique_by=lambda f: f.listen))),
        auth=model.AuthConfig(
            server_url=draw(st.none() | places),
            auth_url=draw(st.sampled_from(["", "https://wantastic.app/auth/device"])),
            token=draw(texts),
            refresh_time_ns=draw(st.integers(60_000_000_000, 2**62)),
            ca_file=draw(file_names),
            server_name=draw(texts),
            insecure=draw(st.booleans()),
            transport=draw(st.sampled_from(model.TRANSPORTS)),
            key_rotation_ns=draw(st.just(0) | st.integers(60_000_000_000, 2**62)),
        ),
        log=draw(
            st.builds(
                model.LogConfig,
                st.sampled_from(model.LOG_LEVELS),
                st.sampled_from(model.LOG_FORMATS),
                st.sampled_from(model.LOG_TARGETS),
            )
        ),
        state_dir=draw(st.from_regex(r"/[a-z]{1,8}", fullmatch=True)),
        memory_limit_bytes=draw(st.integers(4 << 20, 2 << 30)),
        threads=draw(st.integers(1, 16)),
    )


# Few keys and ranges, so that two tunnels often share some.
_few_keys = st.integers(0, 3).map(lambda n: bytes([n + 2]) * 32)
_few_ranges = st.integers(0, 5).map(lambda n: ip_network(f"10.{n}.0.0/16"))
_few_addresses = st.integers(1, 4).map(lambda n: ip_interface(f"10.0.0.{n}/24"))


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    """Small tunnels that differ in little; no range belongs to two peers."""
    free = draw(st.sets(_few_ranges))
    peers = []
    for key in draw(st.lists(_few_keys, max_size=3, unique=True)):
        mine = frozenset(n for n in sorted(free) if draw(st.booleans()))
        free -= mine
        peers.append(
            TunnelPeer(
                key,
                preshared_key=draw(st.sampled_from([bytes(32), b"p" * 32])),
                endpoint=draw(st.sampled_from([None, model.HostPort("a", 1)])),
                keepalive_s=draw(st.integers(0, 1)),
                allowed_ips=mine,
            )
        )
    return Tunnel(
        private_key=draw(st.sampled_from([None, ALICE_PRIVATE])),
        listen_port=draw(st.integers(0, 1)),
        fwmark=draw(st.integers(0, 1)),
        bind_interface=draw(st.sampled_from(["", "eth0"])),
        mtu_bytes=draw(st.sampled_from([1280, 1420])),
        addresses=frozenset(draw(st.sets(_few_addresses))),
        routes=frozenset(draw(st.sets(_few_ranges))),
        default_route=frozenset(draw(st.sets(st.sampled_from([4, 6])))),
        peers=tuple(peers),
    )
