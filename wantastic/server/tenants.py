"""Tenants in the database: their ranges, settings, and the addresses they give."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Row, delete, insert, select, update

from wantastic.server import addresses, schema
from wantastic.server.addresses import Pools
from wantastic.server.database import Transaction
from wantastic.server.records import RefusalCode, Refused, Tenant, TenantSettings

TABLE = schema.tenant
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """What a device gets: its index and the addresses that follow from it."""

    index: int
    ipv4: str
    ipv6: str


def create(
    transaction: Transaction,
    name: str,
    *,
    ipv4_pool: str = "",
    ipv6_pool: str = "",
    approval_required: bool = False,
    max_devices: int = 0,
    settings: TenantSettings | None = None,
) -> Tenant:
    """Add a tenant; ranges that are not named are chosen."""
    if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"tenant name: {name!r} is not a name of up to {MAX_NAME_CHARACTERS} characters",
        )
    others = list_all(transaction)
    if any(name in (other.name, other.id) for other in others):
        raise Refused(RefusalCode.INVALID_REQUEST, f"tenant name: {name!r} exists already")
    taken = [pools_of(other) for other in others]
    if ipv4_pool and ipv6_pool:
        pools = addresses.parse_pools(ipv4_pool, ipv6_pool)
    else:
        proposed = addresses.propose_pools(taken)
        pools = addresses.parse_pools(
            ipv4_pool or str(proposed.ipv4), ipv6_pool or str(proposed.ipv6)
        )
    clash = addresses.overlapping(pools, taken)
    if clash is not None:
        raise Refused(
            RefusalCode.INVALID_REQUEST,
            f"address range: {clash} belongs to another tenant already",
            remedy="choose ranges that overlap with no other tenant's",
        )
    tenant = Tenant(
        id=str(uuid.uuid4()),
        name=name,
        ipv4_pool=str(pools.ipv4),
        ipv6_pool=str(pools.ipv6),
        revision=0,
        approval_required=approval_required,
        max_devices=max_devices,
        settings=settings or TenantSettings(),
        created_at=transaction.now_s,
    )
    transaction.connection.execute(
        insert(TABLE).values(
            id=tenant.id,
            name=tenant.name,
            ipv4_pool=tenant.ipv4_pool,
            ipv6_pool=tenant.ipv6_pool,
            next_index=addresses.FIRST_DEVICE_INDEX,
            revision=transaction.changed(tenant.id),
            approval_required=tenant.approval_required,
            max_devices=tenant.max_devices,
            settings=tenant.settings.to_json(),
            created_at=tenant.created_at,
        )
    )
    return tenant


def pools_of(tenant: Tenant) -> Pools:
    """Return a tenant's ranges."""
    return addresses.parse_pools(tenant.ipv4_pool, tenant.ipv6_pool)


def list_all(transaction: Transaction) -> list[Tenant]:
    """Return all tenants by name."""
    rows = transaction.connection.execute(select(TABLE).order_by(TABLE.c.name))
    return [_record(row) for row in rows]


def find(transaction: Transaction, name: str) -> Tenant:
    """Return a tenant by its name or id."""
    row = transaction.connection.execute(
        select(TABLE).where((TABLE.c.id == name) | (TABLE.c.name == name))
    ).first()
    if row is None:
        raise Refused(
            RefusalCode.NOT_FOUND,
            f"tenant: there is no {name!r}",
            remedy="see: wantastic-server tenant list",
        )
    return _record(row)


def change(
    transaction: Transaction,
    tenant: Tenant,
    *,
    settings: TenantSettings | None = None,
    approval_required: bool | None = None,
    max_devices: int | None = None,
) -> None:
    """Change what all devices of a tenant see."""
    values: dict[str, object] = {"revision": transaction.changed(tenant.id)}
    if settings is not None:
        values["settings"] = settings.to_json()
    if approval_required is not None:
        values["approval_required"] = approval_required
    if max_devices is not None:
        values["max_devices"] = max_devices
    transaction.connection.execute(update(TABLE).where(TABLE.c.id == tenant.id).values(**values))


def touch_all(transaction: Transaction) -> None:
    """Give every tenant a new revision: something that all devices see has changed."""
    for tenant in list_all(transaction):
        change(transaction, tenant)


def take_address(transaction: Transaction, tenant: Tenant) -> Address:
    """Give out an index nobody has: never-used ones first, then the longest unused."""
    pools = pools_of(tenant)
    connection = transaction.connection
    index = connection.execute(
        update(TABLE)
        .where(TABLE.c.id == tenant.id, TABLE.c.next_index < pools.end_index)
        .values(next_index=TABLE.c.next_index + 1)
        .returning(TABLE.c.next_index - 1)
    ).scalar()
    if index is None:
        free = schema.free_address
        index = connection.execute(
            select(free.c.address_index)
            .where(free.c.tenant_id == tenant.id)
            .order_by(free.c.released_at, free.c.address_index)
            .limit(1)
        ).scalar()
        if index is None:
            raise Refused(
                RefusalCode.NO_ADDRESS,
                f"the ranges {tenant.ipv4_pool} and {tenant.ipv6_pool} are used up",
                remedy="ask the operator of the server to remove devices or widen the ranges",
            )
        connection.execute(
            delete(free).where(free.c.tenant_id == tenant.id, free.c.address_index == index)
        )
    return Address(index, *pools.at(index))


def release_address(transaction: Transaction, tenant_id: str, index: int) -> None:
    """Take back what take_address() gave."""
    transaction.connection.execute(
        insert(schema.free_address).values(
            tenant_id=tenant_id, address_index=index, released_at=transaction.now_s
        )
    )


def _record(row: Row[tuple[object, ...]]) -> Tenant:
    return Tenant(
        id=row.id,
        name=row.name,
        ipv4_pool=row.ipv4_pool,
        ipv6_pool=row.ipv6_pool,
        revision=row.revision,
        approval_required=row.approval_required,
        max_devices=row.max_devices,
        settings=TenantSettings.from_json(row.settings),
        created_at=row.created_at,
    )
