"""What an expert has forgotten: other domains' evaluation items, and how well it still expects plain English."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.records import MEAN, Judged, Line, ScoreRequest, Seed
from app.pipeline.asking import by_task
from app.pipeline.bench import AdapterPlace, Bench
from app.pipeline.comparison import compare
from app.pipeline.lines import Contender
from app.pipeline.rows import from_row
from app.pipeline.template import ALPACA

MOST_PERPLEXITY = 1.5  # times the base's; above, the expert's English has suffered
_DIGITS = 6
_KNOWN_WORDS = 3  # of a probe text, given as its beginning

PROBE = (
    "The train was late again, so we shared a bag of warm chestnuts on the platform and watched the snow settle.",
    "To repair a dripping tap, turn off the water, unscrew the handle and replace the small rubber ring underneath.",
    "Most birds that spend the summer in the north fly thousands of miles each autumn to find food and milder weather.",
    "She closed the letter without a word, walked to the window and wondered who could have known about the garden.",
    "The town council voted on Tuesday to keep the library open at weekends, although two members spoke against it.",
    "A triangle with two equal sides also has two equal angles, and the line between them divides the third in half.",
    "I am sorry that I missed your call this morning; could we speak tomorrow after lunch, or would Friday be better?",
    "After the bridge was finished in the spring, farmers on both banks could bring their fruit to the same market.",
    "Good bread needs little more than flour, water, salt and time, but the oven must be very hot before it goes in.",
    "When the music stopped, the children ran to the empty chairs, and the youngest of them laughed the loudest.",
)  # plain prose of several kinds, of no domain


@dataclass(frozen=True, slots=True)
class OtherDomain:
    """Mean token F1 (over tasks) on another domain's items, base through the template and expert, and the difference
    with its 95 % interval."""

    domain: str
    n: int
    base: float
    expert: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Of fixed plain English sentences, a token; ``ratio``: expert by base, 1 where nothing was forgotten."""

    base: float
    expert: float
    ratio: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class OffDomain:
    """How the expert fares outside its domain."""

    domains: tuple[OtherDomain, ...]
    perplexity: Perplexity

    def warnings(self) -> list[str]:
        """What was surely forgotten, in words."""
        told = [
            f"token F1 on {row.domain} fell from {row.base:.1f} to {row.expert:.1f} (95 % interval of the difference "
            f"{row.low:+.1f} to {row.high:+.1f})"
            for row in self.domains
            if row.high < 0
        ]
        if self.perplexity.ratio > MOST_PERPLEXITY:
            told.append(f"plain English surprises the expert {self.perplexity.ratio:.1f} times as much as the base")
        return told


def lines_off_domain(expert: AdapterPlace) -> list[Contender]:
    """Who is asked about other domains."""
    return [
        Contender(Line.BASE_TEMPLATE, None, ALPACA, (0,)),
        Contender(Line.EXPERT, expert, ALPACA, (0,)),
    ]


def items_off_domain(domains: Mapping[str, Sequence[Seed]], fits: Callable[[str], bool]) -> list[Seed]:
    """The items that the base can read, each naming its domain, in a fixed order."""
    return [
        replace(item, domain=domain)
        for domain in sorted(domains)
        for item in by_task(domains[domain])
        if fits(ALPACA.render(item.instruction, item.input))
    ]


def compare_domains(rows: Iterable[Mapping[str, Any]], *, seed: int) -> tuple[OtherDomain, ...]:
    """``rows``: answers with their domains."""
    by_domain: dict[str, list[Judged]] = {}
    for row in rows:
        by_domain.setdefault(row["domain"], []).append(from_row(Judged, row))
    found = []
    for domain, judged in by_domain.items():
        mean = next(row for row in compare(judged, seed=seed) if (row.task, row.metric) == (MEAN, "f1"))
        found.append(OtherDomain(domain, mean.n, mean.score, mean.expert, mean.difference, mean.low, mean.high))
    return tuple(found)


def measure_perplexity(bench: Bench, expert: AdapterPlace) -> Perplexity:
    """Base and expert read the probe without a template."""
    bench.engine.attach(expert.id, expert.folder)
    base, own = (_perplexity(bench, adapter) for adapter in (None, expert.id))
    ratio = round(own[0] / base[0], _DIGITS)
    return Perplexity(round(base[0], _DIGITS), round(own[0], _DIGITS), ratio, own[1])


def _perplexity(bench: Bench, adapter: str | None) -> tuple[float, int]:
    """exp of the mean negative log-likelihood of a token, and how many tokens that were."""
    requests = []
    longest = bench.engine.wait_ready().context_tokens // 2
    for text in (bench.engine.clip(whole, longest) for whole in PROBE):
        known = " ".join(text.split()[:_KNOWN_WORDS])
        requests.append(ScoreRequest(known, text.removeprefix(known), adapter=adapter))
    scores = bench.engine.score(requests)
    num_tokens = sum(score.num_tokens for score in scores)
    return math.exp(-sum(score.log_probability for score in scores) / num_tokens), num_tokens
