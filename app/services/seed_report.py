"""What there is to say about labelled examples before a job learns from them: figures, findings, what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.core.errors import Problem


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # POST /specialize would refuse
    WARNING = "warning"  # the expert, or what is said about it, may suffer
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, in words, and what to do about it. ``lines`` are the first few places in ``source``."""

    severity: Severity
    code: str
    message: str
    remedy: str
    source: str | None = None
    task: str | None = None
    count: int = 1
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How often an answer stands in seeds and in evaluation."""

    label: str
    seeds: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task: how many examples it has. ``labels``: the answers of a task that has only a few; else empty."""

    task: str
    domain: str
    seeds: int
    held_out: int  # of the seeds, never learned
    evaluation: int  # uploaded items
    share: float  # of all seeds, 0 to 1
    labels: tuple[LabelCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of the examples with the template around them, against what recipe and base can take.

    ``median`` and ``longest`` are None while the tokenizer is not there; ``context`` while the base is not.
    """

    median: int | None
    longest: int | None
    max_length: int
    context: int | None
    longest_prompt: int | None = None  # of the first prompts that the job would send, the answer's room included
    cut_texts: Mapping[str, int] = field(default_factory=dict)  # median of each task whose new texts would be cut off


@dataclass(frozen=True, slots=True)
class RejectedItems:
    """Written items that were not kept for one reason, with a few of them."""

    reason: str
    count: int
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """What the recipe would reach at the pace and yield of a trial; training and evaluation not counted."""

    examples: int  # accepted and answered well
    wanted: int  # num_examples of the recipe
    prompts: int
    instruction_seconds: float
    response_seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What some real prompts gave. ``written`` items were read in the replies, ``accepted`` of them kept."""

    prompts: int
    written: int
    accepted: int
    tokens: int
    seconds: float
    rejected: tuple[RejectedItems, ...]
    samples: tuple[str, ...]  # of what was accepted
    answered: int
    answers_kept: int
    answer_seconds: float
    rejected_answers: tuple[RejectedItems, ...]
    projection: Projection


@dataclass(frozen=True, slots=True)
class SeedReport:
    """The whole examination. ``problems`` are what POST /specialize would refuse with."""

    num_seeds: int
    num_evaluation: int
    num_labelled: int
    num_held_out: int
    tasks: tuple[TaskReport, ...]
    lengths: Lengths
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...] = ()
    dry_run: Trial | None = None

    @property
    def is_usable(self) -> bool:
        """Whether POST /specialize would take it."""
        return not self.problems

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)

    @property
    def summary(self) -> str:
        """In one line."""
        seeds = f"{numbered(self.num_seeds, 'seed')} of {numbered(len(self.tasks), 'task')}"
        evaluation = numbered(self.num_evaluation, "evaluation item")
        judged = evaluation if self.num_evaluation else f"{self.num_held_out} held out"
        told = "; ".join(finding.message for finding in self.warnings[:3])
        return f"{seeds}, {judged}: {numbered(len(self.warnings), 'warning')}" + (f": {told}" if told else "")


def numbered(count: int, what: str) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
