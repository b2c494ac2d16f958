"""The database: opening, transactions, migrations, and hearing of changes by others.

Theory of operation. SQLite is the default, in WAL mode with full synchronisation: one
writer at a time (BEGIN IMMEDIATE), readers beside it, a commit that was answered is on
the disk. PostgreSQL is for several server processes. On both, a write transaction first
takes the one row of `state`, so writes are in one order and every change of what
devices see gets the next revision; a committed revision is visible only after all lower
ones.

Others hear of a change by a Signal: on PostgreSQL it is NOTIFY, delivered at commit; on
SQLite, `PRAGMA data_version` moves when another connection commits, and reading it
costs microseconds. A signal says only "look": what changed stands in the table `change`.

Everything here blocks; the server calls it in worker threads.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from wantastic.server import schema
from wantastic.server.records import Change

CHANNEL = "wantastic_change"
SQLITE_POLL_S = 0.1
BUSY_TIMEOUT_MS = 20_000
WRITE_OPTION = "wantastic_write"
CHANGES_AT_ONCE = 1000

Clock = Callable[[], float]


class DatabaseError(Exception):
    """The database cannot be used; the text says why and what to do."""


class Transaction:
    """One read or write transaction."""

    def __init__(self, connection: Connection, now_s: int) -> None:
        self.connection = connection
        self.now_s = now_s

    def changed(self, tenant_id: str, device_pk: int | None = None) -> int:
        """Record that a device, or all of a tenant, see something new; return the revision."""
        return self._changed(tenant_id, device_pk, 0)[0]

    def added(self, tenant_id: str) -> tuple[int, int]:
        """Record that a device is added; return the revision, and the device's number."""
        return self._changed(tenant_id, None, 1)

    def _changed(self, tenant_id: str, device_pk: int | None, added: int) -> tuple[int, int]:
        connection, state = self.connection, schema.state
        revision, last_pk = connection.execute(
            update(state)
            .values(revision=state.c.revision + 1, last_device_pk=state.c.last_device_pk + added)
            .returning(state.c.revision, state.c.last_device_pk)
        ).one()
        device_pk = last_pk if added else device_pk
        connection.execute(
            insert(schema.change).values(
                revision=revision, tenant_id=tenant_id, device_pk=device_pk, at=self.now_s
            )
        )
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SELECT pg_notify(:channel, :revision)"),
                {"channel": CHANNEL, "revision": str(revision)},
            )
        return revision, last_pk


class Database:
    """One database as one process uses it. Thread-safe."""

    def __init__(self, engine: Engine, clock: Clock = time.time) -> None:
        self._engine = engine
        # What is read in several steps is read at one moment; SQLite does so by itself.
        self._reading = (
            engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            if engine.dialect.name == "postgresql"
            else engine
        )
        self._writing = engine.execution_options(**{WRITE_OPTION: True})
        self._clock = clock
        # There is one writer at a time anyway: threads queue here, not at the database's lock.
        self._writer = threading.Lock()

    @classmethod
    def open(cls, url: str, clock: Clock = time.time) -> Database:
        """Open a database by its URL; a plain path is an SQLite file."""
        parsed = _parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = _open_sqlite(parsed)
        else:
            engine = create_engine(parsed, pool_size=4, max_overflow=4, pool_pre_ping=True)
        return cls(engine, clock)

    @property
    def kind(self) -> str:
        """Return "sqlite" or "postgresql"."""
        return self._engine.dialect.name

    @property
    def shown_url(self) -> str:
        """The URL without its password, for logs."""
        return self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction that sees one moment and writes nothing."""
        with self._reading.connect() as connection, connection.begin():
            yield Transaction(connection, int(self._clock()))

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a transaction that is alone in writing; it commits when the block ends well."""
        with (
            self._writer,
            self._writing.connect() as connection,
            connection.begin(),
        ):
            if self.kind == "postgresql":
                connection.execute(select(schema.state.c.id).with_for_update())
            yield Transaction(connection, int(self._clock()))

    def migrate(self) -> None:
        """Bring the schema to the newest step; several processes may try at once."""
        try:
            with self._writing.connect() as connection, connection.begin():
                if self.kind == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(7106427)"))
                if _schema_of(connection) != schema.HEAD:
                    # Imported here: Alembic takes as long to import as all the rest.
                    from wantastic.server.migrations import upgrade

                    upgrade(connection)
                if connection.execute(select(schema.state.c.id)).first() is None:
                    connection.execute(
                        insert(schema.state).values(
                            id=1, revision=1, pruned_revision=0, last_device_pk=0, epoch=_epoch()
                        )
                    )
        except OperationalError as error:
            raise DatabaseError(
                f"database {self.shown_url}: {error.orig}; is it running, and reachable from here?"
            ) from None

    def check_schema(self) -> None:
        """Refuse a database that another version of the server made."""
        wanted = schema.HEAD
        try:
            with self._engine.connect() as connection:
                found = _schema_of(connection)
        except DBAPIError as error:
            raise DatabaseError(f"database {self.shown_url}: {error.orig}") from None
        if found != wanted:
            raise DatabaseError(
                f"database {self.shown_url}: schema {found or 'none'} instead of {wanted}; "
                "run: wantastic-server database migrate"
            )

    def new_epoch(self) -> None:
        """Make every etag unknown; for a database that was restored from a backup."""
        with self.write() as transaction:
            transaction.connection.execute(update(schema.state).values(epoch=_epoch()))

    def changes_after(self, revision: int) -> tuple[list[Change], int, bool]:
        """Return changes above a revision, the newest revision they reach, and whether they
        are all of them: False when older ones were pruned, and everything has to be reread."""
        with self.read() as transaction:
            newest, pruned = transaction.connection.execute(
                select(schema.state.c.revision, schema.state.c.pruned_revision)
            ).one()
            if revision < pruned:
                return [], newest, False
            table = schema.change
            rows = transaction.connection.execute(
                select(table.c.revision, table.c.tenant_id, table.c.device_pk)
                .where(table.c.revision > revision)
                .order_by(table.c.revision)
                .limit(CHANGES_AT_ONCE)
            ).all()
        changes = [Change(*row) for row in rows]
        reached = changes[-1].revision if len(changes) == CHANGES_AT_ONCE else newest
        return changes, reached, True

    def prune_changes(self, before_s: int) -> None:
        """Forget changes made before a time."""
        table = schema.change
        with self.write() as transaction:
            newest = transaction.connection.execute(
                select(table.c.revision)
                .where(table.c.at < before_s)
                .order_by(table.c.revision.desc())
                .limit(1)
            ).scalar()
            if newest is not None:
                transaction.connection.execute(table.delete().where(table.c.revision <= newest))
                transaction.connection.execute(update(schema.state).values(pruned_revision=newest))

    def signal(self) -> Signal:
        """Return a listener with its own connection."""
        if self.kind == "sqlite":
            return _SqliteSignal(str(self._engine.url.database))
        # Imported here: half a second of a slow machine that SQLite has no use for.
        from wantastic.server.notify import PostgresSignal

        return PostgresSignal(self._engine.url, CHANNEL)


class Signal:
    """Tells that somebody may have committed a change. Used from one thread, closed by any."""

    def wait(self) -> bool:
        """Block for a short while; True when there is something to look at. OSError when the
        connection broke: what was missed is unknown then."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the connection back."""
        raise NotImplementedError


class _SqliteSignal(Signal):
    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._closed = threading.Event()
        self._version = -1

    def wait(self) -> bool:
        self._closed.wait(SQLITE_POLL_S)
        if self._closed.is_set():
            return False
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        moved = bool(version != self._version)
        self._version = version
        return moved

    def close(self) -> None:
        self._closed.set()
        self._connection.close()


def _parse_url(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseError(
            "database: not a URL; write a path, sqlite:///PATH or postgresql://USER@HOST/NAME"
        ) from None
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite":
        return parsed
    raise DatabaseError(
        f"database: {parsed.get_backend_name()} is not supported; use sqlite or postgresql"
    )


def _open_sqlite(url: URL) -> Engine:
    path = url.database
    if not path or path == ":memory:":
        raise DatabaseError("database: SQLite needs a file; write sqlite:///PATH")
    # The file holds hashes and sealed keys, yet also who has which device.
    with contextlib.suppress(FileExistsError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            raise
        except OSError as error:
            raise DatabaseError(f"database {path}: {error.strerror}") from None
    engine = create_engine(
        url, pool_size=4, max_overflow=8, connect_args={"check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(WRITE_OPTION)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _schema_of(connection: Connection) -> str | None:
    """Return the step of the migrations that a database is at; None before the first."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _epoch() -> str:
    return secrets.token_hex(4)
