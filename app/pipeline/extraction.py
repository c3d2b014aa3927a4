"""Extraction tasks: what their answers find in an input, and one answer made of several.

``A: x, y; S -> B: z`` is read as the findings (A, x), (A, y) and (S, B, z). A small base finds some of what there is
behind each draw of demonstrations, and writes other things beside it: whole answers seldom agree, findings do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
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
    answers: Sequence[tuple[Sequence[Finding] | None, Mapping[str, float]]],
    input: str,
    *,
    expected: float,
    most: int,
    sharing: Collection[frozenset[str]],
) -> list[tuple[str, float]]:
    """Answers made of the most found of these, the one of highest expected F1 first, each with how far they agree: the
    mean share of the answers that hold one of its findings.

    That share, weighed, is taken for how likely a finding is right, ``expected`` for how many right ones there are. A
    small base overlooks most of them: what one answer of five holds is worth having where many are expected, and not
    where one is.

    ``answers``: each one's findings, as ``placed`` gives them, with what a finding of a label counts (1 if it is not
    named); None for an answer that says that there is nothing to find, as all do if most do. ``most``: findings of one.
    ``sharing``: pairs of labels that one text may have; of a text found under others only the more found is kept.
    """
    nothing = sum(found is None for found, _ in answers)
    if 2 * nothing > len(answers):
        return [(NOTHING.capitalize(), nothing / len(answers))]
    held, votes = Counter[Finding](), dict[Finding, float]()
    for found, weights in answers:
        for finding in found or ():
            held[finding] += 1
            votes[finding] = votes.get(finding, 0.0) + weights.get(finding.label, 1.0)
    votes = _undisputed(votes, sharing)
    ranked = sorted(votes.items(), key=itemgetter(1), reverse=True)[:most]
    made, right = list[tuple[float, str, float]](), 0.0
    for number, (_, count) in enumerate(ranked, start=1):
        right += count / len(answers)
        if number == len(ranked) or ranked[number][1] < count:  # of findings that as many answers hold all or none
            kept = [finding for finding, _ in ranked[:number]]
            agreement = sum(held[finding] for finding in kept) / number / len(answers)
            text = write_findings(sorted(kept, key=partial(_begin, input)))
            made.append((2 * right / (number + expected), text, agreement))
    return [(text, agreement) for _, text, agreement in sorted(made, key=itemgetter(0), reverse=True)]


def placed(found: Iterable[Finding], input: str) -> list[Finding]:
    """Those that stand in the input, as they are written there, each once."""
    return list(dict.fromkeys(_placed(found, input)))


def place_of(text: str, input: str) -> re.Match[str] | None:
    """Where a text stands in the input, as whole words: as it is written, or else in other letter case."""
    words = r"\s+".join(map(re.escape, text.split()))
    pattern = rf"(?<!\w){words}(?!\w)"
    return (re.search(pattern, input) or re.search(pattern, input, re.IGNORECASE)) if text.split() else None


def pairs_that_share(findings: Sequence[Finding]) -> Iterator[frozenset[str]]:
    """Of each two findings of one text under different heads: their labels."""
    for one, other in combinations(findings, 2):
        if evened(one.text) == evened(other.text) and one.head != other.head:
            yield _pair(one, other)


def _placed(found: Iterable[Finding], input: str) -> Iterator[Finding]:
    for finding in found:
        text, subject = place_of(finding.text, input), place_of(finding.subject, input)
        if text is not None and (subject is not None or not finding.subject):
            own = " ".join(subject.group().split()) if subject else ""
            yield replace(finding, text=" ".join(text.group().split()), subject=own)


def _undisputed(votes: Mapping[Finding, float], sharing: Collection[frozenset[str]]) -> dict[Finding, float]:
    """Without what is found under another label more often, unless both may be right."""
    kept, of_text = dict[Finding, float](), dict[str, list[Finding]]()
    for finding, count in sorted(votes.items(), key=itemgetter(1), reverse=True):
        others = of_text.setdefault(evened(finding.text), [])
        if all(finding.head == other.head or _pair(finding, other) in sharing for other in others):
            others.append(finding)
            kept[finding] = count
    return kept


def _pair(one: Finding, other: Finding) -> frozenset[str]:
    return frozenset((one.label, other.label))


def _begin(input: str, finding: Finding) -> int:
    place = place_of(finding.subject or finding.text, input)
    return place.start() if place else len(input)
