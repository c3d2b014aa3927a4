"""How SQLite is opened here: write-ahead log, foreign keys, patience, and transactions that begin when told to.

A transaction that reads first and writes later can fail at once in SQLite ("database is locked") when another writer
came between, and no time-out helps. So a unit of work takes the write lock at its beginning (BEGIN IMMEDIATE), and only
one that says it will not write does not.
"""

from __future__ import annotations

import threading
import time
from sqlite3 import Connection as SqliteConnection
from sqlite3 import Cursor, Error, OperationalError, connect

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

DEFERRED = "selfspec_deferred"  # execution option: do not take the write lock when a transaction begins
_BUSY_TIMEOUT_MS = 30_000  # how long a writer waits for another one
_RETRY_SECONDS = 0.02


def _write_ahead(cursor: Cursor) -> None:
    """Switch to the write-ahead log, which stays with the file.

    SQLite does not wait by itself for another process that is switching, so this does.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """Set up every connection the engine will make."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver must not begin transactions on its own
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        deferred = connection.get_execution_options().get(DEFERRED, False)
        connection.exec_driver_sql("BEGIN" if deferred else "BEGIN IMMEDIATE")


class DataVersion:
    """Counts what others commit to a file: SQLite does so for each connection, so one is kept for the asking.

    Safe for threads, and quick enough for an event loop: it waits for no lock.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._connection: SqliteConnection | None = None
        self._is_closed = False  # for good: another connection would count from its own beginning
        self._lock = threading.Lock()

    def read(self) -> int | None:
        """Another number after each commit, by whatever process; None if it cannot be told now."""
        with self._lock:
            try:
                (version,) = self._opened().execute("PRAGMA data_version").fetchone()
            except Error:
                return None
            return int(version)

    def close(self) -> None:
        """Nothing can be told from now on."""
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()

    def _opened(self) -> SqliteConnection:
        if self._connection is None:
            if self._is_closed:
                raise OperationalError("closed")
            self._connection = connect(self._file, timeout=0, isolation_level=None, check_same_thread=False)
        return self._connection
