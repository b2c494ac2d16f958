"""The text forms of addresses, endpoints, rules and sizes; each raises ValueError."""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_interface,
    ip_network,
)

from wantastic.config.model import (
    PROTOCOLS,
    AccessRule,
    DnsServer,
    HostPort,
    IpInterface,
    IpNetwork,
)

_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?\Z")
_ZONE = re.compile(r"[A-Za-z0-9_.@-]{1,15}\Z")
_SIZE = re.compile(r"([0-9]{1,12})\s*([kmg])?(?:i?b)?\Z", re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30}
_INTERFACE = re.compile(r"(?!-)[A-Za-z0-9_=+.-]{1,15}\Z")

DNS_PORT = 53
DNS_TLS_PORT = 853


def is_numeric(host: str) -> bool:
    """Return whether a host is an address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_name(host: str) -> bool:
    """Return whether a text can be a DNS name (ASCII; last label not a number)."""
    last = host.rstrip(".").rpartition(".")[2]
    return _NAME.match(host) is not None and not last.isdigit()


def is_interface_name(name: str) -> bool:
    """Return whether Linux takes a text as the name of an interface and a file."""
    return _INTERFACE.match(name) is not None and name not in {".", ".."}


def parse_port(text: str) -> int:
    """Return 1..65535."""
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 0 < int(text) < 65536:
        raise ValueError("has no valid port (1 to 65535)")
    return int(text)


def parse_host(text: str) -> str:
    """Return a name or a numeric address in its shortest form."""
    bare, _, zone = text.partition("%")
    if ":" in text:
        try:
            address = IPv6Address(bare)
        except ValueError:
            raise ValueError("is not an IPv6 address") from None
        if "%" in text and not (_ZONE.match(zone) and address.is_link_local):
            raise ValueError("has a zone that only a link-local address can have")
        return f"{address}%{zone}" if zone else str(address)
    try:
        return str(IPv4Address(text))
    except ValueError:
        pass
    if not text.isascii():
        raise ValueError('is not ASCII: write an international name in its "xn--" form')
    if not is_name(text):
        raise ValueError("is neither a host name nor an address")
    return text


def parse_host_port(text: str, default_port: int | None) -> HostPort:
    """Return host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError("has unbalanced brackets around an IPv6 address")
        port = rest[1:] if rest else ""
        if rest and not port:
            raise ValueError("has no valid port (1 to 65535)")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        parse_port(port)
    else:
        host, port = text, ""
    if not port and default_port is None:
        raise ValueError("lacks a port")
    return HostPort(parse_host(host), parse_port(port) if port else default_port or 0)


def parse_network(text: str) -> IpNetwork:
    """Return a range; bits below the mask are cleared, as `wg` does."""
    if "%" in text:
        raise ValueError("has a zone")
    return ip_network(text, strict=False)


def parse_interface(text: str) -> IpInterface:
    """Return an address with its mask, /32 or /128 when none is given."""
    if "%" in text:
        raise ValueError("has a zone")
    return ip_interface(text)


def parse_rule(text: str) -> AccessRule:
    """Return a rule written as `[any|tcp|udp|icmp] RANGE [PORT[-PORT]]`."""
    words = text.split()
    protocol = next((p for p in PROTOCOLS if words and words[0] == p), None)
    rest = words[1:] if protocol else words
    if not 1 <= len(rest) <= 2:
        raise ValueError("is not `[any|tcp|udp|icmp] RANGE [PORT[-PORT]]`")
    ports = (0, 65535)
    if len(rest) == 2:
        low, dash, high = rest[1].partition("-")
        ports = (parse_port(low), parse_port(high if dash else low))
        if ports[0] > ports[1]:
            raise ValueError("has a port range that ends before it starts")
        if protocol == "icmp":
            raise ValueError("has a port, and ICMP has none")
    return AccessRule(parse_network(rest[0]), protocol or "any", ports)


def render_rule(rule: AccessRule) -> str:
    """Return the text that parse_rule() reads."""
    low, high = rule.ports
    ports = "" if rule.ports == (0, 65535) else f" {low}-{high}"
    return f"{rule.protocol} {rule.network}{ports}"


def parse_dns_server(text: str) -> DnsServer:
    """Return a server written as `ADDRESS[:PORT]` or `tls://ADDRESS[:PORT]#NAME`."""
    if text.startswith("tls://"):
        where, _, name = text[6:].partition("#")
        if not is_name(name):
            raise ValueError("lacks the certificate's name, as in tls://9.9.9.9#dns.quad9.net")
        server = DnsServer(parse_host_port(where, DNS_TLS_PORT), name)
    else:
        server = DnsServer(parse_host_port(text, DNS_PORT))
    if not is_numeric(server.address.host.partition("%")[0]):
        raise ValueError("is a name; a DNS server is given by its address")
    return server


def render_dns_server(server: DnsServer) -> str:
    """Return the text that parse_dns_server() reads."""
    return f"tls://{server.address}#{server.tls_name}" if server.tls_name else str(server.address)


def parse_size(text: str) -> int:
    """Return bytes of `33554432`, `32M`, `32MiB`, `1g`; multiples are of 1024."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise ValueError("is not a size such as 32M")
    return int(match[1]) << _SIZE_SHIFT[(match[2] or "").lower()]
