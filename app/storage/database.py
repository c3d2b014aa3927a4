"""The database: connections, the unit of work, migrations. Knows nothing about what is asked: see the repositories.

Foreign errors that a caller can meet (server gone, file locked, disk full) leave this module as SelfspecErrors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.core.errors import DatabaseAway, DiskFull, SelfspecError, SetupError
from app.models import Domain
from app.storage.adapters import AdapterRepository, MetricRepository
from app.storage.corpora import CorpusRepository
from app.storage.domains import DomainRepository, SeedSetRepository
from app.storage.events import EventRepository
from app.storage.fine_tunings import FineTuningRepository
from app.storage.index import ArtifactIndex
from app.storage.jobs import JobRepository
from app.storage.promotions import PromotionRepository
from app.storage.retention import RetentionRepository
from app.storage.row_edits import RowEditRepository
from app.storage.seed_uses import SeedUseRepository
from app.storage.sqlite import DEFERRED, DataVersion, prepare_sqlite
from app.storage.stage_runs import StageRunRepository
from app.storage.throughputs import ThroughputRepository
from app.storage.uploaded_files import UploadedFileRepository
from app.storage.webhooks import WebhookRepository
from app.storage.workers import WorkerRepository

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_PATIENCE = {  # with PostgreSQL
    "connect_timeout": 5,  # s
    "tcp_user_timeout": 15_000,  # ms: a server whose machine is silent is away
    "options": "-c idle_in_transaction_session_timeout=30s",  # whoever stands still in a transaction loses its locks
}
_DISK_WORDS = ("is full", "No space left", "readonly database")  # in what the drivers say
_MIGRATION_LOCK = 7_355_411_926  # PostgreSQL advisory lock: processes that start together migrate one by one


class UnitOfWork:
    """One transaction and the repositories that speak in it. Leave without ``commit`` and nothing happened.

    Rows stay readable after the end, as they were when read; ask again to see what others changed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.domains = DomainRepository(session)
        self.promotions = PromotionRepository(session)
        self.seed_sets = SeedSetRepository(session)
        self.seed_uses = SeedUseRepository(session)
        self.jobs = JobRepository(session)
        self.stage_runs = StageRunRepository(session)
        self.throughputs = ThroughputRepository(session)
        self.row_edits = RowEditRepository(session)
        self.events = EventRepository(session)
        self.artifacts = ArtifactIndex(session)
        self.adapters = AdapterRepository(session)
        self.metrics = MetricRepository(session)
        self.corpora = CorpusRepository(session)
        self.files = UploadedFileRepository(session)
        self.fine_tunings = FineTuningRepository(session)
        self.workers = WorkerRepository(session)
        self.retention = RetentionRepository(session)
        self.webhooks = WebhookRepository(session)

    def commit(self) -> None:
        """Make what was done so far last; a new transaction begins with the next query."""
        self._session.commit()


class Database:
    """One database by SQLAlchemy URL; safe to share between threads, not between processes (open one in each)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _make_engine(url)
        self._reader = self._engine.execution_options(**{DEFERRED: True})
        self._version = _data_version(self._engine)

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[UnitOfWork]:
        """A unit of work. Keep it short: on SQLite one writer at a time holds the database.

        ``read_only`` takes no write lock (a writer never makes it wait); do not write in it.
        Raises DatabaseAway if the database does not answer or stays locked, DiskFull if its disk is full.
        """
        engine = self._reader if read_only else self._engine
        with _translated(self.url), Session(engine, expire_on_commit=False) as session:
            yield UnitOfWork(session)

    def version(self) -> int | None:
        """Another number after each commit, by whatever process: what was read since the same number still holds.

        Waits for nothing. None if it cannot be told so: a server would have to be asked.
        """
        return None if self._version is None else self._version.read()

    def upgrade(self) -> None:
        """Bring the tables to the newest version; at once if they are. Several processes may do so together."""
        from alembic import command  # heavy, and most processes find the tables there

        with _translated(self.url), migrating(self.url) as connection:
            command.upgrade(alembic_config(connection), "head")

    def check(self) -> None:
        """Raise DatabaseAway unless the database answers and has its tables."""
        with _translated(self.url), Session(self._reader) as session:
            session.execute(select(Domain.name).limit(1))

    def server_time(self) -> datetime | None:
        """The server's clock; None: it has no other than this machine's. Raises NotReady if it does not answer."""
        with _translated(self.url), Session(self._reader) as session:
            found = session.scalar(select(func.current_timestamp()))
            is_server = session.get_bind().dialect.name != "sqlite"
        return found if is_server else None

    def missing_migrations(self) -> list[str]:
        """Versions that ``upgrade`` would bring, oldest first. Raises SetupError if the tables are newer than this."""
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory
        from alembic.script.revision import RevisionError

        with _translated(self.url), self._reader.connect() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
        script = ScriptDirectory(str(MIGRATIONS))
        try:
            missing = [step.revision for step in script.iterate_revisions("head", heads or "base")]
        except RevisionError as error:
            raise SetupError(f"the database's tables are of a newer selfspec: {', '.join(heads)}") from error
        return missing[::-1]

    def dispose(self) -> None:
        """Close all idle connections."""
        if self._version is not None:
            self._version.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration without a file, for an open connection (see ``migrating``)."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def migrating(url: str) -> Iterator[Connection]:
    """A connection in one transaction that no other migration can share; committed at the end.

    On SQLite foreign keys are off in it: changing a table there means copying it and dropping the old one.
    """
    engine = _make_engine(url, for_migrations=True)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            yield connection
    finally:
        engine.dispose()


def _make_engine(url: str, *, for_migrations: bool = False) -> Engine:
    poolclass = NullPool if for_migrations else None
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            patience = _PATIENCE if parsed.get_backend_name() == "postgresql" else {}
            patience = {name: value for name, value in patience.items() if name not in parsed.query}
            return create_engine(parsed, poolclass=poolclass, pool_pre_ping=True, connect_args=patience)
    except ArgumentError as error:  # not shown: it repeats the URL with its password
        raise SetupError("SELFSPEC_DATABASE_URL is no URL such as postgresql+psycopg://user@host/name") from error
    except ModuleNotFoundError as error:
        raise SetupError(f"SELFSPEC_DATABASE_URL needs {error.name}: pip install 'selfspec[postgres]'") from error
    if parsed.database:
        _make_folder(Path(parsed.database).parent)
    engine = create_engine(parsed, poolclass=poolclass)
    prepare_sqlite(engine, foreign_keys=not for_migrations)
    return engine


def _data_version(engine: Engine) -> DataVersion | None:
    file = engine.url.database
    is_file = engine.dialect.name == "sqlite" and file and not file.startswith((":", "file:"))
    return DataVersion(file) if is_file and file else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"the folder of the database cannot be made: {folder}: {error.strerror}") from error


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise _translate(error, url) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise _translate(error, url) from error


def _translate(error: DBAPIError | PoolTimeout, url: str) -> SelfspecError:
    where = make_url(url).render_as_string(hide_password=True)
    cause = str(error.orig if isinstance(error, DBAPIError) else error).strip().split("\n")[0]
    if any(words in cause for words in _DISK_WORDS):
        return DiskFull(f"the disk of the database is full or read-only: {where}: {cause}")
    return DatabaseAway(f"the database does not answer: {where}: {cause}")
