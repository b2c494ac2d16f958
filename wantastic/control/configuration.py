"""What the control server states about this device: checked, cached, laid over the file.

A Statement is plain JSON values, one entry for each part that the server stated; a part that
is not there is not stated, and the device's own file decides it. It is kept in this form on
flash, so that a cold start needs no protobuf.

    wire.statement_of(message) -> Statement;  merge(before, change) -> Statement
    overlay(file's Config, registration, Statement, now) -> Config, or StatementError

Rules of overlay: the server's peers replace the file's `server` and stand beside the file's
further `peers` (the server's version of a key wins); everything about the exit node can
only become narrower; a default route comes from the file alone. Stated routes lead what
they have in common with a peer's allowed ranges to that peer: a route beyond them would
swallow packets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from wantastic.config import keys
from wantastic.config.model import (
    DEFAULT_PORT,
    EVERYTHING,
    PROTOCOLS,
    AccessRule,
    Config,
    DnsConfig,
    DnsRecord,
    DnsRoute,
    ExitNodeConfig,
    HostPort,
    IpNetwork,
    PeerConfig,
)
from wantastic.config.values import (
    is_name,
    parse_dns_server,
    parse_host_port,
    parse_interface,
    parse_network,
)

Statement = dict[str, Any]
T = TypeVar("T")

MAX_PEERS: Final = 4096
MAX_ITEMS: Final = 4096
MIN_MTU_BYTES: Final = 576
MAX_MTU_BYTES: Final = 65535
MAX_KEEPALIVE_S: Final = 65535
MAX_TXT_BYTES: Final = 4096
ADDRESS_RECORDS: Final = {"A": 4, "AAAA": 6}
"""DNS record type -> IP version of its value."""


class StatementError(ValueError):
    """The server's configuration cannot be used; the text names the field."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What RegisterDevice said about the gateway; the only peer until a statement lists some."""

    server_key: str = ""
    endpoint: str = ""


NOT_REGISTERED: Final = Registration()


@dataclass(frozen=True, slots=True)
class Received:
    """A configuration of the server, as cached."""

    etag: str
    version: int
    statement: Statement = field(repr=False)
    received_unix_s: int = 0

    def render(self) -> bytes:
        value = {
            "etag": self.etag,
            "version": self.version,
            "statement": self.statement,
            "received_unix_s": self.received_unix_s,
        }
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, data: bytes) -> Received | None:
        """Return what render() wrote; None for anything else."""
        try:
            value = json.loads(data)
            found = cls(
                str(value["etag"]),
                int(value["version"]),
                value["statement"],
                int(value["received_unix_s"]),
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return found if isinstance(found.statement, dict) else None


@dataclass(frozen=True, slots=True)
class Effective:
    """A file's configuration with the server's statement laid over it."""

    config: Config
    other_endpoints: dict[bytes, tuple[HostPort, ...]] = field(default_factory=dict)
    """Further endpoints of a peer, to be tried when the first does not answer."""
    expires_unix_s: int = 0
    """When the first of the peers expires; 0: none does."""
    health: tuple[dict[str, str], ...] = ()
    rekey: tuple[bytes, int] | None = None
    """The public key to be replaced, and until when (Unix time)."""
    unused_records: dict[str, int] = field(default_factory=dict)
    """How many DNS records of which type are not answered."""


def merge(before: Statement, change: Statement) -> Statement:
    """Return `before` with the parts of `change` in place of its own."""
    return {**before, **change}


def overlay(
    config: Config, registration: Registration, statement: Statement, now_unix_s: float
) -> Effective:
    """Return what the device should run. StatementError."""
    others: dict[bytes, tuple[HostPort, ...]] = {}
    expiries: list[int] = []
    result = config
    if registration.server_key and "peers" not in statement:
        gateway = _registered_peer(registration)
        result = replace(result, server=_with_files_extras(gateway, config.server))
    routes = _routes(statement)
    if "peers" in statement:
        peers = []
        for index, entry in enumerate(_list(statement, "peers", MAX_PEERS)):
            peer, more, expires = _peer(f"peers[{index}]", entry, routes)
            if expires and expires <= now_unix_s:
                continue
            if expires:
                expiries.append(expires)
            if more:
                others[peer.public_key] = more
            peers.append(peer)
        stated = {peer.public_key for peer in peers}
        if len(stated) != len(peers):
            raise StatementError("peers: a key is there twice")
        own = [peer for peer in config.peers if peer.public_key not in stated]
        result = replace(result, server=None, peers=(*peers, *own))
        _check_ranges(result.peers)
    interface = result.interface
    if "addresses" in statement:
        found = _each(statement, "addresses", parse_interface)
        interface = replace(interface, addresses=tuple(dict.fromkeys(found)))
    if mtu := _number(statement, "mtu", MAX_MTU_BYTES):
        if mtu < MIN_MTU_BYTES:
            raise StatementError(f"mtu: {mtu} is below {MIN_MTU_BYTES}")
        interface = replace(interface, mtu_bytes=min(mtu, interface.mtu_bytes))
    result = replace(result, interface=interface)
    unused: dict[str, int] = {}
    if "dns" in statement:
        result = replace(result, dns=_dns(result.dns, _table(statement, "dns"), unused))
    if "exit_node" in statement:
        narrowed = narrow(result.exit_node, _table(statement, "exit_node"))
        result = replace(result, exit_node=narrowed)
    return Effective(
        result, others, min(expiries, default=0), _health(statement), _rekey(statement), unused
    )


# ---- Parts --------------------------------------------------------------------------


def _registered_peer(registration: Registration) -> PeerConfig:
    key = _key("server_key", registration.server_key)
    endpoint = _host_port("endpoint", registration.endpoint) if registration.endpoint else None
    return PeerConfig(key, endpoint, allowed_ips=EVERYTHING, allowed_ips_listed=False)


def _with_files_extras(gateway: PeerConfig, own: PeerConfig | None) -> PeerConfig:
    """Keep what the file says about the gateway beyond its key and place."""
    if own is None:
        return gateway
    return replace(own, public_key=gateway.public_key, endpoint=gateway.endpoint or own.endpoint)


def _peer(
    at: str, entry: Any, routes: tuple[IpNetwork, ...] | None
) -> tuple[PeerConfig, tuple[HostPort, ...], int]:
    if not isinstance(entry, dict):
        raise StatementError(f"{at}: is no table")
    key = _key(f"{at}.public_key", entry.get("public_key", ""))
    psk_text = entry.get("preshared_key", "")
    try:
        preshared = keys.decode_key(psk_text) if psk_text else None
    except (ValueError, TypeError):
        raise StatementError(f"{at}.preshared_key: is no WireGuard key") from None
    allowed = tuple(dict.fromkeys(_each(entry, "allowed_ips", parse_network, at)))
    endpoints = _each(entry, "endpoints", lambda t: parse_host_port(t, DEFAULT_PORT), at)
    peer = PeerConfig(
        key,
        endpoints[0] if endpoints else None,
        preshared_key=None if preshared == keys.NO_KEY else preshared,
        allowed_ips=allowed,
        keepalive_s=_number(entry, "persistent_keepalive_s", MAX_KEEPALIVE_S, at),
        name=clean(entry.get("name", ""), 64),
        stated_routes=None if routes is None else _routed(allowed, routes),
    )
    return peer, tuple(endpoints[1:]), _number(entry, "expires_unix_s", 2**53, at)


def _routes(statement: Statement) -> tuple[IpNetwork, ...] | None:
    """Return the ranges to be routed; None when the server leaves it to the allowed ranges."""
    if "routes" not in statement:
        return None
    return tuple(dict.fromkeys(_each(statement, "routes", parse_network)))


def _routed(allowed: tuple[IpNetwork, ...], routes: tuple[IpNetwork, ...]) -> tuple[IpNetwork, ...]:
    """Return the stated routes as far as a peer may have their packets."""
    common = (_common(route, network) for route in routes for network in allowed)
    found = list(dict.fromkeys(n for n in common if n is not None))
    if len(found) > MAX_ITEMS:
        raise StatementError(f"routes: a peer would get more than {MAX_ITEMS}")
    return tuple(found)


def _check_ranges(peers: Iterable[PeerConfig]) -> None:
    holder: dict[object, bytes] = {}
    for peer in peers:
        for network in peer.allowed_ips:
            if holder.setdefault(network, peer.public_key) != peer.public_key:
                raise StatementError(f"peers: the range {network} is at two peers")


def _dns(own: DnsConfig, stated: dict[str, Any], unused: dict[str, int]) -> DnsConfig:
    """Return the file's resolver with the server's servers, routes and records added to it."""
    servers = tuple(_each(stated, "servers", parse_dns_server, "dns"))
    search = tuple(_each(stated, "search", _domain, "dns"))
    routes = {route.domain: route for route in own.routes}
    for index, entry in enumerate(_list(stated, "routes", MAX_ITEMS, "dns")):
        at = f"dns.routes[{index}]"
        if not isinstance(entry, dict):
            raise StatementError(f"{at}: is no table")
        domain = _domain(str(entry.get("domain", "")))
        found = tuple(_each(entry, "servers", parse_dns_server, at))
        routes.setdefault(domain, DnsRoute(domain, found))
    records: dict[str, tuple[str, ...]] = dict(own.records)
    others: list[DnsRecord] = []
    for index, entry in enumerate(_list(stated, "records", MAX_ITEMS, "dns")):
        record = _record(f"dns.records[{index}]", entry)
        if record.type in ADDRESS_RECORDS:
            records[record.name] = (*records.get(record.name, ()), record.value)
            continue
        unused[record.type] = unused.get(record.type, 0) + 1
        if record.type in RECORD_VALUES:
            others.append(record)
    return replace(
        own,
        servers=own.servers or servers,
        search=tuple(dict.fromkeys((*own.search, *search))),
        routes=tuple(routes.values()),
        records=tuple(records.items()),
        other_records=tuple(dict.fromkeys(others)),
    )


def _record(at: str, entry: Any) -> DnsRecord:
    """Return a record; of a type that this version does not know, as far as it can be read."""
    if not isinstance(entry, dict):
        raise StatementError(f"{at}: is no table")
    kind = clean(entry.get("type", ""), 16).upper()
    if not kind.isalnum():
        raise StatementError(f"{at}.type: is no record type")
    name = _record_name(str(entry.get("name", "")))
    text = str(entry.get("value", ""))
    try:
        value = RECORD_VALUES[kind](text) if kind in RECORD_VALUES else ""
    except ValueError:
        shown = clean(text, 60)
        raise StatementError(f"{at}.value: {shown} is no value of {kind} for {name}") from None
    return DnsRecord(name, kind, value, _number(entry, "ttl_s", 2**31 - 1, at))


def _record_name(text: str) -> str:
    """Return an owner's name, which unlike a host's may have labels like _sip and *."""
    name = text.rstrip(".").lower()
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not is_name(".".join(label.removeprefix("_") for label in labels)):
        raise StatementError(f"dns: {clean(text, 60)} is no domain name")
    return name


def _address_value(version: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        address = parse_interface(text).ip
        if address.version != version:
            raise ValueError(text)
        return str(address)

    return parse


def _service_value(text: str) -> str:
    """Return an SRV record's priority, weight, port and target (RFC 2782)."""
    *numbers, target = text.split()
    priority, weight, port = (int(n) for n in numbers if n.isascii() and n.isdigit())
    if len(numbers) != 3 or max(priority, weight, port) > 65535:
        raise ValueError(text)
    # "." says that the service is decidedly not available.
    where = "." if target == "." else _record_name(target)
    return f"{priority} {weight} {port} {where}"


def _text_value(text: str) -> str:
    if len(text.encode()) > MAX_TXT_BYTES:
        raise ValueError(text)
    return text


RECORD_VALUES: Final[dict[str, Callable[[str], str]]] = {
    "A": _address_value(4),
    "AAAA": _address_value(6),
    "CNAME": _record_name,
    "PTR": _record_name,
    "SRV": _service_value,
    "TXT": _text_value,
}


def narrow(own: ExitNodeConfig, stated: dict[str, Any]) -> ExitNodeConfig:
    """Return what both the device's owner and the server allow."""
    deny = [_rule(f"exit_node.deny[{i}]", e) for i, e in enumerate(_list(stated, "deny"))]
    allow = [_rule(f"exit_node.allow[{i}]", e) for i, e in enumerate(_list(stated, "allow"))]
    routes = tuple(_each(stated, "routes", parse_network, "exit_node"))
    if routes:
        routes = tuple(
            dict.fromkeys(n for a in own.routes for b in routes if (n := _common(a, b)) is not None)
        )
    kept = own.allow or tuple(allow)
    if own.allow and allow:
        both = (rule for a in own.allow for b in allow if (rule := _common_rule(a, b)))
        kept = tuple(dict.fromkeys(both))
    enabled = own.enabled and bool(stated.get("enabled"))
    if own.allow and allow and not kept:
        # An empty list would mean "everything".
        enabled = False
    if stated.get("routes") and not routes:
        enabled = False
    return replace(
        own,
        enabled=enabled,
        allow_lan=own.allow_lan and bool(stated.get("allow_lan")),
        routes=routes or own.routes,
        dns=own.dns or tuple(str(s.address.host) for s in _dns_servers(stated)),
        allow=kept,
        deny=tuple(dict.fromkeys((*own.deny, *deny))),
    )


def _dns_servers(stated: dict[str, Any]) -> list[Any]:
    return _each(stated, "dns", parse_dns_server, "exit_node")


def _common(a: Any, b: Any) -> Any | None:
    """Return the smaller of two ranges when one holds the other."""
    if a.version != b.version:
        return None
    if a.subnet_of(b):
        return a
    return b if b.subnet_of(a) else None


def _common_rule(a: AccessRule, b: AccessRule) -> AccessRule | None:
    network = _common(a.network, b.network)
    ports = (max(a.ports[0], b.ports[0]), min(a.ports[1], b.ports[1]))
    protocol = a.protocol if b.protocol == "any" else b.protocol
    if network is None or ports[0] > ports[1] or a.protocol not in ("any", protocol):
        return None
    return AccessRule(network, protocol, ports)


def _rule(at: str, entry: Any) -> AccessRule:
    if not isinstance(entry, dict):
        raise StatementError(f"{at}: is no table")
    protocol = next((p for p in PROTOCOLS if p == (entry.get("protocol") or "any")), None)
    if protocol is None:
        raise StatementError(f"{at}.protocol: is not any, tcp, udp or icmp")
    low = _number(entry, "first_port", 65535, at)
    high = _number(entry, "last_port", 65535, at)
    if not low and not high:
        low, high = 0, 65535
    elif low > high:
        raise StatementError(f"{at}: the port range ends before it starts")
    try:
        network = parse_network(str(entry.get("range", "")))
    except ValueError:
        raise StatementError(f"{at}.range: is no range") from None
    return AccessRule(network, protocol, (low, high))


def _health(statement: Statement) -> tuple[dict[str, str], ...]:
    found = []
    for entry in _list(statement, "health", 32):
        if isinstance(entry, dict) and entry.get("code"):
            severity = entry.get("severity")
            found.append(
                {
                    "code": clean(entry["code"], 40),
                    "severity": severity if severity in ("error", "warning") else "info",
                    "reason": clean(entry.get("reason", ""), 200),
                    "remedy": clean(entry.get("remedy", ""), 200),
                }
            )
    return tuple(found)


def _rekey(statement: Statement) -> tuple[bytes, int] | None:
    if "rekey_before" not in statement:
        return None
    order = _table(statement, "rekey_before")
    if not order.get("public_key"):
        return None
    when = _number(order, "before_unix_s", 2**53, "rekey_before")
    return _key("rekey_before.public_key", order["public_key"]), when


# ---- Values -------------------------------------------------------------------------


def clean(value: object, most: int) -> str:
    """Return text of the server's as it may be shown and logged: printable, short, one line."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: most * 2])
    return text.strip()[:most]


def _key(at: str, text: object) -> bytes:
    try:
        key = keys.decode_key(str(text))
    except ValueError as error:
        raise StatementError(f"{at}: {error}") from None
    if keys.is_low_order(key):
        raise StatementError(f"{at}: gives no secrecy (low order)")
    return key


def _host_port(at: str, text: str) -> HostPort:
    try:
        return parse_host_port(text, DEFAULT_PORT)
    except ValueError as error:
        raise StatementError(f"{at}: {error}: {clean(text, 60)}") from None


def _domain(text: str) -> str:
    name = text.rstrip(".").lower()
    if not is_name(name):
        raise StatementError(f"dns: {clean(text, 60)} is no domain name")
    return name


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    if not isinstance(found, dict):
        raise StatementError(f"{name}: is no table")
    return found


def _list(values: dict[str, Any], name: str, most: int = MAX_ITEMS, at: str = "") -> list[Any]:
    found = values.get(name, [])
    where = f"{at}.{name}" if at else name
    if not isinstance(found, list):
        raise StatementError(f"{where}: is no list")
    if len(found) > most:
        raise StatementError(f"{where}: has {len(found)} entries, more than {most}")
    return found


def _each(values: dict[str, Any], name: str, parse: Callable[[str], T], at: str = "") -> list[T]:
    result = []
    for index, text in enumerate(_list(values, name, MAX_ITEMS, at)):
        try:
            result.append(parse(str(text)))
        except ValueError as error:
            if isinstance(error, StatementError):
                raise
            where = f"{at}.{name}" if at else name
            raise StatementError(f"{where}[{index}]: {clean(text, 60)} is not usable") from None
    return result


def _number(values: dict[str, Any], name: str, most: int, at: str = "") -> int:
    found = values.get(name, 0)
    if not isinstance(found, int) or not 0 <= found <= most:
        where = f"{at}.{name}" if at else name
        raise StatementError(f"{where}: is not a number from 0 to {most}")
    return found
