"""The migrations make exactly the schema that the code uses, on both databases, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from tests.support import postgres
from tests.support.peers import ROOT
from wantastic.server import schema
from wantastic.server.database import Database, DatabaseError
from wantastic.server.migrations import alembic_config


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


def test_the_newest_step_is_known_without_alembic(tmp_path: Path) -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == schema.HEAD
    path = str(tmp_path / "server.db")
    Database.open(path).migrate()
    script = (
        "import sys; from wantastic.server.database import Database; "
        f"d = Database.open({path!r}); d.migrate(); d.check_schema(); d.signal().close(); "
        "assert not {'alembic', 'psycopg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_way_back_leaves_nothing(database: Database) -> None:
    database.migrate()
    with database.write() as tx:
        config = alembic_config()
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
