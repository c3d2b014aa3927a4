"""How all jobs stand, in one short look into the database that disturbs nobody."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, NullPool, case, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core.states import JobStatus, StageStatus, WaitsFor
from app.models import Job, StageRun


@dataclass(frozen=True, slots=True)
class Seen:
    """One job as it was a moment ago. ``num_done`` of its ``num_stages`` have succeeded; ``stage`` is at work."""

    id: str
    status: JobStatus
    attempt: int
    waits_for: WaitsFor | None
    num_stages: int
    num_done: int
    stage: str | None

    @property
    def progress(self) -> int:
        """Stages that are behind it: all of them once it has ended, however."""
        return self.num_stages if self.is_final else self.num_done

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    @property
    def is_running(self) -> bool:
        return self.status is JobStatus.RUNNING


class Lookout:
    """Opens a connection for each look, so that cutting connections does not blind it."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(url, poolclass=NullPool)

    def look(self) -> dict[str, Seen] | None:
        """Every job by id; None if the database did not answer."""
        columns = (Job.id, Job.status, Job.attempt, Job.waits_for)
        of_stages = (
            func.count(StageRun.stage),
            func.count(case((StageRun.status == StageStatus.SUCCEEDED, 1))),
            func.max(case((StageRun.status == StageStatus.RUNNING, StageRun.stage))),
        )
        query = select(*columns, *of_stages).join(StageRun, StageRun.job_id == Job.id).group_by(*columns)
        try:
            with Session(self._engine) as session:
                return {row[0]: Seen(*row) for row in session.execute(query)}
        except DBAPIError:
            return None
