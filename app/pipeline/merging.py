"""Of tasks whose answers list texts of their inputs: one answer made of what several found (docs/decisions/0019).

Who answers prefers some labels to others: an adapter of two seeds that say so calls every figure a false positive. Over
all answers to a task that shows; where a writer gives a label a greater share of what it finds than the seeds do, its
findings of that label count as much less (docs/decisions/0022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from app.core.recipe import Recipe
from app.core.records import Answer, Candidate
from app.pipeline.answering import tidy
from app.pipeline.validity import Rules

_AS_SEEDS = 10  # findings in the seeds' shares that are added to a writer's: of a few answers little follows


class Merger:
    """Hears all answers first."""

    def __init__(self, pairs: Iterable[tuple[Candidate, Answer]], *, recipe: Recipe, rules: Rules) -> None:
        """``pairs`` are only counted."""
        self._rules, self._is_on = rules, recipe.merge_findings
        labels: dict[tuple[str, str], Counter[str]] = {}  # of what was found, by task and writer
        for candidate, answer in pairs if self._is_on else ():
            if rules.lists_findings(candidate.task):
                for writer, text, finish_reason in _told(answer):
                    found = rules.findings(candidate, text, finish_reason) or ()
                    own = labels.setdefault((candidate.task or "", writer), Counter())
                    own.update(finding.label for finding in found)
        self._weights = {(task, writer): _weigh(own, task, rules) for (task, writer), own in labels.items()}

    def merge(self, candidate: Candidate, answer: Answer) -> Answer:
        """With what is learned in its text's place, and how far that agrees with all; other tasks' as they are."""
        if not self._is_on or not self._rules.lists_findings(candidate.task):
            return answer
        answers = [
            (self._rules.findings(candidate, text, finish_reason), self._weights[candidate.task or "", writer])
            for writer, text, finish_reason in _told(answer)
        ]
        output, agreement = self._rules.merge(candidate, answers)
        return replace(answer, merged=output, confidence=round(agreement, 6) if answer.samples else None)


def _weigh(found: Counter[str], task: str, rules: Rules) -> Mapping[str, float]:
    """What a finding of each label counts: the label's share of the seeds' findings over its share of the writer's."""
    due = {label: rules.share_of_label(task, label) for label in found}
    total = found.total() + _AS_SEEDS
    return {
        label: min(1.0, share * total / (found[label] + share * _AS_SEEDS))
        for label, share in due.items()
        if share is not None
    }


def _told(answer: Answer) -> Iterator[tuple[str, str, str]]:
    """Writer, text and finish reason of each answer to one task."""
    yield answer.generator, tidy(answer.text), answer.finish_reason
    writers = answer.sample_generators or (answer.generator,) * len(answer.samples)  # of a version that kept none
    ends = answer.sample_finish_reasons or ("stop",) * len(answer.samples)
    for writer, text, finish_reason in zip(writers, answer.samples, ends, strict=True):
        yield writer, tidy(text), finish_reason
