"""Several adapters → one: each is tried on held-out seeds, and the best of them becomes the job's expert."""

from __future__ import annotations

from app.core.records import Seed
from app.pipeline.asking import request_answer
from app.pipeline.bench import ROWS, WAVE, Bench
from app.pipeline.scores import score_item
from app.pipeline.template import ALPACA


def make_trial(bench: Bench) -> None:
    """The mean token F1 (over tasks) of one adapter on the held-out seeds."""
    [(name, place)] = bench.adapters().items()
    bench.engine.attach(place.id, place.folder)
    items, scores = bench.split.holdout, list(bench.kept("scores.jsonl", unit=WAVE))
    for first in range(len(scores), len(items), WAVE):
        wave = items[first : first + WAVE]
        prompts = [ALPACA.render(item.instruction, item.input) for item in wave]
        answers = bench.engine.generate([request_answer(prompt, place.id, bench.recipe) for prompt in prompts])
        rows = [_scored(item, answer.text) for item, answer in zip(wave, answers, strict=True)]
        bench.append("scores.jsonl", rows)
        scores += rows
        bench.progress(len(scores), len(items))
    by_task: dict[str, list[float]] = {}
    for row in scores:
        by_task.setdefault(row["task"], []).append(row["f1"])
    f1 = sum(sum(values) / len(values) for values in by_task.values()) / len(by_task)
    bench.write(ROWS, [{"stage": name, "f1": f1, "n": len(items)}])
    told = f"{name}: token F1 {f1:.1f} on {len(items)} held-out seeds"
    bench.tell("trial_done", told, data={"adapter_stage": name, "f1": f1, "n": len(items)})


def has_not_fallen(bench: Bench) -> bool:
    """Whether another round is worth while: the last trial is no worse than the one before it."""
    trials = [next(bench.product(name), None) for name in _trials(bench)]
    scores = [trial["f1"] for trial in trials if trial is not None]
    return len(scores) == len(trials) and (len(scores) < 2 or scores[-1] >= scores[-2])


def make_choice(bench: Bench) -> None:
    """The adapter with the best trial; of equals the earlier."""
    trials = [next(bench.product(name), None) for name in _trials(bench)]
    held = [trial for trial in trials if trial is not None]
    best = max(held, key=lambda trial: trial["f1"])
    bench.write(ROWS, [{**best, "trials": held}])
    bench.progress(1, 1)
    listed = ", ".join(f"{trial['stage']} {trial['f1']:.1f}" for trial in held)
    bench.tell("expert_chosen", f"{best['stage']}, by {best['n']} held-out seeds (token F1: {listed})", data=best)


def _trials(bench: Bench) -> list[str]:
    return [name for name in bench.stage.reads if name.startswith("trial")]


def _scored(item: Seed, text: str) -> dict[str, object]:
    return {"id": item.id, "task": item.task, "f1": score_item(text, item)["f1"]}
