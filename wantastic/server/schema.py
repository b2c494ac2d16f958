"""The tables, as SQLAlchemy Core sees them; migrations/ creates and changes them.

`state` holds one row: the revision that every change of what devices see increases.
A write transaction locks that row first, so revisions become visible in their order
and a reader that asks for "everything above N" misses nothing.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

HEAD = "0001"
"""The newest of the steps in migrations/, so that a database at it is known without Alembic."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite numbers rows by itself only where the column says INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("pruned_revision", BigInteger, nullable=False),
    # Access tokens name a device by number: no number is given twice.
    Column("last_device_pk", BigInteger, nullable=False),
    # Stands in every etag; made anew when a backup was restored, since revisions repeat then.
    Column("epoch", Text, nullable=False),
)

sealed = Table(
    "sealed",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

tenant = Table(
    "tenant",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("ipv4_pool", Text, nullable=False, unique=True),
    Column("ipv6_pool", Text, nullable=False, unique=True),
    Column("next_index", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("approval_required", Boolean, nullable=False),
    Column("max_devices", BigInteger, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

free_address = Table(
    "free_address",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenant.id", ondelete="CASCADE"), primary_key=True),
    Column("address_index", BigInteger, primary_key=True),
    Column("released_at", BigInteger, nullable=False),
    Index("ix_free_address_oldest", "tenant_id", "released_at", "address_index"),
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenant.id", ondelete="CASCADE"), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("label", Text, nullable=False),
    Column("max_uses", BigInteger),
    Column("uses", BigInteger, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

device = Table(
    "device",
    metadata,
    Column("pk", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, ForeignKey("tenant.id", ondelete="CASCADE"), nullable=False),
    Column("device_id", Text, nullable=False),
    Column("public_key", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("address_index", BigInteger, nullable=False),
    Column("ipv4", Text, nullable=False),
    Column("ipv6", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("next_public_key", Text, unique=True),
    Column("next_key_at", BigInteger, nullable=False),
    Column("rekey_before_s", BigInteger, nullable=False),
    Column("enrolled_by", Text, nullable=False),
    Column("enrolment_open", Boolean, nullable=False),
    Column("agent", JSON, nullable=False),
    Column("applied_version", BigInteger, nullable=False),
    Column("apply_error", Text, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "device_id"),
    UniqueConstraint("tenant_id", "address_index"),
)

change = Table(
    "change",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant_id", Text, nullable=False),
    Column("device_pk", BigInteger),
    Column("at", BigInteger, nullable=False),
)

device_grant = Table(
    "device_grant",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("device_code_hash", LargeBinary, nullable=False, unique=True),
    Column("user_code", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("tenant_id", Text, ForeignKey("tenant.id", ondelete="CASCADE")),
    Column("device_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("remote", Text, nullable=False),
    Column("interval_s", Integer, nullable=False),
    Column("last_polled_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("decided_by", Text, nullable=False),
)

operator = Table(
    "operator",
    metadata,
    Column("id", RowId, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("tenant_id", Text, ForeignKey("tenant.id", ondelete="CASCADE")),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

gateway = Table(
    "gateway",
    metadata,
    Column("name", Text, primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
)
