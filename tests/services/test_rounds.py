"""Jobs that make several adapters: rounds, sizes, controls, an expert of the seeds that answers; and what is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.presets import make_recipe
from app.core.records import PLAIN, Completion, GenerationRequest, TrainingPlan
from app.core.states import JobStatus, StageStatus
from app.pipeline.answering import ANSWERS
from app.pipeline.bench import ROWS
from app.pipeline.instructions import REPLIES
from app.pipeline.rows import from_row
from app.pipeline.stages import walk
from app.pipeline.trust import TaskScore
from app.storage.artifacts import read_rows
from tests.services.house import SEEDS, Countdown, House, Killed, MortalEngine

SMALL: dict[str, Any] = {"num_examples": 40, "max_prompts": 100, "batch_size": 64, "controls": (), "min_yield": 0}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(shared: House) -> House:
    shared.lose_artifacts()
    return shared


class Gifted(MortalEngine):
    """The adapter made as number n (from 0) answers a share ``gifts[n]`` of the seeds' tasks rightly, the rest not."""

    def __init__(self, gifts: Sequence[float] = (), before: Callable[[], None] = lambda: None) -> None:
        super().__init__(before)
        self._gifts, self._made = gifts, list[str]()
        self.plans: list[TrainingPlan] = []

    def train(self, *arguments: Any, plan: TrainingPlan = PLAIN, **options: Any) -> Any:
        self.plans.append(plan)
        return super().train(*arguments, plan=plan, **options)

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Any:
        if adapter not in self._made:
            self._made.append(adapter)
        return super().attach(adapter, folder, pin=pin)

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        completions = super().generate(requests, **options)
        return [self._told(request, done) for request, done in zip(requests, completions, strict=True)]

    def _told(self, request: GenerationRequest, completion: Completion) -> Completion:
        if request.adapter is None or not self._gifts or "### Response:" not in request.prompt:
            return completion
        gift = self._gifts[self._made.index(request.adapter)]
        known = [seed for seed in SEEDS if seed["input"] in request.prompt and seed["instruction"] in request.prompt]
        knows = bool(known) and (gift == 1 or (gift == 0.5 and known[0]["task"] == "tone"))
        return replace(completion, text=known[0]["output"] if knows else "zzz")


def statuses(house: House, job_id: str) -> dict[str, StageStatus]:
    return {run.stage: run.status for run in house.stages(job_id)}


def rows_of(house: House, job_id: str, stage: str, kind: str, file: str) -> list[dict[str, Any]]:
    digest = house.digests(job_id)[stage]
    assert digest is not None
    return list(read_rows(house.artifacts.open(digest, kind=kind).folder / file))


def adapter_of(house: House, job_id: str, stage: str) -> str:
    return str(house.digests(job_id)[stage])[:16]


# ---- rounds ----


def test_the_expert_of_a_round_writes_the_next_and_the_better_one_is_served(house: House) -> None:
    job_id = house.order(**SMALL, iterations=2, domain="rising")
    house.run(job_id, engine=Gifted([0.5, 1]))
    first, second = adapter_of(house, job_id, "adapter"), adapter_of(house, job_id, "adapter-2")
    assert house.job(job_id).adapter_id == second != first
    for stage, kind, file in (("instructions-2", "instructions", REPLIES), ("responses-2", "responses", ANSWERS)):
        assert {row["generator"] for row in rows_of(house, job_id, stage, kind, file)} == {first}
    assert {row["generator"] for row in rows_of(house, job_id, "instructions", "instructions", REPLIES)} == {"base"}
    [told] = house.events(job_id, "expert_chosen")
    assert told.message == "adapter-2, by 2 held-out seeds (token F1: adapter 50.0, adapter-2 100.0)"


def test_what_chooses_between_rounds_was_neither_learned_nor_shown(house: House) -> None:
    """Also with an evaluation set, which only reports."""
    job_id = house.order(**SMALL, iterations=2)
    house.run(job_id, engine=Gifted([0.5, 1]))
    held = {row["id"] for row in rows_of(house, job_id, "trial", "trial", "scores.jsonl")}
    assert len(held) == 2
    for stage in ("dataset", "dataset-2"):
        rows = rows_of(house, job_id, stage, "dataset", "rows.jsonl")
        assert held.isdisjoint(seed_id for row in rows for seed_id in (row["id"], *row["seed_ids"]))


def test_rounds_end_when_the_figure_falls(house: House) -> None:
    job_id = house.order(**SMALL, iterations=4)
    house.run(job_id, engine=Gifted([1, 0.5]))
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    assert house.job(job_id).adapter_id == adapter_of(house, job_id, "adapter")
    ended = statuses(house, job_id)
    for name in ("instructions", "responses", "dataset", "adapter", "trial"):
        assert [ended[f"{name}{suffix}"] for suffix in ("", "-2", "-3", "-4")] == [
            StageStatus.SUCCEEDED,
            StageStatus.SUCCEEDED,
            StageStatus.SKIPPED,
            StageStatus.SKIPPED,
        ]


@pytest.mark.parametrize(("mode", "goes_on"), [("fresh", False), ("continue", True)])
def test_a_round_begins_anew_or_goes_on(house: House, mode: str, goes_on: bool) -> None:
    job_id, engine = house.order(**SMALL, iterations=2, iteration_mode=mode), Gifted([0.5, 1])
    house.run(job_id, engine=engine)
    first = house.artifacts.open(str(house.digests(job_id)["adapter"]), kind="adapter").folder
    assert [plan.start for plan in engine.plans] == [None, str(first) if goes_on else None]


def test_a_kill_in_any_round_changes_nothing(tmp_path: Path) -> None:
    recipe = {**SMALL, "iterations": 2, "controls": ("epochs", "steps"), "num_examples": 20}
    reference, calls = House(tmp_path / "reference"), Countdown()
    whole = reference.order(**recipe)
    reference.run(whole, engine=Gifted(before=calls))
    house = House(tmp_path / "killed")
    for number in range(1, calls.count + 1, 5):
        house.lose_artifacts()
        job_id = house.order(**recipe)
        with pytest.raises(Killed):
            house.run(job_id, engine=Gifted(before=Countdown(number)))
        house.run(job_id, engine=Gifted())
        assert house.digests(job_id) == reference.digests(whole)


# ---- sizes (paper Fig. 5) ----


def test_one_pool_makes_an_adapter_a_size(house: House) -> None:
    job_id = house.order(**SMALL, sizes=[0, 10, 30])
    house.run(job_id, engine=Gifted([0, 1, 0.5]))
    pool = rows_of(house, job_id, "responses", "responses", "rows.jsonl")
    assert len(pool) == 30
    for size in (0, 10, 30):
        rows = rows_of(house, job_id, f"dataset-s{size}", "dataset", "rows.jsonl")
        made = [row["id"] for row in rows if row["origin"] == "generated"]
        assert made == [row["id"] for row in pool][:size]
    assert house.job(job_id).adapter_id == adapter_of(house, job_id, "adapter-s10")
    lines = {metric.against for metric in _metrics(house, job_id)}
    assert {"adapter-s0", "adapter-s30"} <= lines


# ---- controls, and the expert of the seeds ----


def test_the_controls_learn_the_seeds_alone(house: House) -> None:
    job_id, engine = house.order(**{**SMALL, "controls": ("epochs", "steps"), "batch_size": 8}), Gifted()
    house.run(job_id, engine=engine)
    expert, by_epochs, by_steps = (
        rows_of(house, job_id, stage, "adapter", "report.json")[0]
        for stage in ("adapter", "adapter-seeds", "adapter-seeds-steps")
    )
    assert by_epochs["num_rows"] == by_steps["num_rows"] == len(SEEDS) < expert["num_rows"]
    assert by_steps["num_steps"] == expert["num_steps"] > by_epochs["num_steps"]
    assert {"seeds_same_epochs", "seeds_same_steps"} <= {metric.against for metric in _metrics(house, job_id)}


def test_experts_of_the_seeds_may_answer(house: House) -> None:
    job_id = house.order(**SMALL, responders=2, response_samples=2)
    house.run(job_id)
    answers = rows_of(house, job_id, "responses", "responses", ANSWERS)
    responders = {adapter_of(house, job_id, name) for name in ("responder", "responder-2")}
    assert len(responders) == 2
    assert {row["generator"] for row in answers} <= responders
    assert {len(row["samples"]) for row in answers} == {3}
    assert house.job(job_id).status is JobStatus.SUCCEEDED


def test_experts_of_the_seeds_may_answer_beside_the_base(house: House) -> None:
    """In the first round; in the second the first round's expert does."""
    knobs: dict[str, Any] = {"responders": 1, "responders_join": True, "response_shots": 2, "response_draws": 2}
    job_id = house.order(**SMALL, **knobs, response_samples=3, iterations=2)
    house.run(job_id)
    for stage, writer in (("responses", "responder"), ("responses-2", "adapter")):
        adapter = adapter_of(house, job_id, writer)
        for row in rows_of(house, job_id, stage, "responses", ANSWERS):
            told = Counter([row["generator"], *row["sample_generators"]])
            assert told.keys() == {"base", adapter}
            assert told[adapter] == 3
    assert house.job(job_id).status is JobStatus.SUCCEEDED


def test_the_base_may_answer_behind_several_draws_of_demonstrations(house: House) -> None:
    job_id = house.order(**SMALL, response_shots=2, response_draws=3)
    house.run(job_id)
    answers = rows_of(house, job_id, "responses", "responses", ANSWERS)
    assert {row["generator"] for row in answers} == {"base"}
    assert {len(row["samples"]) for row in answers} == {2}
    tasks = {seed["task"] for seed in SEEDS}
    shown = {row["prompt"].rpartition("\nInput: ")[0] for row in answers}  # of the answer that was chosen
    assert len(tasks) <= len(shown) <= 3 * len(tasks)
    assert house.job(job_id).status is JobStatus.SUCCEEDED


def test_tasks_that_the_base_cannot_answer_get_no_new_rows_in_any_round(house: House) -> None:
    knobs: dict[str, Any] = {
        "prompt_style": "anchored",
        "task_check": "leave_one_out",
        "response_shots": 2,
        "iterations": 2,
    }
    job_id = house.order(**SMALL, **knobs)
    house.run(job_id)
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    scores = [from_row(TaskScore, row) for row in rows_of(house, job_id, "tasks", "tasks", ROWS)]
    trusted = {score.task for score in scores if score.is_trusted}
    assert {score.task for score in scores} == {seed["task"] for seed in SEEDS}
    assert trusted != {seed["task"] for seed in SEEDS}  # the fake knows no answers
    for name in ("instructions", "instructions-2"):
        assert {row["task"] for row in rows_of(house, job_id, name, "instructions", ROWS)} <= trusted


def test_a_walk_names_every_stage_once_and_reads_only_what_came_before() -> None:
    for knobs in (
        {},
        {"iterations": 3, "iteration_mode": "continue", "responders": 2},
        {"sizes": [5]},
        {"sizes": [5], "prompt_style": "anchored", "task_check": "leave_one_out"},
        {"iterations": 2, "prompt_style": "anchored", "task_check": "leave_one_out"},
        {"sizes": [0, 5], "controls": ()},
    ):
        seen: list[str] = []
        for stage in walk(make_recipe(knobs), has_labelled=True):
            assert set(stage.reads) <= set(seen), stage
            assert set(stage.writers) <= set(stage.reads)
            assert stage.name not in seen
            seen.append(stage.name)


def _metrics(house: House, job_id: str) -> Sequence[Any]:
    with house.database.session(read_only=True) as uow:
        return uow.metrics.list(job_id=job_id)
