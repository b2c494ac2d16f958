"""Devices in the database: approval, removal, keys, and what they report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row, delete, select, update

from wantastic.server import schema, tenants
from wantastic.server.database import Transaction
from wantastic.server.records import (
    AgentFacts,
    Device,
    DeviceStatus,
    DirectoryEntry,
    RefusalCode,
    Refused,
)

TABLE = schema.device
GENERATIONS = 1 << 32
ROTATION_LIMIT_S = 86_400
MAX_APPLY_ERROR_CHARACTERS = 500


def find(transaction: Transaction, name: str, tenant_id: str | None = None) -> Device:
    """Return a device by device_id, or by public key; ambiguous names are refused."""
    query = select(TABLE).where((TABLE.c.device_id == name) | (TABLE.c.public_key == name))
    if tenant_id is not None:
        query = query.where(TABLE.c.tenant_id == tenant_id)
    rows = transaction.connection.execute(query.limit(2)).all()
    if len(rows) == 1:
        return record(rows[0])
    if rows:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"device: {name!r} exists in several tenants",
            remedy="say which with --tenant",
        )
    raise Refused(
        RefusalCode.NOT_FOUND,
        f"device: there is no {name!r}",
        remedy="see: wantastic-server device list",
    )


def by_pk(transaction: Transaction, pk: int) -> Device | None:
    """Return a device by its number."""
    row = transaction.connection.execute(select(TABLE).where(TABLE.c.pk == pk)).first()
    return None if row is None else record(row)


def iterate(transaction: Transaction, tenant_id: str | None = None) -> Iterator[Device]:
    """Yield devices in the order in which they came."""
    query = select(TABLE).order_by(TABLE.c.pk)
    if tenant_id is not None:
        query = query.where(TABLE.c.tenant_id == tenant_id)
    result = transaction.connection.execution_options(yield_per=500).execute(query)
    for row in result:
        yield record(row)


def approve(transaction: Transaction, device: Device) -> None:
    """Let a pending device in."""
    if device.status is not DeviceStatus.ACTIVE:
        _change(transaction, device, status=DeviceStatus.ACTIVE.value)


def remove(transaction: Transaction, device: Device) -> None:
    """Forget a device: its tokens stop working, gateways drop its keys."""
    tenants.release_address(transaction, device.tenant_id, _address_index(transaction, device))
    transaction.connection.execute(delete(TABLE).where(TABLE.c.pk == device.pk))
    transaction.changed(device.tenant_id, device.pk)


def revoke_tokens(transaction: Transaction, device: Device) -> None:
    """Make every access token of a device useless; its tunnel stays."""
    _change(transaction, device, generation=(device.generation + 1) % GENERATIONS)


def order_rekey(transaction: Transaction, device: Device, before_s: int) -> None:
    """Tell a device to replace its static key before a time."""
    _change(transaction, device, rekey_before_s=before_s)


def offer_key(transaction: Transaction, device: Device, public_key: str) -> None:
    """Begin a rotation: `public_key` may shake hands beside the present one."""
    _change(transaction, device, next_public_key=public_key, next_key_at=transaction.now_s)


def promote_key(transaction: Transaction, device_pk: int, public_key: str) -> bool:
    """End a rotation: the offered key takes over. False when it is not the offered one."""
    device = by_pk(transaction, device_pk)
    if device is None or device.next_public_key != public_key:
        return False
    _change(
        transaction,
        device,
        public_key=public_key,
        next_public_key=None,
        next_key_at=0,
        rekey_before_s=0,
    )
    return True


def drop_offered_key(transaction: Transaction, device_pk: int) -> bool:
    """Roll a rotation back: the offered key is forgotten."""
    device = by_pk(transaction, device_pk)
    if device is None or device.next_public_key is None:
        return False
    _change(transaction, device, next_public_key=None, next_key_at=0)
    return True


def drop_stale_rotations(transaction: Transaction) -> int:
    """Roll back rotations that neither ended nor failed in time; return how many."""
    rows = transaction.connection.execute(
        select(TABLE.c.pk).where(
            TABLE.c.next_public_key.is_not(None),
            TABLE.c.next_key_at <= transaction.now_s - ROTATION_LIMIT_S,
        )
    ).all()
    return sum(drop_offered_key(transaction, pk) for (pk,) in rows)


def pending(transaction: Transaction) -> list[Device]:
    """Return the devices that wait for approval."""
    query = select(TABLE).where(TABLE.c.status == DeviceStatus.PENDING.value).order_by(TABLE.c.pk)
    return [record(row) for row in transaction.connection.execute(query)]


def report(
    transaction: Transaction,
    device_pk: int,
    *,
    applied_version: int | None = None,
    apply_error: str | None = None,
    agent: AgentFacts | None = None,
    enrolment_open: bool | None = None,
) -> None:
    """Keep what a device reports about itself. Nobody else sees that, so no new revision.

    enrolment_open=False: a token of the device was used, and the enrolment token that
    made it no longer answers for it."""
    values: dict[str, Any] = {"last_seen_at": transaction.now_s}
    if applied_version is not None:
        values["applied_version"] = applied_version
    if apply_error is not None:
        values["apply_error"] = apply_error[:MAX_APPLY_ERROR_CHARACTERS]
    if enrolment_open is not None:
        values["enrolment_open"] = enrolment_open
    if agent is not None:
        values["agent"] = agent_json(agent)
    transaction.connection.execute(update(TABLE).where(TABLE.c.pk == device_pk).values(**values))


def directory_entry(transaction: Transaction, pk: int) -> DirectoryEntry | None:
    """Return what polls have to know of a device."""
    device = by_pk(transaction, pk)
    return None if device is None else entry_of(device)


def entry_of(device: Device) -> DirectoryEntry:
    """Shrink a device to its directory entry."""
    return DirectoryEntry(
        pk=device.pk,
        # One string for all devices of a tenant: there may be a million entries.
        tenant_id=sys.intern(device.tenant_id),
        device_id=device.device_id,
        public_key=device.public_key,
        status=device.status,
        ipv4=device.ipv4,
        ipv6=device.ipv6,
        revision=device.revision,
        generation=device.generation,
        enrolment_open=device.enrolment_open,
        rotating=device.next_public_key is not None,
        rekey_before_s=device.rekey_before_s,
        applied_version=device.applied_version,
        apply_error=device.apply_error,
        created_at=device.created_at,
        seen_at=device.last_seen_at,
    )


def last_pk(transaction: Transaction) -> int:
    """Return the highest device number ever given."""
    return int(transaction.connection.execute(select(schema.state.c.last_device_pk)).scalar_one())


def agent_json(agent: AgentFacts) -> dict[str, Any]:
    """Return an agent's facts for the database."""
    return {
        "version": agent.version,
        "os": agent.os,
        "arch": agent.arch,
        "model": agent.model,
        "hostname": agent.hostname,
        "capabilities": list(agent.capabilities),
    }


def record(row: Row[Any]) -> Device:
    """Read a row of the table."""
    agent = row.agent
    return Device(
        pk=row.pk,
        tenant_id=row.tenant_id,
        device_id=row.device_id,
        public_key=row.public_key,
        status=DeviceStatus(row.status),
        ipv4=row.ipv4,
        ipv6=row.ipv6,
        revision=row.revision,
        generation=row.generation,
        next_public_key=row.next_public_key,
        next_key_at=row.next_key_at,
        rekey_before_s=row.rekey_before_s,
        enrolled_by=row.enrolled_by,
        enrolment_open=row.enrolment_open,
        agent=AgentFacts(**{**agent, "capabilities": tuple(agent["capabilities"])}),
        applied_version=row.applied_version,
        apply_error=row.apply_error,
        last_seen_at=row.last_seen_at,
        created_at=row.created_at,
    )


def _address_index(transaction: Transaction, device: Device) -> int:
    return int(
        transaction.connection.execute(
            select(TABLE.c.address_index).where(TABLE.c.pk == device.pk)
        ).scalar_one()
    )


def _change(transaction: Transaction, device: Device, **values: object) -> None:
    revision = transaction.changed(device.tenant_id, device.pk)
    transaction.connection.execute(
        update(TABLE).where(TABLE.c.pk == device.pk).values(revision=revision, **values)
    )
