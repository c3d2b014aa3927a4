"""Plans, drawing and the report of the quality benchmark, from made-up data and made-up figures."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.core.presets import make_recipe
from app.core.records import Line
from app.processes import Program
from benchmarks.quality import report
from benchmarks.quality.data import Sets, draw_sets
from benchmarks.quality.plan import FOLDER, Plan, PlanError, read_plan
from benchmarks.quality.results import Machine, Result, Score, StageFigures, load, merge, numbers_of, save
from benchmarks.quality.service import Service
from benchmarks.quality.tables import LINES
from benchmarks.quality.watch import Watch

PLAN: dict[str, Any] = {
    "items_per_task": 4,
    "seeds_per_task": {"finance": 2},
    "recipe": {"preset": "quick", "num_examples": 60, "max_prompts": 90},
    "runs": [{"name": "one", "domain": "finance"}],
}


def plan(**changes: Any) -> Plan:
    return Plan.model_validate({**PLAN, **changes})


def item(number: int, *, task: str = "tone", kind: str = "test", words: int = 3) -> dict[str, Any]:
    text = f"{kind} {number} " + "word " * words
    return {"id": f"{kind}-{number}", "task": task, "instruction": "Good?", "input": text, "output": "good", "x": 1}


def write_items(folder: Path, items: Sequence[dict[str, Any]], *, task: str = "tone", kind: str = "test") -> None:
    path = folder / "finance" / task / f"{kind}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in items), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two tasks, six train and six test items each."""
    for task in ("tone", "sense"):
        for kind in ("train", "test"):
            write_items(tmp_path, [item(n, task=task, kind=kind) for n in range(6)], task=task, kind=kind)
    return tmp_path


def draw(data: Path, given: Plan, *, longest: int = 1000) -> Sets:
    return draw_sets(data, given.runs[0], given, fits=lambda text: len(text.split()) <= longest)


def test_every_plan_that_comes_with_the_program_can_be_read() -> None:
    plans = {path.stem: read_plan(path) for path in FOLDER.glob("*.toml")}
    assert {"cpu", "gpu", "smoke"} <= set(plans)
    assert plans["cpu"].base == "gemma-3-270m"
    assert plans["smoke"].settings["engine"] == "fake"
    assert not plans["smoke"].is_published
    gpu = [plans["gpu"].checked_recipe(run) for run in plans["gpu"].runs]
    assert {recipe.num_examples for recipe in gpu} == {5000}
    assert {(recipe.retrieval != "none", recipe.retrieval_top_k) for recipe in gpu} >= {(True, 1), (True, 5)}
    assert {recipe.iterations for recipe in gpu} == {1, 2}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("items = 3", "items"),
        ("[recipe]\nepoch = 3", "did you mean 'epochs'"),
        ("is_published = true\nevaluation = 'train'", "only figures of test items"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_by_name(tmp_path: Path, change: str, told: str) -> None:
    path = tmp_path / "mine.toml"
    runs = "[[runs]]\nname = 'one'\ndomain = 'finance'\n"
    path.write_text(f"items_per_task = 4\nseeds_per_task = {{ finance = 2 }}\n{change}\n{runs}")
    tomllib.loads(path.read_text())
    with pytest.raises(PlanError, match=told):
        read_plan(path)


def test_a_size_takes_the_place_of_the_plans_and_prompts_follow() -> None:
    recipe = plan().checked_recipe(plan().runs[0], size=20)
    assert (recipe.num_examples, recipe.max_prompts) == (20, 30)


def test_seeds_are_train_items_and_evaluation_is_of_test_items(data: Path) -> None:
    sets = draw(data, plan())
    assert {row["input"].split()[0] for row in sets.seeds} == {"train"}
    assert {row["input"].split()[0] for row in sets.evaluation} == {"test"}
    assert [(taken.seeds, taken.items) for taken in sets.taken.values()] == [(2, 4), (2, 4)]
    assert all("x" not in row and "id" not in row for row in (*sets.seeds, *sets.evaluation))


def test_settings_are_chosen_with_train_items_that_are_no_seeds(data: Path) -> None:
    sets = draw(data, plan(evaluation="train", items_per_task=9))
    assert {row["input"].split()[0] for row in sets.evaluation} == {"train"}
    seeds, items = ({(row["task"], row["input"]) for row in rows} for rows in (sets.seeds, sets.evaluation))
    assert not seeds & items
    assert len(seeds | items) == 12


def test_the_seed_number_draws_and_draws_again_the_same(data: Path) -> None:
    assert draw(data, plan()).digest == draw(data, plan()).digest
    assert len({draw(data, plan(seed=seed)).digest for seed in range(4)}) > 1


def test_long_and_repeated_items_are_passed_over_and_counted(data: Path) -> None:
    write_items(data, [item(n, words=50 if n < 3 else 3) for n in range(6)])
    write_items(data, [item(n, kind="train") for n in range(6)] + [item(5)], kind="train")
    sets = draw(data, plan(items_per_task=9, seeds_per_task={"finance": 7}), longest=60)
    taken = sets.taken["tone"]
    assert (taken.seeds, taken.items, taken.too_long, taken.repeated) == (7, 2, 3, 1)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="set DATA"):
        draw(tmp_path / "none", plan())


def score(line: str, value: float, gain: float, *, task: str = "mean", shots: int = 0, metric: str = "f1") -> Score:
    return Score(task, metric, 30, line, shots, value, value + gain, gain, gain - 5.0, gain + 5.0)


def result(name: str = "finance", *, scores: Sequence[Score] = (), chosen: str | None = None, **recipe: Any) -> Result:
    """A run with one task; every knob but those given is the quick preset's."""
    knobs = make_recipe({"preset": "quick", **recipe}).model_dump(mode="json")
    stages = [StageFigures(stage, "succeeded", 60.0, {"tokens": 1000}) for stage in ("instructions", "adapter")]
    if knobs["iterations"] > 1:
        stages += [StageFigures("adapter-2", "succeeded", 30.0, {"peak_bytes": 2_000_000})]
    return Result(
        name=name,
        plan="cpu",
        domain=name.split("-")[0],
        base="tiny",
        base_loaded="tiny (none, float32, cpu)",
        job="job-1",
        status="succeeded",
        error=None,
        evaluation="test",
        seed=3,
        taken={"tone": {"seeds": 8, "items": 30, "too_long": 2, "repeated": 0}},
        preset="quick",
        recipe=knobs,
        attempts=1,
        stages=tuple(stages),
        scores=tuple(scores),
        chosen=chosen,
        decision="promote",
        reason="better",
        warnings=(),
        machine=Machine("Some CPU", 2, None, "2.13.0"),
        version="0.1.0",
        commit="abc1234",
    )


def page(tmp_path: Path, *results: Result) -> str:
    path = tmp_path / "results.md"
    report.write_report(results, path)
    return path.read_text(encoding="utf-8")


def cells(text: str, begin: str) -> list[list[str]]:
    """Rows of tables whose first cell is ``begin``."""
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return [row for row in rows if row[0] == begin]


def test_the_first_table_has_every_task_and_number_of_demonstrations(tmp_path: Path) -> None:
    scores = [
        score(line, value, 40.0 - value, task=task, shots=shots, metric=metric)
        for task in ("tone", "mean")
        for shots in (0, 5)
        for metric in ("f1", "rougeL")
        for line, value in (("base", 10.0), ("base_template", 20.0))
    ]
    text = page(tmp_path, result(scores=scores))
    assert ["tone", "30", "0", "10.0", "20.0", "40.0", "10.0", "20.0", "40.0"] in cells(text, "tone")
    assert ["mean", "30", "5", "10.0", "20.0", "40.0", "10.0", "20.0", "40.0"] in cells(text, "mean")


def test_worst_average_and_best_are_taken_over_the_numbers_of_demonstrations(tmp_path: Path) -> None:
    scores = [
        score("base", 10.0 * (shots + 1), 5.0, task=task, shots=shots) for task in ("tone", "mean") for shots in (0, 1)
    ]
    text = page(tmp_path, result(scores=scores))
    assert ["tone", "10.0", "15.0", "20.0", "–", "–", "–", "15.0", "20.0", "25.0"] in cells(text, "tone")


def test_gains_and_losses_are_told_as_they_are(tmp_path: Path) -> None:
    scores = [
        score("base", 6.0, 30.0),
        score("seeds_same_epochs", 38.0, -2.0),
        score("seeds_same_steps", 46.0, -10.0),
        score("base", 30.0, -20.0, task="tone"),
    ]
    text = page(tmp_path, result(scores=scores))
    assert "surely above *base*, 6.0 (+30.0; +25.0 … +35.0), but surely below it on tone (-20.0" in text
    assert "not surely below *seeds alone, same epochs*, 38.0 (-2.0; -7.0 … +3.0)." in text
    assert "**surely below** *seeds alone, same steps*, 46.0" in text
    assert cells(text, "seeds alone, same steps")[0][1] == "-10.0 (-15.0 … -5.0)"


def test_bars_say_what_was_reached_and_what_was_not_measured() -> None:
    scores = [
        score("base", 6.0, 30.0),
        score("base_template", 30.0, 5.0),
        score("seeds_same_steps", 30.0, 6.0),
        score("base", 30.0, 0.0, shots=5),
        score("base_template", 30.0, -1.0, shots=5),
    ]
    assert report.bars(result(scores=scores)) == {
        "k=0 surely above base": True,
        "k=0 surely above base_template": False,
        "k=0 surely above seeds_same_epochs": None,
        "k=0 surely above seeds_same_steps": True,
        "k=5 not below base": True,
        "k=5 not below base_template": False,
    }
    told = report.summary([result(scores=scores)])
    assert told["runs"]["finance"]["f1"] == 36.0
    assert told["runs"]["finance"]["against"]["base_template"] == [30.0, 5.0, 0.0, 10.0]


def test_retrieval_and_rounds_have_tables_of_their_own(tmp_path: Path) -> None:
    means = [score("base_template", 20.0, 10.0), score("base_template", 21.0, 10.0, metric="rougeL")]
    passages = {"retrieval": "token", "corpus": "c"}
    rounds = [*means, score("adapter", 28.0, 2.0), score("adapter", 29.0, 2.0, metric="rougeL")]
    text = page(
        tmp_path,
        result(scores=means),
        result("finance-1", scores=means, retrieval_top_k=1, **passages),
        result("finance-5", scores=means, retrieval_top_k=5, **passages),
        result("finance-2-rounds", scores=rounds, chosen="adapter-2", iterations=2),
    )
    shown = [row[2] for row in cells(text, "tiny") if len(row) == 7]
    assert shown == ["none", "top 1, token", "top 5, token"]
    by_round = [row[2:] for row in cells(text, "tiny") if len(row) == 6]
    assert by_round == [["1", "28.0", "29.0", ""], ["2", "30.0", "31.0", "yes"]]


def test_tables_that_were_not_made_name_the_plan_that_makes_them(tmp_path: Path) -> None:
    text = page(tmp_path, result(scores=[score("base", 6.0, 30.0)]))
    for title in ("Retrieval", "Rounds"):
        assert "`make bench-quality CONFIG=gpu` does" in text.split(f"## {title}")[1].split("##")[0]


def test_a_run_tells_what_it_takes_to_make_it_again(tmp_path: Path) -> None:
    text = page(tmp_path, result(scores=[score("base", 6.0, 30.0)], learning_rate=5e-4, num_examples=77))
    for fact in (
        "machine: Some CPU, 2 cores",
        "selfspec 0.1.0 (abc1234), torch 2.13.0",
        "preset quick, with num_examples 77, learning_rate 0.0005",
        "tone: 8 and 30 (2 too long)",
        "seed: 3 draws the items, 0 makes the job",
    ):
        assert fact in text
    assert ["all", "120", "2,000", ""] in cells(text, "all")


def test_a_result_of_an_earlier_preset_tells_what_that_was(tmp_path: Path) -> None:
    """The page said "preset grounded" of runs whose preset had other knobs, and not what those were."""
    earlier = result(scores=[score("base", 6.0, 30.0)], epochs=9)
    knobs = {name: value for name, value in earlier.recipe.items() if name != "response_shots"}  # quick's is 2
    assert "preset quick, with response_shots 0, epochs 9" in page(tmp_path, replace(earlier, recipe=knobs))


def test_what_was_forgotten_is_shown(tmp_path: Path) -> None:
    other = {"domain": "law", "n": 20, "base": 30.0, "expert": 12.0, "difference": -18.0, "low": -25.0, "high": -9.0}
    found = result(scores=[score("base", 6.0, 30.0)])
    found.more["off_domain"] = {"domains": [other], "perplexity": {"ratio": 1.234}}
    text = page(tmp_path, found)
    assert ["finance", "law", "20", "30.0", "12.0", "-18.0 (-25.0 … -9.0)", "1.23"] in cells(text, "finance")


def test_results_come_back_as_they_were_kept_and_a_run_made_anew_takes_its_place(tmp_path: Path) -> None:
    first = [result(scores=[score("base", 6.0, 30.0)]), result("law")]
    save(first, tmp_path / "results.json")
    assert load([tmp_path / "results.json", tmp_path / "none.json"]) == first
    newer = merge(first, result(num_examples=9), order=["law", "finance"])
    assert [(one.name, one.recipe["num_examples"]) for one in newer] == [("law", 60), ("finance", 9)]


def test_only_numbers_are_kept_of_what_stages_tell() -> None:
    told = {"accepted": 3, "rejected": {"too_short": 2}, "samples": ["a text"], "why": "a text", "none": {}}
    assert numbers_of(told) == {"accepted": 3, "rejected": {"too_short": 2}}


def test_the_time_of_a_stage_leaves_out_the_pause_between_two_calls(tmp_path: Path) -> None:
    def looked_at(times: Sequence[float], *stages: str) -> dict[str, float]:
        watch = Watch(tmp_path / "seconds.json", "job-1", clock=iter(times).__next__)
        for running in stages:
            progress = [{"stage": name, "status": "running" if name == running else "done"} for name in ("a", "b")]
            watch.see({"progress": progress})
        watch.keep()
        return watch.seconds

    assert looked_at([0.0, 1.0, 4.0, 5.0], "a", "a", "b") == {"a": 4.0}
    assert looked_at([1000.0, 1000.0, 1006.0, 1007.0], "b", "b", "none") == {"a": 4.0, "b": 7.0}


def test_every_line_of_an_evaluation_has_its_words() -> None:
    assert set(LINES) == set(Line)


def test_what_calls_with_other_choices_left_waits(tmp_path: Path) -> None:
    """A job of an earlier recipe was worked on first, unseen, and the one that was asked for stood in the queue."""
    jobs = [
        ("other", "running", None),
        ("ours", "queued", "resume"),
        ("paused", "queued", "resume"),
        ("old", "queued", None),
    ]
    done: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            done.append(request.url.path)
            return httpx.Response(200, json={})
        status = request.url.params["status"]
        found = [{"id": id, "waits_for": waits} for id, stands, waits in jobs if stands == status]
        return httpx.Response(200, json={"data": found, "next": None})

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service")
    program = Program("api", ("true",), tmp_path / "api.log")
    Service(http, psutil.Process(), program).attend_to("ours")
    assert sorted(done) == ["/jobs/old/pause", "/jobs/other/pause", "/jobs/ours/resume"]
