"""The migrations make exactly the schema that the code uses, on both databases, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from tests.support import postgres
from wantastic.server import database as server_database
from wantastic.server import schema
from wantastic.server.database import Database, DatabaseError


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgres.Cluster]:
    with postgres.running() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, cluster: postgres.Cluster
) -> Iterator[Database]:
    url = cluster.new_database() if request.param == "postgresql" else str(tmp_path / "server.db")
    database = Database.open(url)
    yield database
    database.close()


def test_migrations_and_schema_agree(database: Database) -> None:
    with pytest.raises(DatabaseError, match="database migrate"):
        database.check_schema()
    database.migrate()
    database.migrate()
    database.check_schema()
    with database.write() as tx:
        context = MigrationContext.configure(tx.connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_way_back_leaves_nothing(database: Database) -> None:
    database.migrate()
    with database.write() as tx:
        config = server_database.alembic_config()
        config.attributes["connection"] = tx.connection
        command.downgrade(config, "base")
        assert set(inspect(tx.connection).get_table_names()) <= {"alembic_version"}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://x/y", "not supported"),
        ("://", "not a URL"),
        ("sqlite://", "needs a file"),
        ("/nonexistent/folder/server.db", "No such file"),
    ],
)
def test_urls_that_cannot_be_are_explained(url: str, problem: str) -> None:
    with pytest.raises(DatabaseError, match=problem):
        Database.open(url)


def test_a_password_is_not_shown(cluster: postgres.Cluster) -> None:
    url = cluster.new_database()
    password = url.split(":")[2].split("@")[0]
    database = Database.open(url)
    assert password not in database.shown_url
    database.close()
