"""The configuration as frozen values: every field of the file, checked, with its default.

Secrets are left out of repr(), so that a value that ends up in a log or a traceback
shows none. Times carry their unit in the name; absent things are None, "" or ().
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from typing import Literal, TypeAlias, get_args

IpNetwork: TypeAlias = IPv4Network | IPv6Network
IpInterface: TypeAlias = IPv4Interface | IPv6Interface
Mode = Literal["auto", "tun", "userspace", "both"]
LogLevel = Literal["error", "warning", "info", "debug", "trace"]
LogFormat = Literal["text", "json"]
LogTarget = Literal["stderr", "syslog"]
Protocol = Literal["any", "tcp", "udp", "icmp"]
Transport = Literal["auto", "grpcio", "grpclib"]
ForwardEnd = Literal["local", "tunnel"]
ForwardProtocol = Literal["tcp", "udp"]

MODES: tuple[Mode, ...] = get_args(Mode)
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
LOG_TARGETS: tuple[LogTarget, ...] = get_args(LogTarget)
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
FORWARD_ENDS: tuple[ForwardEnd, ...] = get_args(ForwardEnd)
FORWARD_PROTOCOLS: tuple[ForwardProtocol, ...] = get_args(ForwardProtocol)

DEFAULT_PORT = 51820
DEFAULT_MTU_BYTES = 1420
DEFAULT_MEMORY_BYTES = 32 * 1024 * 1024
EVERYTHING: tuple[IpNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where something listens: a name or a numeric address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A WireGuard peer; `server` of the file is one, and each entry of `peers`."""

    public_key: bytes
    endpoint: HostPort | None = None
    preshared_key: bytes | None = field(default=None, repr=False)
    allowed_ips: tuple[IpNetwork, ...] = ()
    keepalive_s: int = 0
    name: str = ""
    # Whether the file lists `allowed_ips`: only ranges that it lists get routes.
    allowed_ips_listed: bool = True
    # The ranges to be routed as the control server states them; None: as above.
    stated_routes: tuple[IpNetwork, ...] | None = None

    @property
    def routes(self) -> tuple[IpNetwork, ...]:
        """The ranges that a host leads to this peer."""
        if self.stated_routes is not None:
            return self.stated_routes
        return self.allowed_ips if self.allowed_ips_listed else ()


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """Our end of the tunnel."""

    name: str = "wg0"
    addresses: tuple[IpInterface, ...] = ()
    listen_port: int = DEFAULT_PORT
    strict_port: bool = False
    mtu_bytes: int = DEFAULT_MTU_BYTES
    mode: Mode = "auto"
    default_route: bool = False
    fwmark: int = 0
    bind_interface: str = ""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One line of `exit_node.allow` or `exit_node.deny`; ports (0, 65535) mean any."""

    network: IpNetwork
    protocol: Protocol = "any"
    ports: tuple[int, int] = (0, 65535)


@dataclass(frozen=True, slots=True)
class ExitNodeConfig:
    """What tunnel peers may reach through this device."""

    enabled: bool = False
    routes: tuple[IpNetwork, ...] = EVERYTHING
    dns: tuple[str, ...] = ()
    allow_lan: bool = False
    allow: tuple[AccessRule, ...] = ()
    deny: tuple[AccessRule, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsServer:
    """A DNS server; `tls_name` not empty asks for DNS over TLS with that certificate name."""

    address: HostPort
    tls_name: str = ""


@dataclass(frozen=True, slots=True)
class DnsRoute:
    """The servers for one domain and what is below it."""

    domain: str
    servers: tuple[DnsServer, ...]


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A fixed answer that is no address: `value` as in a zone file, with full names."""

    name: str
    type: str
    value: str
    ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """The resolver for names inside the tunnel; never the host's resolv.conf."""

    listen: HostPort | None = None
    servers: tuple[DnsServer, ...] = ()
    search: tuple[str, ...] = ()
    routes: tuple[DnsRoute, ...] = ()
    records: tuple[tuple[str, tuple[str, ...]], ...] = ()
    # Of the control server: CNAME, PTR, SRV, TXT.
    other_records: tuple[DnsRecord, ...] = ()
    cache_entries: int = 1000


@dataclass(frozen=True, slots=True)
class ProxyListenConfig:
    """Where a proxy listens, and who may use it; no user means whoever reaches it."""

    listen: HostPort
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Proxies of this host whose connections end in the tunnel."""

    socks5: ProxyListenConfig | None = None
    http: ProxyListenConfig | None = None


@dataclass(frozen=True, slots=True)
class ForwardConfig:
    """A port of the host that leads into the tunnel ("local"), or the other way round.

    `listen` of a "tunnel" forward has no host: it is a port of our tunnel addresses.
    """

    end: ForwardEnd
    protocol: ForwardProtocol
    listen: HostPort
    target: HostPort


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """The control server and how this device proves who it is."""

    server_url: HostPort | None = None
    auth_url: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    refresh_time_ns: int = 24 * HOUR_NS
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    server_name: str = ""
    insecure: bool = False
    transport: Transport = "auto"
    key_rotation_ns: int = 0


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, how and where to."""

    level: LogLevel = "info"
    format: LogFormat = "text"
    target: LogTarget = "stderr"


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration file."""

    device_id: str = ""
    tenant_id: str = ""
    private_key: bytes | None = field(default=None, repr=False)
    public_key: bytes | None = None
    server: PeerConfig | None = None
    peers: tuple[PeerConfig, ...] = ()
    interface: InterfaceConfig = InterfaceConfig()
    exit_node: ExitNodeConfig = ExitNodeConfig()
    dns: DnsConfig = DnsConfig()
    proxy: ProxyConfig = ProxyConfig()
    forwards: tuple[ForwardConfig, ...] = ()
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()
    state_dir: str = "/var/lib/wantastic"
    memory_limit_bytes: int = DEFAULT_MEMORY_BYTES
    threads: int = 1

    @property
    def wants_access(self) -> bool:
        """Whether something of this process opens connections in the tunnel."""
        return bool(self.proxy.socks5 or self.proxy.http or self.forwards)

    @property
    def all_peers(self) -> tuple[PeerConfig, ...]:
        """The server first, then the further peers."""
        return (self.server, *self.peers) if self.server else self.peers
