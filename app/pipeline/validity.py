"""Is a generated row one that its task's seeds could have? What the seeds show is required, nothing else.

A profile is read off a task's seeds; each check holds for all of them, else it is not asked of what is generated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from app.core.records import Candidate, Check, Seed
from app.core.texts import evened
from app.pipeline.extraction import (
    ARROW,
    HEAD,
    ITEM,
    NOTHING,
    SEGMENT,
    Finding,
    findings_of,
    merge_findings,
    pairs_that_share,
    placed,
)

_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?:[.,]\d+)*")  # not the 1 of a name like "Rate1"
_MOST_LABEL_WORDS = 3  # a longer output is no label
_PART_OF_LIST = 4  # of the shortest seed's input so much is enough where answers list texts of it


@dataclass(frozen=True, slots=True)
class Profile:
    """What all seeds of one task have in common."""

    labels: frozenset[str] | None  # a closed-label task's outputs, casefolded
    is_headed: bool  # every segment is "LABEL: text"
    heads: frozenset[str] | None  # the labels allowed before ":"; None: open
    is_one_word_head: bool
    is_extractive: bool  # every text stands in the input
    is_list: bool  # and some outputs are several texts of it
    sharing: frozenset[frozenset[str]]  # labels that one text is found under
    findings_a_word: float  # of input
    labels_found: Counter[str]  # of all findings
    most_findings: int
    most_finding_words: int
    has_input_numbers: bool  # every number stands in the input
    most_words: int  # longest output allowed
    most_segments: int
    fewest_input_words: int
    most_input_words: int


class Rules:
    """The profiles of all tasks; of a row that belongs to no task of the seeds nothing is asked."""

    def __init__(self, seeds: Sequence[Seed], *, is_strict: bool) -> None:
        by_task: dict[str, list[Seed]] = {}
        for seed in seeds if is_strict else ():
            by_task.setdefault(seed.task, []).append(seed)
        self._profiles = {task: profile_of(own) for task, own in by_task.items()}

    def fault_of_input(self, task: str | None, text: str) -> str | None:
        """Why a new input is none that the task could have, or None."""
        profile = self._profiles.get(task or "")
        return None if profile is None else fault_of_input(text, profile)

    def lists_findings(self, task: str | None) -> bool:
        """Whether the task's answers are lists of texts of their inputs: of a part of an input they are so, too."""
        profile = self._profiles.get(task or "")
        return profile is not None and profile.is_list

    def allows(self, candidate: Candidate, output: str, finish_reason: str) -> bool:
        """Whether an output could be learned from: whole, and as the task's seeds are."""
        is_whole = bool(output) and finish_reason != "length"
        return is_whole and all(check.is_passed for check in self.checks(candidate, output))

    def findings(self, candidate: Candidate, text: str, finish_reason: str) -> list[Finding] | None:
        """What an answer found as the task's seeds do and the input holds; None: it says that there is nothing.

        A cut end is left out. Only of tasks that list findings.
        """
        found = _sound_findings(text, finish_reason, candidate, self._profiles[candidate.task or ""])
        return None if found is None else placed(found, candidate.input)

    def share_of_label(self, task: str, label: str) -> float | None:
        """Of all findings of the task's seeds, those of this label; None where others than the seeds' are expected.

        A label that the seeds do not have counts as half a finding.
        """
        profile = self._profiles[task]
        count = profile.labels_found[label]
        if not count and profile.heads is None:
            return None
        return (count or 0.5) / max(1, profile.labels_found.total())

    def merge(
        self, candidate: Candidate, answers: Sequence[tuple[Sequence[Finding] | None, Mapping[str, float]]]
    ) -> tuple[str, float]:
        """One answer made of several's ``findings`` (with what those of a label count), and how far they agree.

        Of all that can be made of them, what passes for the seeds' and has the highest expected F1; "" if nothing does.
        """
        profile = self._profiles[candidate.task or ""]
        made = merge_findings(
            answers,
            candidate.input,
            expected=profile.findings_a_word * len(candidate.input.split()),
            most=profile.most_findings,
            sharing=profile.sharing,
        )
        asked = (candidate.input, candidate.instruction, profile)
        return next((kept for kept in made if not fault_of_output(kept[0], *asked)), ("", 0.0))

    def checks(self, candidate: Candidate, output: str) -> Iterator[Check]:
        """The verdict on an output, named by the fault or, where there is none, "validity"."""
        profile = self._profiles.get(candidate.task or "")
        if profile is not None:
            fault = fault_of_output(output, candidate.input, candidate.instruction, profile)
            yield Check(fault or "validity", fault is None)


def profile_of(seeds: Sequence[Seed]) -> Profile:
    """Read the profile of one task's seeds."""
    outputs = [seed.output for seed in seeds]
    full = [seed for seed in seeds if seed.output.casefold() != NOTHING]
    is_headed = bool(full) and all(HEAD in segment for seed in full for segment in seed.output.split(SEGMENT))
    heads = Counter(finding.label for seed in full for finding in findings_of(seed.output)) if is_headed else Counter()
    named = seeds[0].instruction if seeds else ""
    is_closed_head = is_headed and all(head.split(" (")[0] in named for head in heads)
    words = [len(output.split()) for output in outputs]
    found = [findings_of(seed.output) for seed in full]
    is_extractive = not is_closed(seeds) and all(stands_in(seed.output, seed.input, is_headed) for seed in full)
    is_list = is_extractive and any(map(_is_list, full))
    input_words = [len(seed.input.split()) for seed in seeds]
    return Profile(
        labels=frozenset(output.casefold() for output in outputs) if is_closed(seeds) else None,
        is_headed=is_headed,
        heads=frozenset(heads) if is_closed_head else None,
        is_one_word_head=is_headed and all(" " not in head for head in heads),
        is_extractive=is_extractive,
        is_list=is_list,
        sharing=frozenset(chain.from_iterable(map(pairs_that_share, found))),
        labels_found=Counter(one.label for own in found for one in own),
        findings_a_word=sum(map(len, found)) / max(1, sum(input_words)),
        most_findings=_generous(max(map(len, found), default=0)),
        most_finding_words=_generous(max((len(one.text.split()) for own in found for one in own), default=0)),
        has_input_numbers=all(numbers_stand_in(seed.output, seed.input) for seed in full),
        most_words=max(3, _generous(max(words))),
        most_segments=max(2, max(len(output.split(SEGMENT)) for output in outputs) + 1),
        fewest_input_words=max(3, min(input_words) // (_PART_OF_LIST if is_list else 2)),
        most_input_words=2 * max(input_words),
    )


def is_closed(seeds: Sequence[Seed]) -> bool:
    """Whether a task's answers are few short labels: at most half as many labels as seeds, of three words at most."""
    labels = {seed.output for seed in seeds}
    is_short = all(len(label.split()) <= _MOST_LABEL_WORDS for label in labels)
    return is_short and 2 * len(labels) <= len(seeds) and not any(HEAD in label for label in labels)


def fault_of_input(text: str, profile: Profile) -> str | None:
    """Why a new input is not one of the task's, or None."""
    words = text.casefold().split()
    if not profile.fewest_input_words <= len(words) <= profile.most_input_words:
        return "input_length"
    return "input_repeats" if repeats(words) else None


def fault_of_output(output: str, input: str, instruction: str, profile: Profile) -> str | None:
    """Why an output is none that the task's seeds could have, or None."""
    if profile.labels is not None:
        return None if output.casefold() in profile.labels else "unknown_label"
    if len(output.split()) > profile.most_words or len(output.split(SEGMENT)) > profile.most_segments:
        return "output_length"
    if output.casefold() == NOTHING:
        return None if NOTHING in instruction.casefold() else "empty_answer"
    if profile.is_headed and not all(HEAD in segment for segment in output.split(SEGMENT)):
        return "other_form"
    findings = findings_of(output)
    if fault := next(filter(None, (_fault_of_label(one.label, instruction, profile) for one in findings)), None):
        return fault
    if len(set(findings)) < len(findings) or (len(findings) == 1 and repeats(output.casefold().split())):
        return "repeated_piece"
    if profile.is_extractive and not stands_in(output, input, profile.is_headed):
        return "not_in_input"
    if profile.has_input_numbers and not numbers_stand_in(output, input):
        return "number_not_in_input"
    return None


def _fault_of_label(label: str, instruction: str, profile: Profile) -> str | None:
    if not profile.is_headed:
        return None
    if not label or (profile.is_one_word_head and " " in label):
        return "other_form"
    is_known = profile.heads is None or label in profile.heads or label in instruction
    return None if is_known else "unknown_label"


def _sound_findings(text: str, finish_reason: str, candidate: Candidate, profile: Profile) -> list[Finding] | None:
    """What an answer found as the task's seeds do; None: it says that there is nothing. A cut end is left out."""
    line = text.partition("\n")[0]
    if line.casefold() == NOTHING:
        return None
    findings = findings_of(line)
    if finish_reason == "length" and line == text:
        findings.pop()
    return [
        finding
        for finding in findings
        if _fault_of_label(finding.label, candidate.instruction, profile) is None
        and len(finding.text.split()) <= profile.most_finding_words
        and not (profile.has_input_numbers and not numbers_stand_in(finding.text, candidate.input))
    ]


def _is_list(seed: Seed) -> bool:
    """Whether an extraction's output is several texts, and no single one that holds a comma."""
    segments, plain = seed.output.split(SEGMENT), evened(seed.input)
    tails = [segment.rpartition(HEAD)[2] for segment in segments]
    return len(segments) > 1 or any(evened(tail) not in plain for tail in tails)


def _generous(most: int) -> int:
    """What is allowed where the seeds have so much at most."""
    return round(1.5 * most)


def stands_in(output: str, input: str, is_headed: bool) -> bool:
    """True if all that the output says to have found stands in the input, letter case and spacing aside."""
    plain = evened(input)
    segments = output.split(SEGMENT)
    for segment in segments:
        head, _, tail = segment.partition(HEAD) if is_headed else ("", "", segment)
        subject = head.rpartition(ARROW)[0]
        whole = evened(tail) in plain  # a mention may hold a comma
        if not whole and not all(evened(item) in plain for item in tail.split(ITEM)):
            return False
        if subject and evened(subject) not in plain:
            return False
    return True


def numbers_stand_in(output: str, input: str) -> bool:
    """True if every number of the output stands in the input as the same number."""
    known = set(_NUMBER.findall(input))
    return all(number in known for number in _NUMBER.findall(output))


def repeats(words: Sequence[str], *, size: int = 3) -> bool:
    """True if a run of ``size`` words comes too often (4 times; more in a long text), or a fifth of all are repeats."""
    most = max(3, len(words) // 40)
    runs = Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))
    again = sum(runs.values()) - len(runs)
    return bool(runs) and (max(runs.values()) > most or again > 0.2 * sum(runs.values()))
