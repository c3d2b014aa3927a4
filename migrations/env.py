"""How Alembic runs here: in one transaction, on the connection ``Database.upgrade()`` hands over or on its own."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.models import Base
from app.settings import Settings
from app.storage.database import migrating


def run(connection: Connection) -> None:
    """Run the versions. SQLite can do tables in a transaction too; Alembic needs to be told."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        render_as_batch=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("SQL scripts (--sql) are not offered: run the migrations on the database itself")

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with migrating(Settings().resolved_database_url) as connection:
        run(connection)
