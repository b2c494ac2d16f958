"""Enrolment: tokens made, listed, revoked and redeemed, and devices registered with them.

Everything a registration decides, it decides inside one write transaction, and write
transactions come one after the other: of many that redeem the same one-off token, the
first takes it and the others find it taken.

Who may register what:
  enrolment token, device_id unknown      uses the token up, makes the device
  enrolment token, same device_id and key the same answer again: without a use when this
                                          token made the device and no call with the
                                          device's own token has come yet, else with one
  enrolment token bound to the device_id  replaces the device's key
  enrolment token, another key            refused: device_id in use
  enrolment token that was revoked        refused, the same answer again as well
  the device's own token, same key        the same answer again
  the device's own token, another key     offered beside the present key when
                                          replaces_public_key names that one, else refused
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update

from wantastic.config.keys import decode_key, is_low_order
from wantastic.server import devices, schema, tenants
from wantastic.server.database import Transaction
from wantastic.server.keyring import hash_matches, hash_secret
from wantastic.server.records import (
    AgentFacts,
    Device,
    DeviceStatus,
    EnrolmentToken,
    RefusalCode,
    Refused,
    Tenant,
)
from wantastic.server.tokens import PlainEnrolmentToken, invalid_token, new_enrolment_token

TABLE = schema.enrolment_token
MAX_DEVICE_ID_CHARACTERS = 128
NO_HASH = bytes(32)
NO_FACTS = AgentFacts()


@dataclass(frozen=True, slots=True)
class Registration:
    """What a device asks for when it registers."""

    device_id: str
    public_key: str
    tenant: str = ""
    replaces_public_key: str = ""
    agent: AgentFacts = NO_FACTS


def create_token(
    transaction: Transaction,
    tenant: Tenant,
    *,
    max_uses: int | None,
    lifetime_s: int,
    label: str = "",
    device_id: str = "",
) -> tuple[PlainEnrolmentToken, EnrolmentToken]:
    """Make an enrolment token; `max_uses` None is without limit. The secret is not kept."""
    if max_uses is not None and max_uses < 1:
        raise Refused(RefusalCode.INVALID_REQUEST, "uses: must be 1 or more")
    if device_id:
        check_device_id(device_id)
    plain = new_enrolment_token()
    values: dict[str, Any] = {
        "id": plain.id,
        "tenant_id": tenant.id,
        "label": label,
        "max_uses": max_uses,
        "uses": 0,
        "device_id": device_id,
        "expires_at": transaction.now_s + lifetime_s,
        "revoked_at": None,
        "created_at": transaction.now_s,
    }
    transaction.connection.execute(
        insert(TABLE).values(secret_hash=hash_secret(plain.secret), **values)
    )
    return plain, EnrolmentToken(**values)


def list_tokens(transaction: Transaction, tenant_id: str | None = None) -> list[EnrolmentToken]:
    """Return tokens in the order in which they were made."""
    query = select(TABLE).order_by(TABLE.c.created_at, TABLE.c.id)
    if tenant_id is not None:
        query = query.where(TABLE.c.tenant_id == tenant_id)
    return [_token(row) for row in transaction.connection.execute(query)]


def revoke_token(transaction: Transaction, token_id: str) -> None:
    """Make a token useless; devices that it let in stay."""
    changed = transaction.connection.execute(
        update(TABLE)
        .where(TABLE.c.id == token_id, TABLE.c.revoked_at.is_(None))
        .values(revoked_at=transaction.now_s)
    )
    if not changed.rowcount:
        raise Refused(
            RefusalCode.NOT_FOUND,
            f"token: there is no valid {token_id!r}",
            remedy="see: wantastic-server token list",
        )


def register_with_token(
    transaction: Transaction, plain: PlainEnrolmentToken, wanted: Registration
) -> Device:
    """Register a device that shows an enrolment token."""
    check_registration(wanted)
    token = find_token(transaction, plain)
    tenant = tenants.find(transaction, token.tenant_id)
    if wanted.tenant and wanted.tenant not in (tenant.id, tenant.name):
        raise Refused(
            RefusalCode.TENANT_UNKNOWN,
            "the token belongs to another tenant",
            remedy="leave tenant_id empty, or use a token of that tenant",
            field="tenant_id",
        )
    if token.device_id and token.device_id != wanted.device_id:
        raise Refused(
            RefusalCode.DEVICE_ID_IN_USE,
            f"the token is bound to the device_id {token.device_id!r}",
            field="device_id",
        )
    device = _by_device_id(transaction, tenant.id, wanted.device_id)
    if device is not None and device.public_key == wanted.public_key:
        _refuse_revoked(token)
        if not (device.enrolment_open and device.enrolled_by == token.id):
            _use(transaction, token)
        return device
    if device is not None and token.device_id != wanted.device_id:
        raise Refused(
            RefusalCode.DEVICE_ID_IN_USE,
            f"the device_id {wanted.device_id!r} is registered with another key",
            remedy="remove the device on the server, or make a token with --device",
            field="device_id",
        )
    _use(transaction, token)
    _refuse_taken_key(transaction, wanted.public_key)
    if device is not None:
        return _replace_key(transaction, device, token, wanted)
    return _insert(transaction, tenant, token, wanted)


def find_token(transaction: Transaction, plain: PlainEnrolmentToken) -> EnrolmentToken:
    """Return a token that is one of ours, whether or not it may still be used."""
    row = transaction.connection.execute(select(TABLE).where(TABLE.c.id == plain.id)).first()
    # An unknown id costs the same comparison as a known one.
    good = hash_matches(plain.secret, NO_HASH if row is None else row.secret_hash)
    if row is None or not good:
        raise invalid_token()
    return _token(row)


def register_with_device(transaction: Transaction, device: Device, wanted: Registration) -> Device:
    """Register a device that shows its own access token: again, or with a new key."""
    check_registration(wanted)
    if wanted.device_id != device.device_id:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            "the token belongs to another device",
            field="device_id",
        )
    tenant = tenants.find(transaction, device.tenant_id)
    if wanted.tenant and wanted.tenant not in (tenant.id, tenant.name):
        raise Refused(
            RefusalCode.TENANT_UNKNOWN,
            "the token belongs to another tenant",
            field="tenant_id",
        )
    if wanted.public_key in (device.public_key, device.next_public_key):
        return device
    if wanted.replaces_public_key != device.public_key:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            "the device is registered with another key",
            remedy="name the key in use in replaces_public_key",
            field="replaces_public_key",
        )
    _refuse_taken_key(transaction, wanted.public_key)
    devices.offer_key(transaction, device, wanted.public_key)
    return _read(transaction, device.pk)


def check_registration(wanted: Registration) -> None:
    """Refuse a registration whose fields cannot be right."""
    check_device_id(wanted.device_id)
    check_public_key(wanted.public_key, "public_key")
    if wanted.replaces_public_key:
        check_public_key(wanted.replaces_public_key, "replaces_public_key")


def check_device_id(device_id: str) -> None:
    """Refuse what is no name: it stands in logs, lists and certificates."""
    if (
        not device_id
        or len(device_id) > MAX_DEVICE_ID_CHARACTERS
        or not all(c.isalnum() or c in "-_.:" for c in device_id)
        or not device_id.isascii()
    ):
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            "device_id must be 1 to 128 letters, digits, '-', '_', '.' or ':'",
            field="device_id",
        )


def check_public_key(text: str, field: str) -> None:
    """Refuse what is not the canonical base64 of a usable Curve25519 point."""
    try:
        usable = not is_low_order(decode_key(text))
    except ValueError:
        usable = False
    if not usable:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"{field} must be a WireGuard public key: 32 bytes in base64, as `wg pubkey` prints",
            field=field,
        )


def _use(transaction: Transaction, token: EnrolmentToken) -> None:
    """Take one use of a token; the condition and the change are one statement."""
    _refuse_revoked(token)
    if transaction.now_s >= token.expires_at:
        raise Refused(
            RefusalCode.TOKEN_EXPIRED,
            "the enrolment token expired",
            remedy="ask the operator of the server for another one",
        )
    taken = transaction.connection.execute(
        update(TABLE)
        .where(
            TABLE.c.id == token.id, or_(TABLE.c.max_uses.is_(None), TABLE.c.uses < TABLE.c.max_uses)
        )
        .values(uses=TABLE.c.uses + 1)
    )
    if taken.rowcount != 1:
        raise Refused(
            RefusalCode.TOKEN_USED,
            "the enrolment token has been used up",
            remedy="ask the operator of the server for another one",
        )


def _refuse_revoked(token: EnrolmentToken) -> None:
    if token.revoked_at is not None:
        raise Refused(
            RefusalCode.TOKEN_REVOKED,
            "the enrolment token was revoked",
            remedy="ask the operator of the server for another one",
        )


def _insert(
    transaction: Transaction, tenant: Tenant, token: EnrolmentToken, wanted: Registration
) -> Device:
    _refuse_beyond_limit(transaction, tenant)
    address = tenants.take_address(transaction, tenant)
    revision, pk = transaction.added(tenant.id)
    status = DeviceStatus.PENDING if tenant.approval_required else DeviceStatus.ACTIVE
    transaction.connection.execute(
        insert(devices.TABLE).values(
            pk=pk,
            tenant_id=tenant.id,
            device_id=wanted.device_id,
            public_key=wanted.public_key,
            status=status.value,
            address_index=address.index,
            ipv4=address.ipv4,
            ipv6=address.ipv6,
            revision=revision,
            # Random: after a restored backup a number may be given a second time, and the
            # first owner's tokens must not work for the second.
            generation=secrets.randbelow(devices.GENERATIONS),
            next_public_key=None,
            next_key_at=0,
            rekey_before_s=0,
            enrolled_by=token.id,
            enrolment_open=True,
            agent=devices.agent_json(wanted.agent),
            applied_version=0,
            apply_error="",
            last_seen_at=transaction.now_s,
            created_at=transaction.now_s,
        )
    )
    return _read(transaction, pk)


def _refuse_beyond_limit(transaction: Transaction, tenant: Tenant) -> None:
    if not tenant.max_devices:
        return
    table = devices.TABLE
    present = transaction.connection.execute(
        select(func.count()).select_from(table).where(table.c.tenant_id == tenant.id)
    ).scalar_one()
    if present >= tenant.max_devices:
        raise Refused(
            RefusalCode.DEVICE_LIMIT,
            f"the tenant has all {tenant.max_devices} devices that it may have",
            remedy="ask the operator of the server to remove one or to raise the limit",
        )


def _replace_key(
    transaction: Transaction, device: Device, token: EnrolmentToken, wanted: Registration
) -> Device:
    """Hand a device_id to a new key; tokens of the old one stop working."""
    transaction.connection.execute(
        update(devices.TABLE)
        .where(devices.TABLE.c.pk == device.pk)
        .values(
            public_key=wanted.public_key,
            next_public_key=None,
            next_key_at=0,
            rekey_before_s=0,
            generation=(device.generation + 1) % devices.GENERATIONS,
            enrolled_by=token.id,
            enrolment_open=True,
            agent=devices.agent_json(wanted.agent),
            revision=transaction.changed(device.tenant_id, device.pk),
        )
    )
    return _read(transaction, device.pk)


def _refuse_taken_key(transaction: Transaction, public_key: str) -> None:
    table = devices.TABLE
    taken = transaction.connection.execute(
        select(table.c.pk).where(
            or_(table.c.public_key == public_key, table.c.next_public_key == public_key)
        )
    ).first()
    gateway = transaction.connection.execute(
        select(schema.gateway.c.name).where(schema.gateway.c.public_key == public_key)
    ).first()
    if taken or gateway:
        raise Refused(
            RefusalCode.KEY_IN_USE,
            "another device has this public key",
            remedy="make a new key on this device; a cloned image must not carry one",
            field="public_key",
        )


def _by_device_id(transaction: Transaction, tenant_id: str, device_id: str) -> Device | None:
    row = transaction.connection.execute(
        select(devices.TABLE).where(
            devices.TABLE.c.tenant_id == tenant_id, devices.TABLE.c.device_id == device_id
        )
    ).first()
    return None if row is None else devices.record(row)


def _read(transaction: Transaction, pk: int) -> Device:
    device = devices.by_pk(transaction, pk)
    assert device is not None
    return device


def _token(row: Row[Any]) -> EnrolmentToken:
    return EnrolmentToken(
        id=row.id,
        tenant_id=row.tenant_id,
        label=row.label,
        max_uses=row.max_uses,
        uses=row.uses,
        device_id=row.device_id,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        created_at=row.created_at,
    )
