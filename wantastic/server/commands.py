"""The operator's subcommands: each takes a transaction and arguments, and returns rows.

A row is a plain dictionary; main.py prints rows as a table or, with --json, as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wantastic.server import configuration, devices, enrolment, grants, tenants
from wantastic.server.database import Transaction
from wantastic.server.records import (
    Device,
    DeviceStatus,
    EnrolmentToken,
    GatewayRecord,
    RefusalCode,
    Refused,
    Tenant,
    TenantSettings,
)

DEFAULT_TENANT = "default"

Row = dict[str, Any]
Command = Callable[[Transaction, argparse.Namespace], list[Row]]


def tenant_create(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Add a tenant."""
    tenant = tenants.create(
        transaction,
        args.name,
        ipv4_pool=args.ipv4,
        ipv6_pool=args.ipv6,
        approval_required=args.approval,
        max_devices=args.max_devices,
        settings=_settings(args.settings) if args.settings else None,
    )
    return [_tenant(tenant)]


def tenant_list(transaction: Transaction, _args: argparse.Namespace) -> list[Row]:
    """List tenants."""
    return [_tenant(tenant) for tenant in tenants.list_all(transaction)]


def tenant_set(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Change a tenant's settings; its devices follow at once."""
    tenant = tenants.find(transaction, args.name)
    tenants.change(
        transaction,
        tenant,
        settings=_settings(args.settings) if args.settings else None,
        approval_required=args.approval,
        max_devices=args.max_devices,
    )
    return [_tenant(tenants.find(transaction, args.name))]


def token_create(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Make an enrolment token; the only time that it is shown."""
    tenant = _tenant_or_default(transaction, args.tenant)
    uses = None if args.reusable and args.uses is None else (args.uses or 1)
    plain, token = enrolment.create_token(
        transaction,
        tenant,
        max_uses=uses,
        lifetime_s=args.lifetime,
        label=args.label,
        device_id=args.device,
    )
    return [{"token": plain.text, **_token(token)}]


def token_list(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """List enrolment tokens, without their secrets."""
    found = enrolment.list_tokens(transaction, _tenant_id(transaction, args.tenant))
    return [_token(token) for token in found]


def token_revoke(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Make an enrolment token useless."""
    enrolment.revoke_token(transaction, args.id)
    return [{"id": args.id, "revoked": True}]


def device_list(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """List devices."""
    found = devices.iterate(transaction, _tenant_id(transaction, args.tenant))
    revisions = {tenant.id: tenant.revision for tenant in tenants.list_all(transaction)}
    return [
        _device(device, revisions[device.tenant_id])
        for device in found
        if not args.pending or device.status is DeviceStatus.PENDING
    ]


def device_approve(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Approve a device that waits, by device_id or by the code that it shows."""
    tenant_id = _tenant_id(transaction, args.tenant)
    grant = grants.find(transaction, args.name)
    if grant is not None:
        tenant = _tenant_or_default(transaction, args.tenant)
        grants.decide(transaction, args.name, tenant_id=tenant.id, decided_by="command line")
        return [{"user_code": grant.user_code, "device_id": grant.device_id, "approved": True}]
    device = devices.find(transaction, args.name, tenant_id)
    devices.approve(transaction, device)
    return [{"device_id": device.device_id, "approved": True}]


def device_remove(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Forget a device: its tokens and its tunnel end."""
    device = devices.find(transaction, args.name, _tenant_id(transaction, args.tenant))
    devices.remove(transaction, device)
    return [{"device_id": device.device_id, "removed": True}]


def device_revoke(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Make a device's access tokens useless; its tunnel stays until it is removed."""
    device = devices.find(transaction, args.name, _tenant_id(transaction, args.tenant))
    devices.revoke_tokens(transaction, device)
    return [{"device_id": device.device_id, "tokens_revoked": True}]


def device_rekey(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Order a device to replace its static key, or withdraw the order."""
    device = devices.find(transaction, args.name, _tenant_id(transaction, args.tenant))
    before_s = 0 if args.withdraw else transaction.now_s + args.within
    devices.order_rekey(transaction, device, before_s)
    return [{"device_id": device.device_id, "rekey_before": _time(before_s)}]


def operator_create(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Add somebody who may approve devices on the page; shows the sign-in code once."""
    tenant_id = _tenant_id(transaction, args.tenant)
    code = grants.create_operator(transaction, args.name, tenant_id)
    return [{"operator": args.name, "sign_in_code": code, "tenant": args.tenant or "all"}]


def operator_list(transaction: Transaction, _args: argparse.Namespace) -> list[Row]:
    """List operators."""
    return [
        {"operator": o.name, "tenant": o.tenant_id or "all", "created": _time(o.created_at)}
        for o in grants.list_operators(transaction)
    ]


def operator_remove(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Forget an operator."""
    grants.remove_operator(transaction, args.name)
    return [{"operator": args.name, "removed": True}]


def gateway_set(transaction: Transaction, args: argparse.Namespace) -> list[Row]:
    """Say where the tunnels end, when this server runs no gateway itself."""
    enrolment.check_public_key(args.public_key, "public_key")
    record = GatewayRecord(args.name, args.public_key, args.endpoint)
    configuration.set_gateway(transaction, record)
    return gateway_list(transaction, args)


def gateway_list(transaction: Transaction, _args: argparse.Namespace) -> list[Row]:
    """List gateways."""
    return [dataclasses.asdict(gateway) for gateway in configuration.gateways(transaction)]


def _settings(path: Path) -> TenantSettings:
    try:
        given = json.loads(path.read_text())
        if not isinstance(given, dict):
            raise ValueError("settings are a JSON object")
        settings = TenantSettings.from_json(given)
    except OSError as error:
        raise Refused(RefusalCode.INVALID_REQUEST, f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"{path}: {error}",
            remedy="see docs/server.md for the settings of a tenant",
        ) from None
    settings.check()
    return settings


def _tenant_or_default(transaction: Transaction, name: str) -> Tenant:
    """Return the tenant meant; the default one is made when it is first needed."""
    if name:
        return tenants.find(transaction, name)
    existing = tenants.list_all(transaction)
    if not existing:
        return tenants.create(transaction, DEFAULT_TENANT)
    if len(existing) == 1:
        return existing[0]
    return tenants.find(transaction, DEFAULT_TENANT)


def _tenant_id(transaction: Transaction, name: str) -> str | None:
    return tenants.find(transaction, name).id if name else None


def _tenant(tenant: Tenant) -> Row:
    return {
        "tenant": tenant.name,
        "id": tenant.id,
        "ipv4": tenant.ipv4_pool,
        "ipv6": tenant.ipv6_pool,
        "approval": tenant.approval_required,
        "max_devices": tenant.max_devices or None,
        "settings": tenant.settings.to_json(),
    }


def _token(token: EnrolmentToken) -> Row:
    return {
        "id": token.id,
        "label": token.label,
        "uses": token.uses,
        "max_uses": token.max_uses,
        "device_id": token.device_id,
        "expires": _time(token.expires_at),
        "revoked": token.revoked_at is not None,
    }


def _device(device: Device, tenant_revision: int) -> Row:
    return {
        "device_id": device.device_id,
        "status": device.status.value,
        "ipv4": device.ipv4,
        "ipv6": device.ipv6,
        "public_key": device.public_key,
        "version": configuration.version_of(device.revision, tenant_revision),
        "applied_version": device.applied_version,
        "apply_error": device.apply_error,
        "last_seen": _time(device.last_seen_at),
        "agent": f"{device.agent.version} {device.agent.os} {device.agent.arch}".strip(),
        "model": device.agent.model,
        "tenant_id": device.tenant_id,
    }


def _time(unix_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
