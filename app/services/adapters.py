"""Adapter versions: what they are, how they scored, and their files as one archive."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.core.errors import NotFound, SelfspecError
from app.core.ports import AdapterHost
from app.models import Adapter, Metric
from app.pipeline.template import Template
from app.services.jobs import metric_view
from app.services.tar_stream import Member, stream_tar, tar_size
from app.services.views import AdapterView
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database, UnitOfWork

KIND = "adapter"
_NAME = re.compile(r"(?P<domain>[a-z0-9][a-z0-9_-]*)@v(?P<version>\d{1,9})")


@dataclass(frozen=True, slots=True)
class Archive:
    """A .tar on its way out; ``chunks`` can be read once."""

    filename: str
    num_bytes: int
    chunks: Iterator[bytes]


class AdapterService:
    """Reads adapters; every method may block on the database."""

    def __init__(self, database: Database, artifacts: ArtifactStore, host: AdapterHost) -> None:
        self._database, self._artifacts, self._host = database, artifacts, host

    def get(self, adapter: str) -> AdapterView:
        """By id or by name (``finance@v1``), with the figures of every task; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            row = find_adapter(uow, adapter)
            domain = uow.domains.get(row.domain)
            metrics = uow.metrics.list(adapter_ids=[row.id])
            removed = uow.artifacts.removed_adapters()
        attached = attached_ids(self._host)
        return adapter_view(row, metrics, champion_id=domain.champion_id, attached=attached, removed=removed)

    def archive(self, adapter: str) -> Archive:
        """Everything another PEFT program needs, the template and the manifest; raises NotFound."""
        with self._database.session(read_only=True) as uow:
            row = find_adapter(uow, adapter)
        try:
            folder = self._artifacts.open(row.artifact_digest, kind=KIND).folder
        except NotFound as error:
            raise files_gone(self._database, row) from error
        top = row.name.replace("@", "-")
        members = [
            Member(f"{top}/{path.relative_to(folder).as_posix()}", path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        chunks = stream_tar(members, modified=int(row.created_at.timestamp()))
        return Archive(f"{top}.tar", tar_size(members), chunks)


def find_adapter(uow: UnitOfWork, adapter: str) -> Adapter:
    """The row by id or name; raises NotFound."""
    if match := _NAME.fullmatch(adapter):
        return uow.adapters.by_name(match["domain"], int(match["version"]))
    if not adapter.isalnum():
        raise NotFound(f"there is no adapter {adapter!r}; name one by its id or as domain@v1", param="adapter")
    return uow.adapters.get(adapter)


def files_gone(database: Database, adapter: Adapter) -> SelfspecError:
    """Why an adapter cannot be had whose files are not there: retention took them (NotFound), or it is our fault."""
    with database.session(read_only=True) as uow:
        removed_at = uow.artifacts.removed_adapters().get(adapter.artifact_digest)
    if removed_at is None:
        return SelfspecError(f"the files of {adapter.name} are not in the artifact store")
    when, there = f"{removed_at:%Y-%m-%d}", f"GET /domains/{adapter.domain} says which versions are there"
    return NotFound(f"the files of {adapter.name} were removed by retention on {when}; {there}", param="adapter")


def _is_of(metric: Metric, adapter: Adapter) -> bool:
    """A later job that made the very same weights measured them too; those figures are that job's."""
    return metric.adapter_id == adapter.id and metric.job_id == adapter.job_id


def read_template(stored: str) -> Template:
    """The template stored with an adapter, as JSON."""
    return Template.from_dict(json.loads(stored))


def attached_ids(host: AdapterHost) -> frozenset[str]:
    """Adapters that are in a slot of this process now."""
    return frozenset(attachment.adapter for attachment in host.attachments())


def adapter_view(
    adapter: Adapter,
    metrics: Sequence[Metric],
    *,
    champion_id: str | None,
    attached: Collection[str],
    removed: Mapping[str, datetime],
) -> AdapterView:
    """A row of the table, with those of ``metrics`` that are its own, as callers see it.

    ``removed``: when retention took the files of an adapter, by digest.
    """
    return AdapterView(
        id=adapter.id,
        name=adapter.name,
        domain=adapter.domain,
        version=adapter.version,
        is_champion=adapter.id == champion_id,
        attached=adapter.id in attached,
        job=adapter.job_id,
        base=adapter.base,
        base_fingerprint=adapter.base_fingerprint,
        rank=adapter.rank,
        alpha=adapter.alpha,
        num_parameters=adapter.num_parameters,
        num_modules=adapter.num_modules,
        num_bytes=adapter.num_bytes,
        probe_distance=adapter.probe_distance,
        template=read_template(adapter.template),
        digest=adapter.artifact_digest,
        created_at=adapter.created_at,
        files_removed_at=removed.get(adapter.artifact_digest),
        decision=adapter.decision,
        reason=adapter.reason,
        metrics=tuple(metric_view(metric) for metric in metrics if _is_of(metric, adapter)),
    )
