"""Alembic's versions of the database. ``Database.upgrade()`` and the ``alembic`` command both run them."""
