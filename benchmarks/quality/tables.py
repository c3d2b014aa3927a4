"""Results → tables in Markdown, in the shape of the paper's. Knows figures only; a table without any is empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.quality.results import Result, Score

MEAN = "mean"
NAMES = {"f1": "F1", "rougeL": "ROUGE-L"}
LINES = {
    "base": "base",
    "base_template": "base + template",
    "seeds_same_epochs": "seeds alone, same epochs",
    "seeds_same_steps": "seeds alone, same steps",
    "supervised": "labelled rows",
    "champion": "served before",
    "expert": "expert",
}
ASKED_WITH_SHOTS = ("base", "base_template", "expert")
CONTROLS = tuple(line for line in LINES if line != "expert")

Rows = Sequence[Sequence[str]]


def tasks_table(result: Result) -> list[str]:
    """Paper, Table 1: every task at every number of demonstrations, F1 and ROUGE-L of base and expert."""
    heads = [f"{NAMES[metric]}, {LINES[line]}" for metric in NAMES for line in ASKED_WITH_SHOTS]
    rows = []
    for task in (*result.tasks, MEAN):
        for shots in result.shots:
            scores = [result.value(task, metric, line, shots) for metric in NAMES for line in ASKED_WITH_SHOTS]
            cells = [task, str(_n(result, task, shots)), str(shots), *map(number, scores)]
            rows.append([f"**{cell}**" for cell in cells] if task == MEAN else cells)
    return table(["task", "n", "k", *heads], rows, text_columns=1)


def controls_table(result: Result) -> list[str]:
    """Expert minus every other line at k = 0, F1, with the 95 % interval; a line each."""
    lines = [line for line in CONTROLS if result.find(MEAN, "f1", line, 0)]
    rows = [
        [LINES[line], *(_gain(result.find(task, "f1", line, 0)) for task in (MEAN, *result.tasks))] for line in lines
    ]
    return table(["expert minus", MEAN, *result.tasks], rows, text_columns=1)


def over_shots_table(result: Result) -> list[str]:
    """Paper, Table 5: worst, average and best F1 over the numbers of demonstrations, by task, then their means."""
    if len(result.shots) < 2:
        return []
    spreads = {
        line: {task: spread for task in result.tasks if (spread := _spread(result, task, line))}
        for line in ASKED_WITH_SHOTS
    }
    rows = []
    for task in (*result.tasks, MEAN):
        cells = [task]
        for line in ASKED_WITH_SHOTS:
            found = list(spreads[line].values()) if task == MEAN else [spreads[line].get(task)]
            known = [one for one in found if one is not None]
            columns = [sum(column) / len(known) for column in zip(*known, strict=True)] or [None] * 3
            cells += map(number, columns)
        rows.append([f"**{cell}**" for cell in cells] if task == MEAN else cells)
    heads = [f"{LINES[line]}, {which}" for line in ASKED_WITH_SHOTS for which in ("worst", "average", "best")]
    return table(["task", *heads], rows, text_columns=1)


def retrieval_table(results: Sequence[Result]) -> list[str]:
    """Paper, Table 2: mean scores at k = 0 without passages, with one and with several."""
    shown = [result for result in results if result.recipe["iterations"] == 1 and not result.recipe["sizes"]]
    if all(result.recipe["retrieval"] == "none" for result in shown):
        return []
    domains = {result.domain for result in shown if result.recipe["retrieval"] != "none"}
    rows = [
        [result.base, result.domain, _retrieval(result), *_means(result, "base_template"), *_means(result, "expert")]
        for result in shown
        if result.domain in domains
    ]
    return table(["base", "domain", "passages", *_pairs("base + template", "expert")], rows, text_columns=3)


def candidates_table(results: Sequence[Result], *, kind: str) -> list[str]:
    """Paper, Table 3 (``kind`` "iterations") and Fig. 5 ("sizes"): the adapters that one job made, at k = 0."""
    rows = []
    for result in results:
        if not _has(result, kind):
            continue
        chosen = result.chosen or "adapter"
        for stage in [figures.stage for figures in result.stages if _is_candidate(figures.stage)]:
            line = "expert" if stage == chosen else stage
            if result.value(MEAN, "f1", line, 0) is not None:
                mark = "yes" if stage == chosen else ""
                rows.append([result.base, result.domain, _told(stage), *_means(result, line), mark])
    return table(["base", "domain", kind, *_pairs("adapter"), "chosen on held-out seeds"], rows, text_columns=3)


def off_domain_table(results: Sequence[Result]) -> list[str]:
    """What was forgotten: F1 on other domains' items, and how much plain English surprises, expert over base."""
    rows = []
    for result in results:
        found = result.more.get("off_domain") or {"domains": [], "perplexity": {"ratio": None}}
        ratio = found["perplexity"]["ratio"]
        surprise = "–" if ratio is None else f"{ratio:.2f}"
        for row in found["domains"] or ([{}] if ratio is not None else []):
            scores = [number(row.get("base")), number(row.get("expert"))]
            gain = f"{row['difference']:+.1f} ({row['low']:+.1f} … {row['high']:+.1f})" if row else "–"
            rows.append([result.name, row.get("domain", "–"), str(row.get("n", "–")), *scores, gain, surprise])
    heads = ["run", "other domain", "n", "base + template", "expert", "difference", "perplexity, ratio"]
    return table(heads, rows, text_columns=2)


def table(heads: Sequence[str], rows: Rows, *, text_columns: int) -> list[str]:
    """Lines of Markdown; numbers to the right. Nothing without rows."""
    if not rows:
        return []
    rule = [":---" if column < text_columns else "---:" for column in range(len(heads))]
    return ["| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows)]


def number(value: float | None) -> str:
    """One decimal; a dash for what was not measured."""
    return "–" if value is None else f"{value:.1f}"


def _gain(score: Score | None) -> str:
    return "–" if score is None else f"{score.difference:+.1f} ({score.low:+.1f} … {score.high:+.1f})"


def _n(result: Result, task: str, shots: int) -> int:
    return next((score.n for score in result.scores if (score.task, score.shots) == (task, shots)), 0)


def _spread(result: Result, task: str, line: str) -> tuple[float, float, float] | None:
    known = [score for shots in result.shots if (score := result.value(task, "f1", line, shots)) is not None]
    return (min(known), sum(known) / len(known), max(known)) if known else None


def _pairs(*lines: str) -> Iterator[str]:
    return (f"{name}, {line}" for line in lines for name in NAMES.values())


def _means(result: Result, line: str) -> Iterator[str]:
    return (number(result.value(MEAN, metric, line, 0)) for metric in NAMES)


def _retrieval(result: Result) -> str:
    recipe = result.recipe
    return "none" if recipe["retrieval"] == "none" else f"top {recipe['retrieval_top_k']}, {recipe['retrieval']}"


def _has(result: Result, kind: str) -> bool:
    return result.recipe["iterations"] > 1 if kind == "iterations" else len(result.recipe["sizes"]) > 1


def _is_candidate(stage: str) -> bool:
    return stage == "adapter" or (stage.startswith("adapter-") and stage.removeprefix("adapter-").lstrip("s").isdigit())


def _told(stage: str) -> str:
    """adapter-2 → 2; adapter-s100 → 100."""
    return stage.removeprefix("adapter").removeprefix("-").removeprefix("s") or "1"
