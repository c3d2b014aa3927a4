"""Results → docs/results.md and the last line. All numbers come from the results; nothing is run here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.results import Result, Score
from benchmarks.quality.tables import (
    LINES,
    MEAN,
    candidates_table,
    controls_table,
    number,
    off_domain_table,
    over_shots_table,
    retrieval_table,
    table,
    tasks_table,
)

TO_BEAT = ("base", "base_template", "seeds_same_epochs", "seeds_same_steps")  # at k = 0, surely
MANY_SHOTS = 5
_UNTOLD = ("tokens", "seconds", "loss", "learning_rate", "tokens_per_second", "memory_bytes")

_HEAD = """\
# Results

How good the experts are that a specialization makes, on public data sets of finance and biomedicine. This page is
written by `make bench-quality` from the figures it keeps as JSON (`docs/results/`); nothing on it is written by hand.

Scores go from 0 to 100: **F1** is the token F1 on the whole reference (the headline), **ROUGE-L** rouge-score's, with
stemming. *k* is the number of demonstrations shown before a question. *base* is the bare base without a template, *base
+ template* the same asked like the expert. All lines get the same items, limits and stop texts. Intervals are paired
bootstrap, 95 %: **surely** means that the interval leaves zero out.
"""
_HOW = """\
## How to measure

```sh
make bench-quality                                      # both domains on a processor, gemma-3-270m: hours
make bench-quality BASE=smollm2-135m-instruct SIZE=100  # another base, fewer generated examples
make bench-quality CONFIG=gpu                           # the paper's size: an accelerator, 5,000 examples
make bench-quality CONFIG=smoke                         # seconds, the fake engine: does the harness work?
```

`DATA` is a folder with `<domain>/<task>/{train,test}.jsonl`, one JSON object a line with `instruction`, `input` and
`output` (and `references`, further right answers); retrieval takes `<domain>/corpus.jsonl`, too. Seeds are drawn from
train items, by a seed number, and test items are only ever evaluated with. Items longer than the recipe's `max_length`
are passed over and counted. Nothing of the data is kept on this page.

A call that was ended, by whatever, goes on where it was when it is made again; `OPTIONS="--minutes 110"` ends it
politely. gemma-3-270m comes under the Gemma Terms of Use: set `SELFSPEC_ACCEPT_TERMS=true` if you accept them.
`OPTIONS=--help` lists all choices. What is run stands in `benchmarks/quality/*.toml`; a file of your own is
`CONFIG=path/to/file.toml`. Settings are chosen with `evaluation = "train"`, which evaluates with train items that are
no seeds, so that test items choose nothing.
"""


def write_report(results: Sequence[Result], path: Path) -> None:
    """The page; the same results give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_page(results)).rstrip() + "\n", encoding="utf-8")


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """For the last line: what each run reached, and which bars it met; None: not measured."""
    return {
        "runs": {result.name: _run_summary(result) for result in results},
        "bars": {result.name: bars(result) for result in results if result.status == "succeeded"},
    }


def bars(result: Result) -> dict[str, bool | None]:
    """What the expert is to show: surely above every other line at k = 0, and at five demonstrations not below."""
    at_zero = {line: result.find(MEAN, "f1", line, 0) for line in TO_BEAT}
    at_many = {line: result.find(MEAN, "f1", line, MANY_SHOTS) for line in TO_BEAT[:2]}
    return {
        **{f"k=0 surely above {line}": None if score is None else score.low > 0 for line, score in at_zero.items()},
        **{
            f"k={MANY_SHOTS} not below {line}": None if score is None else score.difference >= 0
            for line, score in at_many.items()
        },
    }


def _run_summary(result: Result) -> dict[str, Any]:
    against = [score for score in result.scores if (score.task, score.metric, score.shots) == (MEAN, "f1", 0)]
    return {
        "status": result.status,
        "f1": _rounded(result.value(MEAN, "f1", "expert", 0)),
        "against": {s.against: [round(value, 2) for value in (s.score, s.difference, s.low, s.high)] for s in against},
        "seconds": round(sum(stage.seconds or 0.0 for stage in result.stages), 1),
    }


def _page(results: Sequence[Result]) -> Iterator[str]:
    done = [result for result in results if result.status == "succeeded"]
    yield _HEAD
    yield _HOW
    yield from _section("What was seen", [line for result in done for line in _seen(result)])
    by_run: tuple[tuple[str, Callable[[Result], list[str]]], ...] = (
        ("Base and expert by task (the paper's Table 1)", tasks_table),
        ("What the expert gains, F1 at k = 0, and over which line", controls_table),
        ("Worst, average and best F1 over k (the paper's Table 5)", over_shots_table),
    )
    for title, make in by_run:
        parts = [(result, made) for result in done if (made := make(result))]
        yield from _section(
            title, [line for result, made in parts for line in (f"### {_title(result)}", "", *made, "")]
        )
    yield from _section("Retrieval (the paper's Table 2)", retrieval_table(done), else_config="gpu")
    rounds = candidates_table(done, kind="iterations")
    yield from _section("Rounds (the paper's Table 3)", rounds, else_config="gpu")
    if sizes := candidates_table(done, kind="sizes"):
        yield from _section("Numbers of generated examples (the paper's Figure 5)", sizes)
    if forgotten := off_domain_table(done):
        yield from _section("Outside the domain: other domains' items, F1 at k = 0, and plain English", forgotten)
    yield from _section("Runs", [line for result in results for line in _about(result)])


def _section(title: str, lines: Sequence[str], *, else_config: str = "cpu") -> Iterator[str]:
    yield f"## {title}\n"
    yield from lines or [f"Not measured: `make bench-quality CONFIG={else_config}` does."]
    yield ""


def _title(result: Result) -> str:
    items = "" if result.evaluation == "test" else f", {result.evaluation} items"
    return f"{result.name}, {result.base}, {result.recipe['num_examples']:,} examples{items}"


def _seen(result: Result) -> Iterator[str]:
    """Gains and losses in words."""
    for shots in result.shots:
        expert = number(result.value(MEAN, "f1", "expert", shots))
        yield f"* **{_title(result)}**, k = {shots}: the expert's mean F1 is {expert},"
        for line in LINES:
            if (score := result.find(MEAN, "f1", line, shots)) is not None:
                yield f"  * {_verdict(score)}{_losses(result, line, shots)}."
    yield ""


def _verdict(score: Score) -> str:
    if score.low > 0:
        how = "surely above"
    elif score.high < 0:
        how = "**surely below**"
    elif score.difference:
        how = f"not surely {'above' if score.difference > 0 else 'below'}"
    else:
        how = "level with"
    gain = f"{score.difference:+.1f}; {score.low:+.1f} … {score.high:+.1f}"
    return f"{how} *{LINES[score.against]}*, {score.score:.1f} ({gain})"


def _losses(result: Result, line: str, shots: int) -> str:
    """The tasks on which the expert is surely worse."""
    scores = [result.find(task, "f1", line, shots) for task in result.tasks]
    lost = [f"{s.task} ({s.difference:+.1f}; {s.low:+.1f} … {s.high:+.1f})" for s in scores if s and s.high < 0]
    mean = result.find(MEAN, "f1", line, shots)
    how = "namely" if mean and mean.high < 0 else "but surely below it"
    return f", {how} on {', '.join(lost)}" if lost else ""


def _about(result: Result) -> Iterator[str]:
    """Everything that it takes to make a run again."""
    machine = result.machine
    yield f"### {_title(result)}: {result.status}\n"
    if result.error:
        yield f"{result.error}\n"
    where = f"{machine.processor}, {machine.cores} cores" + (f", {machine.accelerator}" if machine.accelerator else "")
    source = f" ({result.commit})" if result.commit else ""
    drawn = [
        f"{task}: {taken['seeds']} and {taken['items']}" + _passed_over(taken) for task, taken in result.taken.items()
    ]
    facts = {
        "machine": where,
        "software": f"selfspec {result.version}{source}, torch {machine.torch}",
        "base": f"{result.base}: {result.base_loaded}",
        "plan": f"`{result.plan}`, run `{result.name}`",
        "seed": f"{result.seed} draws the items, {result.recipe['seed']} makes the job",
        f"seeds and {result.evaluation} items": "; ".join(drawn),
        "recipe": f"preset {result.preset}, with " + ", ".join(f"{k} {_plain(v)}" for k, v in result.changed.items()),
        "warnings": ", ".join(result.warnings),
        "attempts": f"{result.attempts}; seconds without the pauses between them" if result.attempts > 1 else "",
        "gate": f"{result.decision}: {result.reason}" if result.decision else "",
        "to bear in mind": "; ".join((result.more.get("about") or {}).get("notes", ())),
    }
    yield from (f"* {name}: {told}" for name, told in facts.items() if told)
    yield ""
    rows = [
        [stage.stage, _whole(stage.seconds), _whole(stage.tokens), _figures(stage.figures)]
        for stage in result.stages
        if stage.seconds is not None
    ]
    total = sum(stage.seconds or 0.0 for stage in result.stages)
    tokens = sum(stage.tokens or 0 for stage in result.stages)
    rows.append(["**all**", f"**{_whole(total)}**", f"**{_whole(tokens)}**", ""])
    yield from table(["stage", "seconds", "tokens", "told"], rows, text_columns=1)
    yield ""


def _passed_over(taken: dict[str, int]) -> str:
    """Items that could not be used."""
    told = [f"{taken[name]} {name.replace('_', ' ')}" for name in ("too_long", "repeated") if taken[name]]
    return f" ({', '.join(told)})" if told else ""


def _figures(figures: dict[str, Any]) -> str:
    """What a stage counted, but for what stands in other columns or was of one moment only."""
    told = {name.replace("_", " "): value for name, value in figures.items() if name not in _UNTOLD}
    if "peak bytes" in told:
        told["peak MB"] = round(told.pop("peak bytes") / 1e6)
    return "; ".join(f"{name} {_plain(value)}" for name, value in told.items())


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
