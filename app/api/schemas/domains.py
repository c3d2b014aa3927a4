"""Bodies about domains and adapters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.jobs import MetricBody


class TemplateBody(BaseModel):
    """How an instruction and its input become a prompt: texts with {instruction} and {input}."""

    name: str
    with_input: str
    without_input: str = Field(description="For an empty input.")


class AdapterBody(BaseModel):
    """One version of a domain's expert: immutable, named by its content."""

    id: str = Field(description="From the digest of its files.")
    name: str = Field(description="domain@version.")
    domain: str
    version: int
    is_champion: bool = Field(description="Whether the domain serves it now.")
    attached: bool = Field(description="Whether it is in a slot of this process now; it is attached when first asked.")
    job: str = Field(description="The job that made it.")
    base: str
    base_fingerprint: str = Field(description="Weights, tokenizer, quantization and number format it is right on.")
    rank: int
    alpha: int
    num_parameters: int
    num_modules: int = Field(description="Layers it was applied to when it was attached.")
    num_bytes: int
    probe_distance: float = Field(
        description="Proof that it acts: mean absolute difference of log-probabilities from the base, nats."
    )
    template: TemplateBody = Field(description="What it was trained with and answers by.")
    digest: str = Field(description="Its artifact's SHA-256.")
    created_at: datetime
    files_removed_at: datetime | None = Field(
        description="When retention deleted its files: since then it answers nothing and cannot be promoted; null: "
        "they are there."
    )
    decision: str | None = Field(
        description="The gate's: promote, hold (the evidence is too small) or reject; null: it was made before gates."
    )
    reason: str | None = Field(description="Why, in words.")
    metrics: list[MetricBody] = Field(description="All figures; in lists of versions the means over tasks only.")


class DomainBody(BaseModel):
    """A subject field and its expert."""

    name: str
    description: str | None
    champion: AdapterBody | None = Field(description="What /generate serves for it; null: no expert yet.")
    versions: list[AdapterBody] = Field(description="The newest first.")
    created_at: datetime


class DomainList(BaseModel):
    """All domains, by name."""

    data: list[DomainBody]


class PromoteRequest(BaseModel):
    """Which version a domain is to serve."""

    model_config = ConfigDict(extra="forbid")

    version: (
        Annotated[int, Field(strict=True, ge=1, lt=10**9)] | Annotated[str, Field(min_length=1, max_length=200)]
    ) = Field(description="Its number, its name (finance@v3) or its id.")
    reason: str | None = Field(None, max_length=2000, description="Kept with the promotion, for whoever wonders later.")


class PromotionBody(BaseModel):
    """A change of what a domain serves."""

    id: int
    adapter: str | None = Field(description="What it serves from then on.")
    adapter_name: str | None
    created_at: datetime
    reason: str = Field(description="Begins with `gate: `, `by hand` or `rollback: `.")
    job: str | None = Field(description="The job whose gate decided it; null: somebody asked for it.")


class PromotionPage(BaseModel):
    """Some promotions, the newest first."""

    data: list[PromotionBody]
    next: str | None = Field(description="Give it as `after` to read on; null at the end.")
