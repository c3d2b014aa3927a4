"""Named queries of adapter versions and their metrics. Knows nothing about weights: they are artifacts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import Conflict, NotFound
from app.core.records import Attachment, BaseInfo, digest_of
from app.models import Adapter, Metric

_MAX_TRIES = 100  # far more than versions of one domain are ever made at once


class AdapterRepository:
    """Adapter versions of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        domain: str,
        *,
        job_id: str,
        artifact_digest: str,
        base: BaseInfo,
        attachment: Attachment,
        alpha: int,
        num_parameters: int,
        template: str,
        now: datetime,
    ) -> Adapter:
        """Make the domain's next version of a committed artifact that was proven to attach.

        The id is the digest's first 16 digits. The same weights are the same version: if the domain has them already,
        that adapter is returned (so repeating this is harmless). Raises Conflict if no version number can be had.
        """
        for _ in range(_MAX_TRIES):
            there = self._of_artifact(domain, artifact_digest)
            if there is not None:
                return there
            adapter = Adapter(
                id=self._free_id(domain, artifact_digest),
                domain=domain,
                version=self.next_version(domain),
                job_id=job_id,
                artifact_digest=artifact_digest,
                base=base.name,
                base_fingerprint=base.fingerprint,
                rank=attachment.rank,
                alpha=alpha,
                num_parameters=num_parameters,
                num_modules=attachment.num_modules,
                num_bytes=attachment.num_bytes,
                probe_distance=attachment.probe_distance,
                template=template,
                created_at=now,
            )
            if self._insert(adapter):
                return adapter
        raise Conflict(f"no free version number in domain {domain!r}", param="domain")

    def next_version(self, domain: str) -> int:
        """One more than the domain's newest version. Another writer may take it first: only ``add`` makes it yours."""
        newest = self._session.scalar(select(func.max(Adapter.version)).where(Adapter.domain == domain))
        return (newest or 0) + 1

    def get(self, adapter_id: str) -> Adapter:
        """One adapter; raises NotFound."""
        adapter = self._session.get(Adapter, adapter_id)
        if adapter is None:
            raise NotFound(f"there is no adapter {adapter_id!r}", param="adapter")
        return adapter

    def names(self, adapter_ids: Collection[str]) -> dict[str, str]:
        """``finance@v3`` by id; ids that are none are left out."""
        query = select(Adapter).where(Adapter.id.in_(adapter_ids))
        return {adapter.id: adapter.name for adapter in self._session.scalars(query)}

    def by_name(self, domain: str, version: int) -> Adapter:
        """``finance@v3`` as its two parts; raises NotFound."""
        query = select(Adapter).where(Adapter.domain == domain, Adapter.version == version)
        adapter = self._session.scalar(query)
        if adapter is None:
            raise NotFound(f"there is no adapter {domain}@v{version}", param="adapter")
        return adapter

    def list(self, domain: str | None = None) -> Sequence[Adapter]:
        """The versions of a domain (None: of all, by domain), newest first."""
        query = select(Adapter).order_by(Adapter.domain, Adapter.version.desc())
        if domain is not None:
            query = query.where(Adapter.domain == domain)
        return self._session.scalars(query).all()

    def _insert(self, adapter: Adapter) -> bool:
        try:
            with self._session.begin_nested():
                self._session.add(adapter)
        except IntegrityError:
            if not self._is_taken(adapter):
                raise  # not a race: the job or the domain is missing
            return False
        return True

    def _is_taken(self, adapter: Adapter) -> bool:
        same = or_(Adapter.version == adapter.version, Adapter.artifact_digest == adapter.artifact_digest)
        query = select(Adapter.id).where(or_(Adapter.id == adapter.id, and_(Adapter.domain == adapter.domain, same)))
        return self._session.scalar(query.limit(1)) is not None

    def _of_artifact(self, domain: str, digest: str) -> Adapter | None:
        return self._session.scalar(select(Adapter).where(Adapter.domain == domain, Adapter.artifact_digest == digest))

    def _free_id(self, domain: str, artifact_digest: str) -> str:
        """Another domain may own the very same weights; then the domain's name makes the id differ."""
        plain = artifact_digest[:16]
        return plain if self._session.get(Adapter, plain) is None else digest_of(domain, artifact_digest)


class MetricRepository:
    """Metrics of the unit of work's transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def replace(self, adapter_id: str, *, job_id: str, metrics: Sequence[Metric]) -> None:
        """Store the figures a job measured for an adapter, in place of those it stored before."""
        self._session.execute(delete(Metric).where(Metric.adapter_id == adapter_id, Metric.job_id == job_id))
        self._session.add_all(metrics)
        self._session.flush()

    def list(self, *, job_id: str | None = None, adapter_ids: Sequence[str] | None = None) -> Sequence[Metric]:
        """Figures of a job, of adapters, or of both, in the order they were stored."""
        query = select(Metric).order_by(Metric.id)
        if job_id is not None:
            query = query.where(Metric.job_id == job_id)
        if adapter_ids is not None:
            query = query.where(Metric.adapter_id.in_(adapter_ids))
        return self._session.scalars(query).all()
