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
    answers: Sequence[Sequence[Finding] | None], input: str, *, most: int, has_one_label: bool
) -> tuple[list[str], list[str]]:
    """Answers made of these, and these themselves, cleared of what is not written in the input ("": nothing is left).

    Made of them are what any, at least two, at least three… of them hold, ``most`` findings at most, and each cleared.
    ``answers``: each one's findings; None for an answer that says that there is nothing to find. ``has_one_label``: of
    a text found under several labels, only the most found of these is kept.
    """
    placed = [Counter(dict.fromkeys(_placed(found or (), input), 1)) for found in answers]
    votes = sum(placed, Counter[Finding]())

    def write(counts: Counter[Finding], least: int = 1) -> str:
        kept = _of_one_label(counts) if has_one_label else counts
        of_enough = (finding for finding, count in kept.most_common(most) if count >= least)
        return write_findings(sorted(of_enough, key=partial(_begin, input)))

    cleared = [
        NOTHING.capitalize() if found is None else write(own) for found, own in zip(answers, placed, strict=True)
    ]
    common = (write(votes, least) for least in range(1, len(answers) + 1))
    return list(filter(None, dict.fromkeys((*common, *cleared)))), cleared


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
