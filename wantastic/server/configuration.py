"""Builds the Configuration message of one device out of what the database holds.

Pure but for the reads of its transaction: the same rows give the same bytes, which is
what lets a version number stand for the content.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from sqlalchemy import select

from wantastic.control import auth_pb2 as pb
from wantastic.server import devices, schema, tenants
from wantastic.server.database import Transaction
from wantastic.server.keyring import Keyring
from wantastic.server.records import Device, GatewayRecord, Tenant

SEVERITIES = {
    "info": pb.SEVERITY_INFO,
    "warning": pb.SEVERITY_WARNING,
    "error": pb.SEVERITY_ERROR,
}


@dataclass(frozen=True, slots=True)
class Built:
    """A configuration and the version it has."""

    version: int
    message: pb.Configuration


def build(transaction: Transaction, keyring: Keyring, device_pk: int) -> Built | None:
    """Return what a device should run with; None when it is not there."""
    device = devices.by_pk(transaction, device_pk)
    if device is None:
        return None
    tenant = tenants.find(transaction, device.tenant_id)
    message = pb.Configuration(
        addresses=pb.AddressList(addresses=[f"{device.ipv4}/32", f"{device.ipv6}/128"]),
        mtu=tenant.settings.mtu_bytes,
        peers=pb.PeerList(peers=[_peer(keyring, device, tenant, g) for g in gateways(transaction)]),
        routes=pb.RangeList(ranges=[tenant.ipv4_pool, tenant.ipv6_pool]),
        dns=_dns(tenant),
        health=_health(tenant),
    )
    if tenant.settings.exit_rules:
        message.exit_node.CopyFrom(_exit_node(tenant))
    if device.rekey_before_s:
        message.rekey_before.public_key = device.public_key
        message.rekey_before.before_unix_s = device.rekey_before_s
    return Built(max(device.revision, tenant.revision), message)


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


def preshared_key(keyring: Keyring, device: Device) -> str:
    """Return the key that a device and its gateways mix in: derived, so stored nowhere.

    It does not depend on the device's public key, which may be under rotation."""
    return base64.b64encode(keyring.derive(f"psk {device.pk} {device.created_at}")).decode()


def _peer(keyring: Keyring, device: Device, tenant: Tenant, gateway: GatewayRecord) -> pb.Peer:
    settings = tenant.settings
    return pb.Peer(
        public_key=gateway.public_key,
        preshared_key=preshared_key(keyring, device),
        allowed_ips=settings.allowed_ips or (tenant.ipv4_pool, tenant.ipv6_pool),
        endpoints=[gateway.endpoint],
        persistent_keepalive_s=settings.keepalive_s,
        name=gateway.name,
    )


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
