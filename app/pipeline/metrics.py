"""Several lines' answers → figures: the expert beside the base, its controls and what is served now (paper App. A).

The product's rows are all answers with their scores. Beside them: the comparisons, which demonstrations were shown, and
a report of what they mean together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.records import MEAN, Comparison, Judged, Line, Seed, digest_of
from app.pipeline.asking import ask_all, by_task, count_asks, make_asks
from app.pipeline.bench import COMPARISONS, ROWS, Bench, fits_base
from app.pipeline.comparison import OverShots, compare, over_shots
from app.pipeline.demonstrations import Demonstrations
from app.pipeline.forgetting import (
    OffDomain,
    compare_domains,
    items_off_domain,
    lines_off_domain,
    measure_perplexity,
)
from app.pipeline.lines import Contender, line_up
from app.pipeline.rows import from_row, to_row

DEMONSTRATIONS, REPORT = "demonstrations.jsonl", "report.json"
OFF_DOMAIN, LINES = "off_domain.jsonl", "lines.jsonl"


@dataclass(frozen=True, slots=True)
class About:
    """Which items chose the expert and which judge it.

    ``chosen_by``: "holdout", or None where there was nothing to choose. ``reported_on``: "evaluation" or "holdout".
    ``num_shown_fewer``: items that left no room for all demonstrations, counted for each number of them.
    """

    chosen_by: str | None
    reported_on: str
    n: int
    num_shown_fewer: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation says beside its comparisons."""

    about: About
    over_shots: tuple[OverShots, ...]
    off_domain: OffDomain


def make_metrics(bench: Bench) -> None:
    """Every line answers the evaluation items through the engine that serves, and is scored; so are other domains'."""
    contenders, items = line_up(bench), by_task(bench.split.evaluation)
    fits = fits_base(bench, bench.recipe.evaluation_max_new_tokens)
    elsewhere, others = items_off_domain(bench.off_domain, fits), lines_off_domain(bench.expert())
    _begin(bench, contenders, elsewhere)
    most = max(bench.recipe.evaluation_shots)
    demonstrations = Demonstrations(bench.split.training, seed=bench.recipe.seed, most=most)
    bench.write(DEMONSTRATIONS, _shown(bench, items, demonstrations))
    num_answers = count_asks(len(items), contenders)
    total = num_answers + count_asks(len(elsewhere), others)
    asks = make_asks(items, contenders, demonstrations=demonstrations, fits=fits)
    ask_all(bench, asks, file=ROWS, total=total)
    asks = make_asks(elsewhere, others, demonstrations=demonstrations, fits=fits)
    ask_all(bench, asks, file=OFF_DOMAIN, before=num_answers, total=total)
    _report(bench, num_items=len(items))


def _begin(bench: Bench, contenders: Sequence[Contender], elsewhere: Sequence[Seed]) -> None:
    """Write down who is asked what. Answers that a killed attempt had from others are of no use."""
    lines: list[dict[str, Any]] = [
        {"line": each.line, "adapter": each.adapter, "template": each.template.name, "shots": list(each.shots)}
        for each in contenders
    ]
    lines.append({"off_domain": digest_of(*(part for item in elsewhere for part in (item.domain, item.id)))})
    if list(bench.kept(LINES, unit=1)) != lines:
        for file in (ROWS, OFF_DOMAIN):
            bench.write(file, [])
        bench.write(LINES, lines)


def _shown(bench: Bench, items: Sequence[Seed], demonstrations: Demonstrations) -> list[dict[str, Any]]:
    """Which seeds each task's items are shown."""
    tasks, counts = dict.fromkeys(item.task for item in items), sorted(set(bench.recipe.evaluation_shots) - {0})
    return [
        {"task": task, "shots": count, "seed_ids": [seed.id for seed in demonstrations.of(task, count)]}
        for task in tasks
        for count in counts
    ]


def _report(bench: Bench, *, num_items: int) -> None:
    seed = bench.recipe.seed
    comparisons = compare((from_row(Judged, row) for row in bench.kept(ROWS, unit=1)), seed=seed)
    off_domain = OffDomain(
        compare_domains(bench.kept(OFF_DOMAIN, unit=1), seed=seed), measure_perplexity(bench, bench.expert())
    )
    report = Report(_about(bench, comparisons, num_items), tuple(over_shots(comparisons)), off_domain)
    bench.write(COMPARISONS, map(to_row, comparisons))
    bench.write(REPORT, [to_row(report)])
    _tell(bench, comparisons, report)


def _about(bench: Bench, comparisons: Sequence[Comparison], num_items: int) -> About:
    expert_rows = (from_row(Judged, row) for row in bench.kept(ROWS, unit=1) if row["line"] == Line.EXPERT)
    fewer = sum(row.num_shown < row.shots for row in expert_rows)
    chosen_by = "holdout" if "choice" in bench.stage.reads else None
    reported_on = "holdout" if bench.split.is_holdout else "evaluation"
    mean = _mean_against(comparisons, Line.BASE_TEMPLATE)
    notes = [f"the interval of the mean token F1's gain over the base is {mean.high - mean.low:.1f} points wide"]
    if num_items < bench.recipe.min_evaluation_items:
        notes.append(f"only {num_items} items: too few to decide by (recipe.min_evaluation_items)")
    if reported_on == "holdout":
        notes.append("no evaluation set was sent: these are seeds held out from training")
    if chosen_by == reported_on:
        notes.append("the same held-out seeds chose the expert, which flatters it: send evaluation")
    return About(chosen_by, reported_on, num_items, fewer, tuple(notes))


def _mean_against(comparisons: Sequence[Comparison], against: str) -> Comparison:
    """The headline: mean token F1 without demonstrations."""
    return next(
        row for row in comparisons if (row.task, row.metric, row.against, row.shots) == (MEAN, "f1", against, 0)
    )


def _tell(bench: Bench, comparisons: Sequence[Comparison], report: Report) -> None:
    means = [row for row in comparisons if (row.task, row.metric, row.shots) == (MEAN, "f1", 0)]
    scores = {row.against: row.score for row in means} | {Line.EXPERT: means[0].expert}
    listed = ", ".join(f"{line} {score:.1f}" for line, score in scores.items())
    data = {"scores": scores, "about": to_row(report.about)}
    bench.tell("metrics_ready", f"mean token F1 over {report.about.n} items: {listed}", data=data)
    forgotten = report.off_domain.warnings()
    ratio = report.off_domain.perplexity.ratio
    told = (
        "; ".join(forgotten) or f"nothing was surely forgotten (perplexity of plain English: {ratio:.2f} × the base's)"
    )
    bench.tell("off_domain_checked", told, data=to_row(report.off_domain), is_warning=bool(forgotten))
