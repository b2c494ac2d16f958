"""What the server stores, as frozen values: tenants, tokens, devices, grants, operators.

Times are unix seconds. Ranges and addresses are text in their canonical form.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


class Refused(Exception):
    """A request that the rules turn down; the code is stable, the texts are for people."""

    def __init__(
        self,
        code: RefusalCode,
        reason: str,
        *,
        remedy: str = "",
        field: str = "",
        retry_after_s: float = 0,
    ) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy
        self.field = field
        self.retry_after_s = retry_after_s


class RefusalCode(enum.Enum):
    """Why a request was turned down; the gRPC and HTTP faces translate it."""

    INVALID_REQUEST = "invalid_request"
    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_USED = "token_used"
    TOKEN_REVOKED = "token_revoked"
    TENANT_UNKNOWN = "tenant_unknown"
    DEVICE_UNKNOWN = "device_unknown"
    DEVICE_REMOVED = "device_removed"
    DEVICE_PENDING = "device_pending"
    DEVICE_LIMIT = "device_limit"
    KEY_IN_USE = "key_in_use"
    DEVICE_ID_IN_USE = "device_id_in_use"
    NO_ADDRESS = "no_address"
    CERTIFICATE_REQUEST = "certificate_request"
    CERTIFICATE_REQUIRED = "certificate_required"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    PROTOCOL_TOO_OLD = "protocol_too_old"
    NOT_FOUND = "not_found"  # an operator's command named something that is not there


class GatewayError(Exception):
    """A gateway did not take a change; the text says why."""


class DeviceStatus(enum.StrEnum):
    """A device is asked for, then let in; removal deletes its row."""

    PENDING = "pending"
    ACTIVE = "active"


class GrantStatus(enum.StrEnum):
    """Where an RFC 8628 device authorization stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REDEEMED = "redeemed"


@dataclass(frozen=True, slots=True)
class ExitRule:
    """One allow or deny rule of an exit node; an empty protocol or port range is any."""

    allow: bool
    cidr: str
    protocol: str = ""
    first_port: int = 0
    last_port: int = 0


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One name that devices of a tenant resolve by themselves."""

    name: str
    type: str
    value: str
    ttl_s: int = 300


@dataclass(frozen=True, slots=True)
class HealthNote:
    """Something that the operator of a device should see; severity is info, warning or error."""

    code: str
    severity: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What an operator says about all devices of a tenant."""

    mtu_bytes: int = 1420
    keepalive_s: int = 25
    # What devices may send to the gateway; empty means the tenant's own ranges.
    allowed_ips: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_routes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    dns_records: tuple[DnsRecord, ...] = ()
    exit_allow_lan: bool = False
    exit_rules: tuple[ExitRule, ...] = ()
    health: tuple[HealthNote, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers, as the database and --json have them."""
        plain = asdict(self)
        plain["dns_routes"] = dict(self.dns_routes)
        return plain

    def check(self) -> None:
        """Refuse what devices would have to refuse."""
        ranges = [("allowed_ips", text) for text in self.allowed_ips]
        ranges += [("exit_rules", rule.cidr) for rule in self.exit_rules]
        for name, text in ranges:
            _check(name, text, ipaddress.ip_network)
        servers = [("dns_servers", text) for text in self.dns_servers]
        servers += [("dns_routes", text) for _, texts in self.dns_routes for text in texts]
        for name, text in servers:
            _check(name, text, ipaddress.ip_address)
        if not 576 <= self.mtu_bytes <= 65_535:
            raise Refused(RefusalCode.INVALID_REQUEST, f"mtu_bytes: {self.mtu_bytes} is not a MTU")
        if not 0 <= self.keepalive_s <= 65_535:
            raise Refused(RefusalCode.INVALID_REQUEST, "keepalive_s: write 0 to 65535")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TenantSettings:
        """Read what to_json() wrote; what is absent keeps its default."""
        given = dict(data)
        for name in ("allowed_ips", "dns_servers", "dns_search"):
            given[name] = tuple(given.get(name, ()))
        routes = given.get("dns_routes", {})
        given["dns_routes"] = tuple((domain, tuple(servers)) for domain, servers in routes.items())
        given["dns_records"] = tuple(DnsRecord(**r) for r in given.get("dns_records", ()))
        given["exit_rules"] = tuple(ExitRule(**r) for r in given.get("exit_rules", ()))
        given["health"] = tuple(HealthNote(**n) for n in given.get("health", ()))
        return cls(**given)


def _check(name: str, text: str, parse: Callable[[str], object]) -> None:
    try:
        parse(text)
    except ValueError as error:
        raise Refused(RefusalCode.INVALID_REQUEST, f"{name}: {error}") from None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer: its own devices, address ranges and settings."""

    id: str
    name: str
    ipv4_pool: str
    ipv6_pool: str
    revision: int
    approval_required: bool
    max_devices: int  # 0 is without limit
    settings: TenantSettings
    created_at: int


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """A stored enrolment token; its secret is known only as a hash."""

    id: str
    tenant_id: str
    label: str
    max_uses: int | None  # None is without limit
    uses: int
    device_id: str  # empty is any device
    expires_at: int
    revoked_at: int | None
    created_at: int


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What an agent says about itself."""

    version: str = ""
    os: str = ""
    arch: str = ""
    model: str = ""
    hostname: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A registered device."""

    pk: int
    tenant_id: str
    device_id: str
    public_key: str
    status: DeviceStatus
    ipv4: str
    ipv6: str
    revision: int
    generation: int  # access tokens of another one are revoked
    next_public_key: str | None  # a rotation under way: the key that wants to take over
    next_key_at: int
    rekey_before_s: int  # when the present key has to be replaced; 0 is never
    enrolled_by: str
    enrolment_open: bool  # its enrolment answer may be asked for again
    agent: AgentFacts
    applied_version: int
    apply_error: str
    last_seen_at: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Grant:
    """One RFC 8628 device authorization."""

    id: int
    user_code: str
    status: GrantStatus
    tenant_id: str | None
    device_id: str
    model: str
    remote: str
    interval_s: int
    last_polled_at: int
    expires_at: int
    decided_by: str


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who may approve devices; None as tenant is all tenants."""

    id: int
    name: str
    tenant_id: str | None
    created_at: int


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """Where devices find the tunnel's other end."""

    name: str
    public_key: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Change:
    """Something that devices or gateways have to learn; ordered by revision."""

    revision: int
    tenant_id: str
    device_pk: int | None  # None is every device of the tenant


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """What a poll has to know of a device, small enough to keep for a million."""

    pk: int
    tenant_id: str
    device_id: str
    public_key: str
    status: DeviceStatus
    ipv4: str
    ipv6: str
    revision: int
    generation: int
    enrolment_open: bool
    rotating: bool
    rekey_before_s: int
    applied_version: int
    apply_error: str
    created_at: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Common:
    """What configurations take from outside the device: read together, so of one moment."""

    revision: int
    epoch: str
    tenants: Mapping[str, Tenant]
    gateways: tuple[GatewayRecord, ...]
