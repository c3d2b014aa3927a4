"""The database's tables (a *model* here is a table, never a language model). Knows nothing about queries."""

from app.models.adapters import Adapter, ArtifactEntry, Metric
from app.models.base import Base, EventLevel, SetRole
from app.models.domains import Corpus, Domain, Promotion, SeedSet
from app.models.jobs import Event, Job, SeedUse, StageRun

__all__ = [
    "Adapter",
    "ArtifactEntry",
    "Base",
    "Corpus",
    "Domain",
    "Event",
    "EventLevel",
    "Job",
    "Metric",
    "Promotion",
    "SeedSet",
    "SeedUse",
    "SetRole",
    "StageRun",
]
