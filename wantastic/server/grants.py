"""Device authorizations (RFC 8628) and the operators who decide them, in the database.

  pending   -> approved | denied      by an operator, once
  approved  -> redeemed               when a device registered with the token it yields

The token that an approval yields is a one-off enrolment token bound to the device_id that
the operator saw. An answer may be lost, so polling again gives a new token and revokes
the one before it, as long as none was used.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from wantastic.server import enrolment, schema, tenants
from wantastic.server.database import Transaction
from wantastic.server.keyring import hash_matches, hash_secret
from wantastic.server.records import Grant, GrantStatus, Operator, RefusalCode, Refused

TABLE = schema.device_grant
LIFETIME_S = 900
INTERVAL_S = 5
TOKEN_LIFETIME_S = 600
MAX_OPEN = 10_000
# RFC 8628, 6.1: letters that neither make words nor look alike.
_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_CODE_CHARACTERS = 8
_OPERATOR_PREFIX = "wto_"


class GrantError(Exception):
    """What the token endpoint answers instead of a token: an error code of RFC 8628, 3.5."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def begin(transaction: Transaction, device_id: str, model: str, remote: str) -> tuple[str, Grant]:
    """Start an authorization; return its device code, which is not kept, and the rest."""
    if device_id:
        enrolment.check_device_id(device_id)
    connection = transaction.connection
    connection.execute(delete(TABLE).where(TABLE.c.expires_at < transaction.now_s - LIFETIME_S))
    if len(connection.execute(select(TABLE.c.id).limit(MAX_OPEN)).all()) >= MAX_OPEN:
        raise Refused(
            RefusalCode.RATE_LIMITED,
            "too many devices wait for approval",
            retry_after_s=60,
        )
    device_code = secrets.token_urlsafe(32)
    values: dict[str, Any] = {
        "user_code": _unused_user_code(transaction),
        "status": GrantStatus.PENDING.value,
        "tenant_id": None,
        "device_id": device_id,
        "model": model[:100],
        "remote": remote,
        "interval_s": INTERVAL_S,
        "last_polled_at": 0,
        "expires_at": transaction.now_s + LIFETIME_S,
        "decided_by": "",
    }
    connection.execute(insert(TABLE).values(device_code_hash=hash_secret(device_code), **values))
    row = connection.execute(select(TABLE).where(TABLE.c.user_code == values["user_code"])).one()
    return device_code, _grant(row)


def poll(transaction: Transaction, device_code: str) -> str:
    """Answer a device that asks for its token; GrantError says what else."""
    row = transaction.connection.execute(
        select(TABLE).where(TABLE.c.device_code_hash == hash_secret(device_code))
    ).first()
    if row is None:
        raise GrantError("invalid_grant")
    grant = _grant(row)
    if transaction.now_s >= grant.expires_at:
        raise GrantError("expired_token")
    if grant.status is GrantStatus.DENIED:
        raise GrantError("access_denied")
    too_fast = transaction.now_s - grant.last_polled_at < grant.interval_s - 1
    interval_s = grant.interval_s + 5 if too_fast else grant.interval_s
    _update(transaction, grant, last_polled_at=transaction.now_s, interval_s=interval_s)
    if too_fast:
        raise GrantError("slow_down")
    if grant.status is GrantStatus.PENDING:
        raise GrantError("authorization_pending")
    if grant.status is GrantStatus.REDEEMED or not _revoke_unused(transaction, grant):
        _update(transaction, grant, status=GrantStatus.REDEEMED.value)
        raise GrantError("invalid_grant")
    assert grant.tenant_id is not None
    plain, _ = enrolment.create_token(
        transaction,
        tenants.find(transaction, grant.tenant_id),
        max_uses=1,
        lifetime_s=TOKEN_LIFETIME_S,
        label=_label(grant),
        device_id=grant.device_id,
    )
    return plain.text


def find(transaction: Transaction, user_code: str) -> Grant | None:
    """Return the open authorization that a person means; case and dashes do not matter."""
    letters = "".join(c for c in user_code.upper() if c in _CODE_ALPHABET)
    row = transaction.connection.execute(
        select(TABLE).where(
            TABLE.c.user_code == f"{letters[:4]}-{letters[4:]}",
            TABLE.c.status == GrantStatus.PENDING.value,
            TABLE.c.expires_at > transaction.now_s,
        )
    ).first()
    return None if row is None else _grant(row)


def decide(
    transaction: Transaction, user_code: str, *, tenant_id: str | None, decided_by: str
) -> Grant:
    """Approve an authorization for a tenant, or deny it with None; refuse a second time."""
    grant = find(transaction, user_code)
    if grant is None:
        raise Refused(
            RefusalCode.NOT_FOUND,
            "the code is unknown, expired or decided already",
            remedy="start again on the device",
        )
    status = GrantStatus.DENIED if tenant_id is None else GrantStatus.APPROVED
    _update(transaction, grant, status=status.value, tenant_id=tenant_id, decided_by=decided_by)
    return grant


def create_operator(transaction: Transaction, name: str, tenant_id: str | None) -> str:
    """Add somebody who may approve devices; return the sign-in code, which is not kept."""
    table = schema.operator
    taken = transaction.connection.execute(select(table.c.id).where(table.c.name == name)).first()
    if not name or taken is not None:
        raise Refused(
            RefusalCode.INVALID_REQUEST, f"operator name: {name!r} is empty or exists already"
        )
    code = _OPERATOR_PREFIX + secrets.token_urlsafe(24)
    transaction.connection.execute(
        insert(table).values(
            name=name,
            tenant_id=tenant_id,
            secret_hash=hash_secret(code),
            created_at=transaction.now_s,
        )
    )
    return code


def list_operators(transaction: Transaction) -> list[Operator]:
    """Return all operators by name."""
    table = schema.operator
    rows = transaction.connection.execute(select(table).order_by(table.c.name))
    return [Operator(r.id, r.name, r.tenant_id, r.created_at) for r in rows]


def remove_operator(transaction: Transaction, name: str) -> None:
    """Forget an operator; sessions end with it."""
    table = schema.operator
    if not transaction.connection.execute(delete(table).where(table.c.name == name)).rowcount:
        raise Refused(RefusalCode.NOT_FOUND, f"operator: there is no {name!r}")


def sign_in(transaction: Transaction, code: str) -> Operator | None:
    """Return whose sign-in code this is. Found by its hash, so no comparison leaks it."""
    table = schema.operator
    row = transaction.connection.execute(
        select(table).where(table.c.secret_hash == hash_secret(code))
    ).first()
    if row is None or not hash_matches(code, row.secret_hash):
        return None
    return Operator(row.id, row.name, row.tenant_id, row.created_at)


def operator_by_id(transaction: Transaction, operator_id: int) -> Operator | None:
    """Return the operator of a session, unless removed meanwhile."""
    table = schema.operator
    row = transaction.connection.execute(select(table).where(table.c.id == operator_id)).first()
    return None if row is None else Operator(row.id, row.name, row.tenant_id, row.created_at)


def _unused_user_code(transaction: Transaction) -> str:
    while True:
        letters = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_CHARACTERS))
        code = f"{letters[:4]}-{letters[4:]}"
        taken = transaction.connection.execute(
            select(TABLE.c.id).where(TABLE.c.user_code == code)
        ).first()
        if taken is None:
            return code


def _revoke_unused(transaction: Transaction, grant: Grant) -> bool:
    """Revoke the tokens that this grant has yielded; False when one was used."""
    table = schema.enrolment_token
    made = select(table.c.id).where(table.c.label == _label(grant))
    if transaction.connection.execute(made.where(table.c.uses > 0)).first() is not None:
        return False
    transaction.connection.execute(
        update(table)
        .where(table.c.label == _label(grant), table.c.revoked_at.is_(None))
        .values(revoked_at=transaction.now_s)
    )
    return True


def _label(grant: Grant) -> str:
    return f"device-flow {grant.id} {grant.user_code}"


def _update(transaction: Transaction, grant: Grant, **values: object) -> None:
    transaction.connection.execute(update(TABLE).where(TABLE.c.id == grant.id).values(**values))


def _grant(row: Row[Any]) -> Grant:
    return Grant(
        id=row.id,
        user_code=row.user_code,
        status=GrantStatus(row.status),
        tenant_id=row.tenant_id,
        device_id=row.device_id,
        model=row.model,
        remote=row.remote,
        interval_s=row.interval_s,
        last_polled_at=row.last_polled_at,
        expires_at=row.expires_at,
        decided_by=row.decided_by,
    )
