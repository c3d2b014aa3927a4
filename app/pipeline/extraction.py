"""Extraction tasks: what their answers find in an input, and one answer made of several.

``A: x, y; S -> B: z`` is read as the findings (A, x), (A, y) and (S, B, z). A small base finds some of what there is
behind each draw of demonstrations, and writes other things beside it: whole answers seldom agree, findings do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from app.core.texts import evened

NOTHING = "none"  # how an extraction task says that there is nothing to extract
SEGMENT, HEAD, ITEM, ARROW = "; ", ": ", ", ", " -> "


@dataclass(frozen=True, slots=True)
class Finding:
    """A part of an extraction's output: ``label`` names a type or a relation, ``text`` is what was found."""

    subject: str  # before " -> "; "" for none
    label: str  # before ": "; "" for none
    text: str  # one item of what follows

    @property
    def head(self) -> str:
        return f"{self.subject}{ARROW}{self.label}" if self.subject else self.label


def findings_of(output: str) -> list[Finding]:
    """Commas part items only where there is no subject."""
    found = []
    for segment in output.split(SEGMENT):
        head, mark, tail = segment.partition(HEAD)
        subject, arrow, label = head.rpartition(ARROW) if mark else ("", "", "")
        items = [tail] if arrow else (tail if mark else segment).split(ITEM)
        found += [Finding(subject.strip(), label.strip(), item.strip()) for item in items]
    return found


def write_findings(findings: Iterable[Finding]) -> str:
    """What ``findings_of`` reads, those of one label together, labels in the order of their first."""
    by_head: dict[str, list[Finding]] = {}
    for finding in findings:
        by_head.setdefault(f"{finding.head}{HEAD if finding.label else ''}", []).append(finding)
    segments = []
    for head, found in by_head.items():
        texts = [finding.text for finding in found]
        segments += [head + text for text in texts] if found[0].subject else [head + ITEM.join(texts)]
    return SEGMENT.join(segments)


def merge_findings(
    answers: Sequence[Sequence[Finding] | None], input: str, *, expected: float, most: int, has_one_label: bool
) -> list[tuple[str, float]]:
    """Answers made of the most found of these, the one of highest expected F1 first, each with how far they agree: the
    mean share of the answers that hold one of its findings.

    That share is taken for how likely a finding is right, ``expected`` for how many right ones there are. A small base
    overlooks most of them: what one answer of five holds is worth having where many are expected, and not where one is.
    What is not written in the input is left out. ``most``: findings of an answer.

    ``answers``: each one's findings; None for an answer that says that there is nothing to find, as all do if most do.
    ``has_one_label``: of a text found under several labels, only the most found of these is kept.
    """
    if 2 * answers.count(None) > len(answers):
        return [(NOTHING.capitalize(), answers.count(None) / len(answers))]
    placed = [dict.fromkeys(_placed(found or (), input)) for found in answers]
    votes = Counter(finding for found in placed for finding in found)
    ranked = (_of_one_label(votes) if has_one_label else votes).most_common(most)
    made, right = list[tuple[float, str, float]](), 0.0
    for number, (_, count) in enumerate(ranked, start=1):
        right += count / len(answers)
        if number == len(ranked) or ranked[number][1] < count:  # of findings that as many answers hold all or none
            kept = sorted((finding for finding, _ in ranked[:number]), key=partial(_begin, input))
            made.append((2 * right / (number + expected), write_findings(kept), right / number))
    return [(text, agreement) for _, text, agreement in sorted(made, key=itemgetter(0), reverse=True)]


def place_of(text: str, input: str) -> re.Match[str] | None:
    """Where a text stands in the input, as whole words: as it is written, or else in other letter case."""
    words = r"\s+".join(map(re.escape, text.split()))
    pattern = rf"(?<!\w){words}(?!\w)"
    return (re.search(pattern, input) or re.search(pattern, input, re.IGNORECASE)) if text.split() else None


def _placed(found: Iterable[Finding], input: str) -> Iterator[Finding]:
    """Those that stand in the input, as they are written there."""
    for finding in found:
        text, subject = place_of(finding.text, input), place_of(finding.subject, input)
        if text is not None and (subject is not None or not finding.subject):
            own = " ".join(subject.group().split()) if subject else ""
            yield replace(finding, text=" ".join(text.group().split()), subject=own)


def _of_one_label(votes: Counter[Finding]) -> Counter[Finding]:
    head_of: dict[str, str] = {}
    for finding, _ in votes.most_common():
        head_of.setdefault(evened(finding.text), finding.head)
    return Counter({one: count for one, count in votes.items() if one.head == head_of[evened(one.text)]})


def has_one_label(findings: Sequence[Finding]) -> bool:
    """Whether no text is found under two labels."""
    return len({(evened(one.text), one.head) for one in findings}) == len({evened(one.text) for one in findings})


def _begin(input: str, finding: Finding) -> int:
    place = place_of(finding.subject or finding.text, input)
    return place.start() if place else len(input)
