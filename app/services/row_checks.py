"""What must hold for a training row that a person changes: the rules of a seed, and nothing of what judges the expert.

Knows nothing of where the row lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Lock

from app.core.errors import InvalidInput, Problem
from app.core.ports import Tokens
from app.core.recipe import Recipe
from app.core.records import Example, Origin, Seed
from app.models import Job
from app.pipeline.contamination import Contamination
from app.pipeline.holdout import question_of
from app.pipeline.template import ALPACA
from app.services.job_order import read_split
from app.services.seed_checks import check_lengths, refuse
from app.services.seeds import Limits, PlacedSeed, SeedSet, read_seeds
from app.storage.artifacts import ArtifactStore
from app.storage.database import Database

_SOURCE = "body"


class _Judges:
    """Everything that one job's expert is chosen or judged by."""

    def __init__(self, learned: tuple[Seed, ...], judging: tuple[Seed, ...], recipe: Recipe) -> None:
        self._questions = {question_of(item) for item in judging}
        self._contamination = Contamination(judging, seeds=learned, recipe=recipe)

    def problems(self, row: Example) -> Iterator[Problem]:
        """Of any row, what an item asks; of a generated one, also what is too like an item."""
        if question_of(_as_seed(row)) in self._questions:
            yield Problem("input", "leakage: the expert is judged by the same instruction and input", source=_SOURCE)
            return
        hit, _ = self._contamination.judge(row) if row.origin is Origin.GENERATED else (None, None)
        if hit is not None:
            found = f"shares {hit.value:.0f} words in a row" if hit.kind == "ngram" else f"has ROUGE-L {hit.value:.3f}"
            reason = f"contamination: it {found} with item {hit.item}, which the expert is judged by"
            yield Problem("input", reason, source=_SOURCE)


class RowChecker:
    """Checks rows of any job; remembers what the last job's expert is judged by."""

    def __init__(self, database: Database, artifacts: ArtifactStore, *, tokens: Tokens, limits: Limits) -> None:
        self._database, self._artifacts, self._tokens, self._limits = database, artifacts, tokens, limits
        self._last: tuple[str, _Judges] | None = None
        self._lock = Lock()

    def read_changes(self, given: Mapping[str, object]) -> dict[str, str]:
        """The texts as they will be learned, by field; raises InvalidInput with every fault."""
        if not given:
            raise InvalidInput([Problem(_SOURCE, "changes nothing: send instruction, input or output", source=_SOURCE)])
        whole = {"task": "any", "instruction": "any", "output": "any", **given}
        read = read_seeds([whole], source=_SOURCE, limits=self._limits)
        refuse(replace(problem, line=None) for problem in read.problems)
        return {field: getattr(read.seeds[0].seed, field) for field in given}

    def check(self, job: Job, row: Example) -> None:
        """Raise InvalidInput if a changed row cannot be learned, NotFound if the job's sets are gone."""
        recipe = Recipe.model_validate(job.recipe)
        items = SeedSet(_SOURCE, (PlacedSeed(_as_seed(row), 1, _SOURCE),), ())
        lengths = check_lengths(items, tokens=self._tokens, template=ALPACA, max_tokens=recipe.max_length)
        refuse((*(replace(problem, line=None) for problem in lengths), *self._judges(job, recipe).problems(row)))

    def _judges(self, job: Job, recipe: Recipe) -> _Judges:
        with self._lock:
            if self._last is None or self._last[0] != job.id:
                with self._database.session(read_only=True) as uow:
                    split = read_split(uow, job, self._artifacts)
                self._last = job.id, _Judges(split.training, (*split.evaluation, *split.holdout), recipe)
            return self._last[1]


def _as_seed(row: Example) -> Seed:
    return Seed(row.task or "", row.instruction, row.input, row.output)
