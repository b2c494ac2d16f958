"""Builds the Configuration message of one device: pure, out of its entry and what is common.

The revisions of the device and of its tenant stand for the content: the same pair gives the
same bytes. So the etag names both, and the version, their sum, grows with each change of
either.
"""

from __future__ import annotations

import base64

from sqlalchemy import select

from wantastic.control import auth_pb2 as pb
from wantastic.server import schema, tenants
from wantastic.server.database import Transaction
from wantastic.server.keyring import Keyring
from wantastic.server.records import Common, Device, DirectoryEntry, GatewayRecord, Tenant

SEVERITIES = {
    "info": pb.SEVERITY_INFO,
    "warning": pb.SEVERITY_WARNING,
    "error": pb.SEVERITY_ERROR,
}


class Builder:
    """Builds configurations; keeps what all devices of a tenant have in common."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._shared: dict[str, tuple[Common, pb.Configuration]] = {}

    def build(self, common: Common, entry: DirectoryEntry) -> pb.Configuration:
        """Return what a device should run with."""
        tenant = common.tenants[entry.tenant_id]
        kept = self._shared.get(tenant.id)
        if kept is None or kept[0] is not common:
            kept = (common, _shared(common, tenant))
            self._shared[tenant.id] = kept
        message = pb.Configuration()
        message.CopyFrom(kept[1])
        message.addresses.addresses.extend((f"{entry.ipv4}/32", f"{entry.ipv6}/128"))
        for peer in message.peers.peers:
            peer.preshared_key = preshared_key(self._keyring, entry)
        if entry.rekey_before_s:
            message.rekey_before.public_key = entry.public_key
            message.rekey_before.before_unix_s = entry.rekey_before_s
        return message


def version_of(entry_revision: int, tenant_revision: int) -> int:
    """Return the number that people see."""
    return entry_revision + tenant_revision


def read_common(transaction: Transaction) -> Common:
    """Read everything but devices."""
    revision, epoch = transaction.connection.execute(
        select(schema.state.c.revision, schema.state.c.epoch)
    ).one()
    return Common(
        revision=revision,
        epoch=epoch,
        tenants={tenant.id: tenant for tenant in tenants.list_all(transaction)},
        gateways=tuple(gateways(transaction)),
    )


def gateways(transaction: Transaction) -> list[GatewayRecord]:
    """Return where the tunnels end."""
    rows = transaction.connection.execute(select(schema.gateway).order_by(schema.gateway.c.name))
    return [GatewayRecord(row.name, row.public_key, row.endpoint) for row in rows]


def set_gateway(transaction: Transaction, gateway: GatewayRecord) -> None:
    """Say where a gateway is; all devices see a change only when it is one."""
    if gateway in gateways(transaction):
        return
    table = schema.gateway
    transaction.connection.execute(table.delete().where(table.c.name == gateway.name))
    transaction.connection.execute(
        table.insert().values(
            name=gateway.name, public_key=gateway.public_key, endpoint=gateway.endpoint
        )
    )
    tenants.touch_all(transaction)


def preshared_key(keyring: Keyring, device: Device | DirectoryEntry) -> str:
    """Return the key that a device and its gateways mix in: derived, so stored nowhere.

    It does not depend on the device's public key, which may be under rotation."""
    return base64.b64encode(keyring.derive(f"psk {device.pk} {device.created_at}")).decode()


def _shared(common: Common, tenant: Tenant) -> pb.Configuration:
    settings = tenant.settings
    message = pb.Configuration(
        mtu=settings.mtu_bytes,
        peers=pb.PeerList(
            peers=[
                pb.Peer(
                    public_key=gateway.public_key,
                    allowed_ips=settings.allowed_ips or (tenant.ipv4_pool, tenant.ipv6_pool),
                    endpoints=[gateway.endpoint],
                    persistent_keepalive_s=settings.keepalive_s,
                    name=gateway.name,
                )
                for gateway in common.gateways
            ]
        ),
        routes=pb.RangeList(ranges=[tenant.ipv4_pool, tenant.ipv6_pool]),
        dns=_dns(tenant),
        health=_health(tenant),
    )
    if settings.exit_rules:
        message.exit_node.CopyFrom(_exit_node(tenant))
    return message


def _dns(tenant: Tenant) -> pb.Dns:
    settings = tenant.settings
    return pb.Dns(
        servers=settings.dns_servers,
        search=settings.dns_search,
        routes=[pb.DnsRoute(domain=d, servers=s) for d, s in settings.dns_routes],
        records=[
            pb.DnsRecord(name=r.name, type=r.type, value=r.value, ttl_s=r.ttl_s)
            for r in settings.dns_records
        ],
    )


def _exit_node(tenant: Tenant) -> pb.ExitNode:
    rules = {
        allow: [
            pb.ExitRule(
                range=r.cidr,
                protocol=r.protocol,
                first_port=r.first_port,
                last_port=r.last_port,
            )
            for r in tenant.settings.exit_rules
            if r.allow is allow
        ]
        for allow in (True, False)
    }
    return pb.ExitNode(
        enabled=True,
        allow_lan=tenant.settings.exit_allow_lan,
        allow=rules[True],
        deny=rules[False],
    )


def _health(tenant: Tenant) -> pb.HealthList:
    return pb.HealthList(
        messages=[
            pb.HealthMessage(
                code=note.code,
                severity=SEVERITIES.get(note.severity, pb.SEVERITY_INFO),
                reason=note.reason,
                remedy=note.remedy,
            )
            for note in tenant.settings.health
        ]
    )
