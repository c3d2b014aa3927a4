"""What people call an adapter: its domain and version, read from the database once and then remembered.

Ids never get another name, so nothing is ever forgotten but for room.
"""

from __future__ import annotations

import logging
from functools import lru_cache

from app.core.errors import NotFound
from app.core.request_notes import BASE, OTHER, ExpertName
from app.storage.database import Database

log = logging.getLogger(__name__)

_REMEMBERED = 4096


class ExpertNames:
    """Names by adapter id. The first question about an id may block on the database; it never raises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._read)

    def of(self, adapter: str | None) -> ExpertName:
        """``BASE`` for None; an adapter without a row goes by its id; ``OTHER`` while the database cannot tell."""
        if adapter is None:
            return BASE
        try:
            return self._remembered(adapter)
        except Exception:
            log.warning("the name of adapter %s could not be read", adapter, exc_info=True)
            return OTHER

    def _read(self, adapter: str) -> ExpertName:
        with self._database.session(read_only=True) as uow:
            try:
                row = uow.adapters.get(adapter)
            except NotFound:  # loaded from a folder, without a job
                return ExpertName(adapter, adapter)
        return ExpertName(row.domain, str(row.version))
