"""The tables of the configuration file, one function each: Table in, frozen value out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from wantastic.config import keys, values
from wantastic.config.duration import parse_duration
from wantastic.config.model import (
    DEFAULT_MTU_BYTES,
    DEFAULT_PORT,
    EVERYTHING,
    HOUR_NS,
    LOG_FORMATS,
    LOG_LEVELS,
    LOG_TARGETS,
    MODES,
    TRANSPORTS,
    AccessRule,
    AuthConfig,
    DnsConfig,
    DnsRoute,
    ExitNodeConfig,
    HostPort,
    InterfaceConfig,
    IpInterface,
    IpNetwork,
    LogConfig,
    PeerConfig,
)
from wantastic.config.reader import Table, shown

T = TypeVar("T")

MINUTE_NS = 60_000_000_000
MIN_MTU_BYTES = 576
MIN_MTU6_BYTES = 1280
# A little below what an outer packet of 65,535 bytes can carry.
MAX_MTU_BYTES = 65_000
KEY_REMEDY = "A key is the 44 characters that `wg genkey` or `wg pubkey` prints."
RANGE_REMEDY = 'Write an address range such as "10.0.0.0/24" or "fd00::/64".'
HOST_REMEDY = 'Write "name", "name:port", "192.0.2.1:port" or "[2001:db8::1]:port".'

# The words that the format's own documentation prints where a value belongs.
PLACEHOLDER_KEYS = {"client-private-key", "client-public-key", "server-public-key"}
PLACEHOLDER_TEXTS = {"unique-device-id", "tenant-uuid", "authentication-token", "your-auth-token"}


def read_key(table: Table, name: str, remedy: str, *, secret: bool) -> bytes | None:
    """Return a key; None when it is absent, empty or wrong."""
    text = table.text(name, secret=secret)
    if not text:
        return None
    if text in PLACEHOLDER_KEYS:
        table.problem(name, "still holds the placeholder of the documentation", remedy)
        return None
    try:
        return keys.decode_key(text)
    except ValueError as error:
        quoted = "" if secret else f" ({shown(text)})"
        table.problem(name, f"is no WireGuard key: it {error}{quoted}", remedy)
        return None


def read_private_key(table: Table) -> bytes | None:
    """Return the clamped private key, None when the device makes its own."""
    remedy = f'{KEY_REMEDY} Or leave it "": the device then generates one and keeps it.'
    key = read_key(table, "private_key", remedy, secret=True)
    if key == keys.NO_KEY:
        table.problem("private_key", "is all zeros", remedy)
        return None
    return keys.clamp(key) if key else None


def read_public_key(table: Table, name: str, remedy: str = KEY_REMEDY) -> bytes | None:
    key = read_key(table, name, remedy, secret=False)
    if key and keys.is_low_order(key):
        table.problem(name, "is a point that gives no secrecy (low order)", remedy)
        return None
    return key


def read_each(
    table: Table, found: Iterable[tuple[str, str]], parse: Callable[[str], T], remedy: str
) -> tuple[T, ...]:
    """Return every entry of a list of strings that `parse` accepts."""
    result = []
    for at, text in found:
        try:
            result.append(parse(text))
        except ValueError as error:
            why = str(error)
            # ipaddress quotes the value itself; ours begin with a verb.
            why = why if why.split(" ")[0] in {"is", "has", "lacks"} else "is not valid"
            table.problem(at, f"{why}: {shown(text)}", remedy)
    return tuple(result)


def read_networks(table: Table, name: str) -> tuple[IpNetwork, ...]:
    """Return ranges without duplicates, in the order of the file."""
    found = read_each(table, table.texts(name), values.parse_network, RANGE_REMEDY)
    return tuple(dict.fromkeys(found))


def read_host_port(table: Table, name: str, default_port: int | None) -> HostPort | None:
    text = table.text(name)
    if not text:
        return None
    try:
        return values.parse_host_port(text, default_port)
    except ValueError as error:
        table.problem(name, f"{error}: {shown(text)}", HOST_REMEDY)
        return None


def read_peer(table: Table, default_allowed: tuple[IpNetwork, ...]) -> PeerConfig | None:
    """Return a peer; None when it lacks a usable public key."""
    problems_before = len(table.report.problems)
    public_key = read_public_key(table, "public_key")
    if public_key is None and len(table.report.problems) == problems_before:
        table.problem("public_key", "is missing", KEY_REMEDY)
    port = table.integer("port", DEFAULT_PORT, 1, 65535)
    endpoint = read_host_port(table, "endpoint", port)
    if endpoint and table.has("port") and endpoint.port != port:
        text = f"is {port}, but the endpoint says {endpoint.port}"
        table.problem("port", text, "Give the port in one of the two places.")
    preshared = read_key(table, "preshared_key", f"{KEY_REMEDY} Or leave it out.", secret=True)
    listed = table.has("allowed_ips")
    allowed = read_networks(table, "allowed_ips")
    keepalive = table.integer("persistent_keepalive", 0, 0, 65535)
    name = table.text("name")
    table.finish()
    if not listed and not default_allowed:
        table.warn("allowed_ips", "is missing: nothing may cross to this peer", RANGE_REMEDY)
    if public_key is None:
        return None
    return PeerConfig(
        public_key=public_key,
        endpoint=endpoint,
        preshared_key=None if preshared == keys.NO_KEY else preshared,
        allowed_ips=allowed if listed else default_allowed,
        keepalive_s=keepalive,
        name=name,
        allowed_ips_listed=listed,
    )


def read_server(table: Table) -> PeerConfig | None:
    """Return the server: like a peer, but everything may cross to it by default."""
    before = len(table.report.problems)
    server = table.table("server")
    if not table.has("server") or len(table.report.problems) > before:
        return None
    return read_peer(server, EVERYTHING)


def read_peers(table: Table) -> tuple[PeerConfig, ...]:
    found = [read_peer(entry, ()) for entry in table.tables("peers")]
    return tuple(peer for peer in found if peer)


def read_addresses(table: Table) -> tuple[IpInterface, ...]:
    """Return our addresses: each once, and each one that a host can have."""
    remedy = 'Write an address such as "10.0.0.2/32" or "fd00::2/64".'
    found = read_each(table, table.texts("addresses"), values.parse_interface, remedy)
    seen = set()
    for address in found:
        if address.ip in seen:
            table.problem("addresses", f"has {address.ip} twice", "Keep one of the two.")
        if address.ip.is_unspecified or address.ip.is_multicast or address.ip.is_loopback:
            table.problem("addresses", f"has {address.ip}, which no host can have", remedy)
        seen.add(address.ip)
    return found


def read_mark(table: Table) -> int:
    return table.integer("fwmark", 0, 0, 2**32 - 1)


def read_interface_name(table: Table, name: str, default: str) -> str:
    text = table.text(name, default)
    if text and not values.is_interface_name(text):
        remedy = "Use 1 to 15 letters, digits or _ = + . - without spaces."
        table.problem(name, f"cannot be an interface: {shown(text)}", remedy)
        return default
    return text


def read_interface(root: Table) -> InterfaceConfig:
    table = root.table("interface")
    result = InterfaceConfig(
        name=read_interface_name(table, "name", "wg0") or "wg0",
        addresses=read_addresses(table),
        listen_port=table.integer("listen_port", DEFAULT_PORT, 0, 65535),
        strict_port=table.boolean("strict_port", False),
        mtu_bytes=table.integer("mtu", DEFAULT_MTU_BYTES, MIN_MTU_BYTES, MAX_MTU_BYTES),
        mode=table.choice("mode", "auto", MODES),
        default_route=table.boolean("default_route", False),
        fwmark=read_mark(table),
        bind_interface=read_interface_name(table, "bind_interface", ""),
    )
    table.finish()
    if result.mtu_bytes < MIN_MTU6_BYTES and any(a.version == 6 for a in result.addresses):
        text = f"is {result.mtu_bytes}, too small for the IPv6 addresses of this interface"
        table.problem("mtu", text, f"IPv6 needs at least {MIN_MTU6_BYTES}.")
    if result.bind_interface == result.name:
        text = "is the tunnel itself, so that the tunnel's packets would enter the tunnel"
        table.problem("bind_interface", text, "Name the interface towards the internet.")
    return result


def read_rules(table: Table, name: str) -> tuple[AccessRule, ...]:
    remedy = 'Write "10.0.0.0/8", "tcp 10.0.0.0/8 443" or "udp fd00::/8 1000-2000".'
    return read_each(table, table.texts(name), values.parse_rule, remedy)


def read_exit_node(root: Table) -> ExitNodeConfig:
    table = root.table("exit_node")
    servers = read_each(
        table, table.texts("dns"), values.parse_dns_server, 'Write an address such as "1.1.1.1".'
    )
    routes = read_networks(table, "routes")
    result = ExitNodeConfig(
        enabled=table.boolean("enabled", False),
        routes=routes if table.has("routes") else EVERYTHING,
        dns=tuple(values.render_dns_server(s) for s in servers),
        allow_lan=table.boolean("allow_lan", False),
        allow=read_rules(table, "allow"),
        deny=read_rules(table, "deny"),
    )
    table.finish()
    return result


def read_domain_table(
    root: Table, name: str, parse: Callable[[str], T]
) -> list[tuple[str, tuple[T, ...]]]:
    """Return (domain, values) of a table whose keys are domain names."""
    table, result = root.table(name), []
    for domain in list(table.fields()):
        if not values.is_name(domain):
            at = domain if domain.isprintable() else shown(domain)
            table.problem(at, "is not a domain name", 'Write it like "corp.example".')
            continue
        remedy = "Write a list of addresses in double quotes."
        result.append(
            (domain.lower().rstrip("."), read_each(table, table.texts(domain), parse, remedy))
        )
    return result


def read_dns(root: Table) -> DnsConfig:
    table = root.table("dns")
    remedy = 'Write "10.0.0.53", "10.0.0.53:5353" or "tls://9.9.9.9#dns.quad9.net".'
    search_remedy = 'Write a domain such as "corp.example".'
    routes = read_domain_table(table, "routes", values.parse_dns_server)
    records = read_domain_table(table, "records", values.parse_host)
    result = DnsConfig(
        listen=read_host_port(table, "listen", values.DNS_PORT),
        servers=read_each(table, table.texts("servers"), values.parse_dns_server, remedy),
        search=read_each(table, table.texts("search"), parse_domain, search_remedy),
        routes=tuple(DnsRoute(domain, servers) for domain, servers in routes),
        records=tuple(records),
        cache_entries=table.integer("cache_entries", 1000, 0, 100_000),
    )
    table.finish()
    return result


def parse_domain(text: str) -> str:
    """Return a domain name in lower case without its last dot."""
    if not values.is_name(text):
        raise ValueError("is not a domain name")
    return text.lower().rstrip(".")


def read_duration(table: Table, name: str, default_ns: int, *, low_ns: int, zero: bool) -> int:
    text = table.text(name)
    if not text:
        return default_ns
    remedy = 'Write a duration such as "24h", "90m" or "1h30m", at least 1m.'
    try:
        found = parse_duration(text)
    except ValueError as error:
        table.problem(name, f"is {error}: {shown(text)}", remedy)
        return default_ns
    if found < low_ns and not (zero and found == 0):
        table.problem(name, f"is too short: {shown(text)}", remedy)
        return default_ns
    return found


def read_server_url(table: Table) -> HostPort | None:
    """Return the control server; a scheme is tolerated, a path is not."""
    text = table.text("server_url")
    if not text:
        return None
    bare = text.removeprefix("https://").removesuffix("/")
    remedy = 'Write it like "auth.wantastic.app:443".'
    if "/" in bare or "@" in bare:
        table.problem("server_url", f"is not a host and a port: {shown(text)}", remedy)
        return None
    try:
        return values.parse_host_port(bare, 443)
    except ValueError as error:
        table.problem("server_url", f"{error}: {shown(text)}", remedy)
        return None


def read_auth_url(table: Table) -> str:
    text = table.text("auth_url")
    if text and (not text.startswith("https://") or len(text) == len("https://")):
        remedy = 'Write an address that begins with "https://".'
        table.problem("auth_url", f"is not an HTTPS address: {shown(text)}", remedy)
        return ""
    return text


def read_auth(root: Table) -> AuthConfig:
    table = root.table("auth")
    result = AuthConfig(
        server_url=read_server_url(table),
        auth_url=read_auth_url(table),
        token=table.text("token", secret=True),
        token_file=table.text("token_file"),
        refresh_time_ns=read_duration(
            table, "refresh_time", 24 * HOUR_NS, low_ns=MINUTE_NS, zero=False
        ),
        ca_file=table.text("ca_file"),
        client_cert_file=table.text("client_cert_file"),
        client_key_file=table.text("client_key_file"),
        server_name=table.text("server_name"),
        insecure=table.boolean("insecure", False),
        transport=table.choice("transport", "auto", TRANSPORTS),
        key_rotation_ns=read_duration(table, "key_rotation", 0, low_ns=MINUTE_NS, zero=True),
    )
    table.finish()
    warn_placeholder(table, "token", result.token)
    if result.token and result.token_file:
        text = "and token are both given"
        table.problem("token_file", text, "Keep one; a file keeps the token out of this one.")
    if bool(result.client_cert_file) != bool(result.client_key_file):
        text = "and client_key_file belong together, and one is missing"
        table.problem("client_cert_file", text, "Give both or neither.")
    if result.insecure:
        text = "is on: whoever is on the path can read the token"
        table.warn("insecure", text, "Use it for tests on one machine only.")
    return result


def read_log(root: Table) -> LogConfig:
    table = root.table("log")
    result = LogConfig(
        level=table.choice("level", "info", LOG_LEVELS),
        format=table.choice("format", "text", LOG_FORMATS),
        target=table.choice("target", "stderr", LOG_TARGETS),
    )
    table.finish()
    return result


def read_memory_limit(table: Table, name: str, default: int, low: int, high: int) -> int:
    """Return bytes, given as a number or as a text such as "32M"."""
    if not table.is_text(name):
        return table.integer(name, default, low, high)
    text = table.text(name)
    remedy = f'Write a size from {low >> 20}M to {high >> 20}M, such as "32M".'
    try:
        size = values.parse_size(text)
    except ValueError as error:
        table.problem(name, f"{error}: {shown(text)}", remedy)
        return default
    if not low <= size <= high:
        table.problem(name, f"is out of range: {shown(text)}", remedy)
        return default
    return size


def warn_placeholder(table: Table, name: str, value: str) -> None:
    """Say that a field still holds what the documentation printed in its place."""
    if value in PLACEHOLDER_TEXTS:
        text = "still holds the placeholder of the documentation"
        table.warn(name, text, "Write your own value, or leave the field out.")
