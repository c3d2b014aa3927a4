"""The database's tables (a *model* here is a table, never a language model). Knows nothing about queries."""

from app.models.adapters import Adapter, ArtifactEntry, Metric
from app.models.base import Base, EventLevel, SetRole
from app.models.domains import Corpus, Domain, Promotion, SeedSet, UploadedFile
from app.models.jobs import Event, FineTuning, Job, RowEdit, SeedUse, StageRun, Throughput, WebhookDelivery
from app.models.workers import Worker

__all__ = [
    "Adapter",
    "ArtifactEntry",
    "Base",
    "Corpus",
    "Domain",
    "Event",
    "EventLevel",
    "FineTuning",
    "Job",
    "Metric",
    "Promotion",
    "RowEdit",
    "SeedSet",
    "SeedUse",
    "SetRole",
    "StageRun",
    "Throughput",
    "UploadedFile",
    "WebhookDelivery",
    "Worker",
]
