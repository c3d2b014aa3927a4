"""Domains: which there are, what each serves, and all versions with their mean figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from app.core.ports import AdapterHost
from app.models import Adapter, Domain, Metric
from app.services.adapters import adapter_view, attached_ids
from app.services.domain_names import check_name
from app.services.views import DomainView
from app.storage.database import Database

MEAN = "mean"  # the task name of figures over all tasks


class DomainService:
    """Reads domains; every method may block on the database."""

    def __init__(self, database: Database, host: AdapterHost) -> None:
        self._database, self._host = database, host

    def list(self) -> tuple[DomainView, ...]:
        """All domains by name."""
        with self._database.session(read_only=True) as uow:
            adapters = uow.adapters.list()
            metrics = uow.metrics.list(adapter_ids=[adapter.id for adapter in adapters])
            domains = uow.domains.list()
            removed = uow.artifacts.removed_adapters()
        attached = attached_ids(self._host)
        return tuple(_view(domain, adapters, metrics, attached, removed) for domain in domains)

    def get(self, name: str) -> DomainView:
        """One domain; raises UnknownDomain, and InvalidInput for what cannot be a name."""
        with self._database.session(read_only=True) as uow:
            domain = uow.domains.get(check_name(name))
            adapters = uow.adapters.list(name)
            metrics = uow.metrics.list(adapter_ids=[adapter.id for adapter in adapters])
            removed = uow.artifacts.removed_adapters()
        return _view(domain, adapters, metrics, attached_ids(self._host), removed)


def _view(
    domain: Domain,
    adapters: Sequence[Adapter],
    metrics: Sequence[Metric],
    attached: Collection[str],
    removed: Mapping[str, datetime],
) -> DomainView:
    means = [metric for metric in metrics if metric.task == MEAN]
    versions = tuple(
        adapter_view(adapter, means, champion_id=domain.champion_id, attached=attached, removed=removed)
        for adapter in adapters
        if adapter.domain == domain.name
    )
    return DomainView(
        name=domain.name,
        description=domain.description,
        champion=next((version for version in versions if version.is_champion), None),
        versions=versions,
        created_at=domain.created_at,
    )
