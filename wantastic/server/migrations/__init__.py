"""Alembic's steps from one schema to the next; they travel inside the package."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def alembic_config() -> Config:
    """Return how Alembic finds the steps."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade(connection: Connection) -> None:
    """Bring a database to the newest step."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
