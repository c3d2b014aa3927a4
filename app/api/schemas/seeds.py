"""Bodies about labelled examples: their examination, and what came of one."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.api.schemas.errors import ProblemBody
from app.core.records import Origin
from app.core.states import JobStatus
from app.services.seed_report import Severity


class FindingBody(BaseModel):
    """One thing to know about the examples."""

    severity: Severity = Field(description="error: POST /specialize would refuse; warning: may harm the expert; note.")
    code: str = Field(description="For programs.")
    message: str
    remedy: str = Field(description="What to do about it.")
    source: str | None = Field(description="Which set it is about: seeds, evaluation …")
    task: str | None
    count: int = Field(description="How many items it is about.")
    lines: list[int] = Field(description="The first few of them: lines of the file, or positions in the list, from 1.")


class LabelBody(BaseModel):
    """How often an answer stands in the sets."""

    label: str
    seeds: int
    evaluation: int


class TaskReportBody(BaseModel):
    """One task."""

    task: str
    domain: str = Field(description="Of several domains, the one it is from; else empty.")
    seeds: int
    held_out: int = Field(description="Of the seeds, those that would never be learned.")
    evaluation: int
    share: float = Field(description="Of all seeds, 0 to 1.")
    labels: list[LabelBody] = Field(description="The answers of a task that has only a few short ones; else empty.")


class LengthsBody(BaseModel):
    """Tokens, the template around each example included; null while tokenizer or base are loading."""

    median: int | None
    longest: int | None
    max_length: int = Field(description="The recipe's.")
    context: int | None = Field(description="What the base can read.")
    longest_prompt: int | None = Field(description="Of the job's first prompts, with the room for the reply.")
    cut_texts: dict[str, int] = Field(
        description="Tasks whose new texts instruction_max_new_tokens is likely to cut off, and their seeds' median."
    )


class RejectedBody(BaseModel):
    """What was not kept for one reason."""

    reason: str
    count: int
    samples: list[str]


class ProjectionBody(BaseModel):
    """What the recipe would reach at that yield and pace. Yield falls as the pool grows, so this is the most."""

    examples: int = Field(description="Accepted and answered well, a round.")
    wanted: int = Field(description="What the recipe asks for.")
    prompts: int = Field(description="Needed for that, a round.")
    instruction_seconds: float = Field(description="Of all rounds; training and evaluation come on top.")
    response_seconds: float


class TrialBody(BaseModel):
    """What some of the job's own prompts gave on the serving engine."""

    prompts: int
    written: int = Field(description="Items read in the replies.")
    accepted: int = Field(description="Of those.")
    tokens: int
    seconds: float
    rejected: list[RejectedBody]
    samples: list[str] = Field(description="Some that were accepted.")
    answered: int = Field(description="Accepted items that the base then answered; passages are left out.")
    answers_kept: int
    answer_seconds: float
    rejected_answers: list[RejectedBody]
    projection: ProjectionBody


class SeedReportBody(BaseModel):
    """The whole examination."""

    is_usable: bool = Field(description="Whether POST /specialize would take it.")
    summary: str
    num_seeds: int
    num_evaluation: int
    num_labelled: int
    num_held_out: int = Field(description="Of the seeds.")
    tasks: list[TaskReportBody]
    lengths: LengthsBody
    findings: list[FindingBody]
    problems: list[ProblemBody] = Field(description="Every fault, as POST /specialize would tell it.")
    dry_run: TrialBody | None


class WriterBody(BaseModel):
    """Who wrote something."""

    id: str = Field(description='"user", "base" or the id of an adapter.')
    name: str | None = Field(description="domain@version, if that adapter is one.")
    stage: str | None = Field(description="The job's stage that made the adapter, if it is the job's own.")


class KnownSeedBody(BaseModel):
    """A seed as it was sent."""

    id: str
    task: str
    domain: str = Field(description="Of several domains, the one it is from; else empty.")
    instruction: str
    input: str
    output: str
    references: list[str]


class SeedJobBody(BaseModel):
    """A job that the seed was sent to."""

    job: str
    domain: str
    status: JobStatus
    is_held_out: bool | None = Field(description="Whether it was kept to judge by; null: nobody can tell any more.")
    adapter: WriterBody | None = Field(
        description="The version that learned from it; null also if a review left none of its rows."
    )


class SeedRowBody(BaseModel):
    """A training row that the seed is, or that was written from a prompt that showed it."""

    job: str
    row: int = Field(description="Its number in the job's dataset, from 0.")
    id: str
    origin: Origin
    task: str | None
    instruction: str
    input: str
    output: str
    is_edited: bool = Field(description="A person changed it in a review.")


class SeedRowsBody(BaseModel):
    """What came of a seed."""

    id: str
    seed: KnownSeedBody | None = Field(description="null: every set that held it is gone.")
    jobs: list[SeedJobBody] = Field(description="The oldest first.")
    rows: list[SeedRowBody]
    next: str | None = Field(description="Give it as `after` to read on; null at the end.")
