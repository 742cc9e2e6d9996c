"""Brings a database to the schema this code knows: Alembic, run at open, inside the transaction its caller began."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

__all__ = ["known_schemas", "migration_config", "upgrade"]


def migration_config() -> Config:
    """Alembic's configuration: only where the migrations lie."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def known_schemas() -> list[str]:
    """Every schema this code can read, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(migration_config()).walk_revisions()]


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing; commits nothing itself."""
    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
