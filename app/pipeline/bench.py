"""What a stage works on: its inputs, its folder and its voice. Who runs the stages provides it.

Row files grow in whole units (waves), so that a killed stage goes on from the last whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.core.event_types import EventType
from app.core.ports import Engine
from app.core.recipe import Recipe
from app.core.records import Passage, Seed
from app.pipeline.holdout import Split
from app.pipeline.template import Template

ROWS = "rows.jsonl"  # the file of a stage's product
COMPARISONS = "comparisons.jsonl"  # beside the rows of metrics
SEEDS_BY_EPOCHS, SEEDS_BY_STEPS, LABELLED = "adapter-seeds", "adapter-seeds-steps", "adapter-labelled"  # stages
_SPARE_TOKENS = 8  # what a tokenizer may add by itself
WAVE = 64  # prompts sent together: with more than a batch holds, its rows are filled again as they end. Fixed, because
# what shares a batch may change the last bits of a logit


def always(bench: Bench) -> bool:
    """Of a stage that every job of its walk needs."""
    return True


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a job.

    ``name``: unique in the job; ``kind``: of its artifact; ``reads``: names of the stages whose products it reads.
    ``writers``: the stages whose adapters write in this one; none: the bare base does. ``is_candidate``: of an adapter,
    that it may become the expert. ``size``: of the generated rows so many are used; None: all.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    work: Callable[[Bench], None]
    iteration: int = 1
    writers: tuple[str, ...] = ()
    is_needed: Callable[[Bench], bool] = always
    is_candidate: bool = False
    size: int | None = None


@dataclass(frozen=True, slots=True)
class AdapterPlace:
    """An adapter that lies on disk."""

    id: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Champion:
    """What the domain serves while the job runs, with its own template."""

    place: AdapterPlace
    name: str  # finance@v3
    template: Template


class Retriever(Protocol):
    """Finds passages of the recipe's corpus."""

    def search(self, query: str, k: int) -> list[Passage]:
        """The ``k`` best by BM25, the best first, with their scores; ties in the corpus's order."""


class Bench(Protocol):
    """One stage of one job."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def domain(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def split(self) -> Split: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def stage(self) -> Stage: ...

    @property
    def folder(self) -> Path:
        """Where this stage's files grow."""

    @property
    def checkpoints(self) -> Path:
        """A folder that outlives a kill and is no part of the product."""

    @property
    def retriever(self) -> Retriever | None:
        """Over the recipe's corpus, if it names one."""

    @property
    def champion(self) -> Champion | None:
        """What the domain serves now."""

    @property
    def off_domain(self) -> Mapping[str, Sequence[Seed]]:
        """Evaluation items of the other domains, by domain: some of each, always the same."""

    @property
    def labelled(self) -> Sequence[Seed]:
        """The user's own labelled rows, to compare with; may be empty."""

    def product(self, kind: str, file: str = ROWS) -> Iterator[dict[str, Any]]:
        """Rows of the stage named ``kind``, or else of that kind, among those that this one reads."""

    def adapters(self) -> dict[str, AdapterPlace]:
        """The adapters that this stage reads, by the names of their stages."""

    def expert(self) -> AdapterPlace:
        """Of those, the one the job is about: what the ``choice`` stage chose, or the only one there is to choose."""

    def writers(self) -> list[AdapterPlace]:
        """The adapters that write in this stage, attached; none: the bare base writes."""

    def kept(self, file: str, *, unit: int) -> Iterator[dict[str, Any]]:
        """Rows that a killed attempt left in ``file``, cut to whole units."""

    def append(self, file: str, rows: Iterable[object]) -> None:
        """Add rows to ``file`` and flush them; a job that is to pause ends here."""

    def saved(self) -> None:
        """All that is made is on disk: that is progress, and a job that is to pause ends here."""

    def write(self, file: str, rows: Iterable[object]) -> None:
        """Make ``file`` of these rows."""

    def progress(self, done: int, total: int, *, detail: Mapping[str, Any] | None = None) -> None:
        """Tell how far this stage is, and what it has to tell beside (kept until told anew); cheap to call often."""

    def tell(self, type: EventType, message: str, *, data: Mapping[str, Any], is_warning: bool = False) -> None:
        """Leave an event."""


def fits_base(bench: Bench, max_new_tokens: int) -> Callable[[str], bool]:
    """Whether the base can read a prompt and still write so many tokens."""
    room = bench.engine.wait_ready().context_tokens - max_new_tokens

    def fits(prompt: str) -> bool:
        is_short = len(prompt.encode("utf-8", "replace")) + _SPARE_TOKENS <= room  # no token is shorter than a byte
        return is_short or bench.engine.count(prompt) <= room

    return fits
