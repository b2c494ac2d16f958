"""rtnetlink as bytes: what we ask the kernel for and what it tells; no I/O.

A request is made by one of the functions below and sent with a header by frame().
Answers and notices are taken apart by parse(); a message that is cut short or of a
kind that we do not know is skipped, so that a newer kernel cannot break us.
Layouts are those of <linux/rtnetlink.h>, in the CPU's own byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from wantastic.config.model import IpInterface, IpNetwork

NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200

# Multicast groups of notices: RTMGRP_LINK, IPV4/IPV6 IFADDR, IPV4/IPV6 ROUTE.
GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400

AF_INET, AF_INET6 = 2, 10
IFF_UP = 0x1
IFLA_IFNAME, IFLA_MTU = 3, 4
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_TABLE = 1, 4, 6, 15
FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE = 6, 10, 14, 15
# Destination, source, interfaces, tunnel id, user, protocol, ports.
FRA_SELECTORS = frozenset({1, 2, 3, 12, 17, 20, 22, 23, 24})
FIB_RULE_INVERT = 0x2
FR_ACT_TO_TBL = 1
RT_TABLE_UNSPEC, RT_TABLE_MAIN = 0, 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTN_UNICAST = 1
NLMSGERR_ATTR_MSG = 1
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
# rtmsg and fib_rule_hdr share this shape.
_ROUTE = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")
_ERROR = struct.Struct("=i")

FAMILY = {4: AF_INET, 6: AF_INET6}


@dataclass(frozen=True, slots=True)
class Request:
    """A message without its header."""

    kind: int
    flags: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing policy rule; `not_fwmark` matches packets that lack the mark."""

    version: int
    table: int
    not_fwmark: int | None = None
    suppress_prefixlength: int | None = None
    # Has further selectors (source, interface, ports, ...), which we never set.
    selective: bool = False


@dataclass(frozen=True, slots=True)
class LinkNotice:
    gone: bool
    ifindex: int
    name: str
    up: bool
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class AddressNotice:
    gone: bool
    ifindex: int
    address: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class RouteNotice:
    gone: bool
    ifindex: int
    destination: str
    prefix_length: int
    table: int


@dataclass(frozen=True, slots=True)
class RuleNotice:
    gone: bool
    rule: Rule


@dataclass(frozen=True, slots=True)
class Answer:
    """The kernel's verdict on a request: 0 or an errno, and its own words if any."""

    errno: int
    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a dump."""

    errno: int


Body: TypeAlias = LinkNotice | AddressNotice | RouteNotice | RuleNotice | Answer | Done


@dataclass(frozen=True, slots=True)
class Message:
    sequence: int
    body: Body


def _align(length: int) -> int:
    return (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    data = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return data + bytes(_align(len(data)) - len(data))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def frame(request: Request, sequence: int) -> bytes:
    """Return a request as it goes over the socket."""
    length = _HEADER.size + len(request.payload)
    header = _HEADER.pack(length, request.kind, request.flags | NLM_F_REQUEST, sequence, 0)
    return header + request.payload


# -- requests --


def link_change(ifindex: int, *, up: bool | None = None, mtu_bytes: int | None = None) -> Request:
    """Set a link up or down, and its MTU."""
    change = IFF_UP if up is not None else 0
    payload = _LINK.pack(0, 0, ifindex, IFF_UP if up else 0, change)
    if mtu_bytes is not None:
        payload += _number(IFLA_MTU, mtu_bytes)
    return Request(RTM_NEWLINK, NLM_F_ACK, payload)


def address_change(ifindex: int, address: IpInterface, *, add: bool) -> Request:
    """Add or remove an address; an address that exists is an error (EEXIST)."""
    raw = address.ip.packed
    scope = RT_SCOPE_LINK if address.ip.is_link_local else RT_SCOPE_UNIVERSE
    payload = _ADDRESS.pack(FAMILY[address.version], address.network.prefixlen, 0, scope, ifindex)
    payload += attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    flags = NLM_F_CREATE | NLM_F_EXCL if add else 0
    return Request(RTM_NEWADDR if add else RTM_DELADDR, NLM_F_ACK | flags, payload)


def route_change(
    ifindex: int, network: IpNetwork, *, add: bool, table: int = RT_TABLE_MAIN
) -> Request:
    """Add or remove a route into an interface; one that exists is an error (EEXIST)."""
    scope = RT_SCOPE_LINK if network.version == 4 else RT_SCOPE_UNIVERSE
    payload = _ROUTE.pack(
        FAMILY[network.version],
        network.prefixlen,
        0,
        0,
        table if table < 256 else RT_TABLE_UNSPEC,
        RTPROT_BOOT if add else 0,
        scope if add else RT_SCOPE_NOWHERE,
        RTN_UNICAST if add else 0,
        0,
    )
    if network.prefixlen:
        payload += attribute(RTA_DST, network.network_address.packed)
    payload += _number(RTA_OIF, ifindex) + _number(RTA_TABLE, table)
    flags = NLM_F_CREATE | NLM_F_EXCL if add else 0
    return Request(RTM_NEWROUTE if add else RTM_DELROUTE, NLM_F_ACK | flags, payload)


def rule_change(rule: Rule, *, add: bool) -> Request:
    """Add or remove a rule; the kernel takes one that exists a second time."""
    flags = FIB_RULE_INVERT if rule.not_fwmark is not None else 0
    table = rule.table if rule.table < 256 else RT_TABLE_UNSPEC
    payload = _ROUTE.pack(FAMILY[rule.version], 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL, flags)
    payload += _number(FRA_TABLE, rule.table)
    if rule.not_fwmark is not None:
        payload += _number(FRA_FWMARK, rule.not_fwmark)
    if rule.suppress_prefixlength is not None:
        payload += _number(FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefixlength)
    create = NLM_F_CREATE | NLM_F_EXCL if add else 0
    return Request(RTM_NEWRULE if add else RTM_DELRULE, NLM_F_ACK | create, payload)


def dump_links() -> Request:
    return Request(RTM_GETLINK, NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0))


def dump_addresses() -> Request:
    return Request(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))


def dump_routes(version: int) -> Request:
    return Request(RTM_GETROUTE, NLM_F_DUMP, _ROUTE.pack(FAMILY[version], *[0] * 8))


def dump_rules(version: int) -> Request:
    return Request(RTM_GETRULE, NLM_F_DUMP, _ROUTE.pack(FAMILY[version], *[0] * 8))


# -- answers and notices --


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[kind & NLA_TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += _align(length)
    return found


def _u32(values: dict[int, bytes], kind: int, default: int | None = None) -> int | None:
    raw = values.get(kind)
    return int(_U32.unpack(raw)[0]) if raw is not None and len(raw) == 4 else default


def _parse_link(kind: int, data: bytes) -> Body:
    _, _, ifindex, flags, _ = _LINK.unpack_from(data)
    values = _attributes(data[_LINK.size :])
    name = values.get(IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
    mtu = _u32(values, IFLA_MTU) or 0
    return LinkNotice(kind == RTM_DELLINK, ifindex, name, bool(flags & IFF_UP), mtu)


def _parse_address(kind: int, data: bytes) -> Body:
    _, length, _, _, ifindex = _ADDRESS.unpack_from(data)
    values = _attributes(data[_ADDRESS.size :])
    raw = values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b""))
    return AddressNotice(kind == RTM_DELADDR, ifindex, str(ip_address(raw)), length)


def _parse_route(kind: int, data: bytes) -> Body:
    family, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(data)
    values = _attributes(data[_ROUTE.size :])
    raw = values.get(RTA_DST) or bytes(4 if family == AF_INET else 16)
    return RouteNotice(
        kind == RTM_DELROUTE,
        _u32(values, RTA_OIF) or 0,
        str(ip_address(raw)),
        length,
        _u32(values, RTA_TABLE, table) or 0,
    )


def _parse_rule(kind: int, data: bytes) -> Body:
    family, _, _, _, table, _, _, _, flags = _ROUTE.unpack_from(data)
    values = _attributes(data[_ROUTE.size :])
    suppress = _u32(values, FRA_SUPPRESS_PREFIXLEN)
    rule = Rule(
        4 if family == AF_INET else 6,
        _u32(values, FRA_TABLE, table) or 0,
        _u32(values, FRA_FWMARK) if flags & FIB_RULE_INVERT else None,
        # The kernel says "none" by all bits set.
        None if suppress == 0xFFFFFFFF else suppress,
        not FRA_SELECTORS.isdisjoint(values),
    )
    return RuleNotice(kind == RTM_DELRULE, rule)


def _parse_answer(flags: int, data: bytes) -> Body:
    (code,) = _ERROR.unpack_from(data)
    text = b""
    if flags & NLM_F_ACK_TLVS:
        (length,) = _U32.unpack_from(data, 4)
        skipped = _HEADER.size if flags & NLM_F_CAPPED else _align(length)
        text = _attributes(data[4 + skipped :]).get(NLMSGERR_ATTR_MSG, b"")
    return Answer(-code, text.rstrip(b"\0").decode("utf-8", "replace"))


def _parse_done(data: bytes) -> Body:
    return Done(-_ERROR.unpack_from(data)[0] if len(data) >= _ERROR.size else 0)


_PARSERS = {
    RTM_NEWLINK: _parse_link,
    RTM_DELLINK: _parse_link,
    RTM_NEWADDR: _parse_address,
    RTM_DELADDR: _parse_address,
    RTM_NEWROUTE: _parse_route,
    RTM_DELROUTE: _parse_route,
    RTM_NEWRULE: _parse_rule,
    RTM_DELRULE: _parse_rule,
}


def _parse_body(kind: int, flags: int, data: bytes) -> Body | None:
    try:
        if kind == NLMSG_ERROR:
            return _parse_answer(flags, data)
        if kind == NLMSG_DONE:
            return _parse_done(data)
        parser = _PARSERS.get(kind)
        return parser(kind, data) if parser else None
    except (struct.error, ValueError):
        return None


def parse(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram that we understand."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        body = _parse_body(kind, flags, data[at + _HEADER.size : at + length])
        if body is not None:
            yield Message(sequence, body)
        at += _align(length)
