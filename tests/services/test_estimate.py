"""What a job would take is told before it is queued: of the same stages, with the same refusals, storing nothing."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.core.errors import Conflict, InvalidInput, NotReady, SelfspecError
from app.core.presets import make_recipe
from app.core.records import EngineState
from app.engine.fake import FakeEngine
from app.models import Base
from app.pipeline.bench import WAVE
from app.pipeline.stages import walk
from app.services.estimate import Estimate, Estimator
from app.services.forecast import Forecaster
from app.services.library import Library
from app.services.request_checks import RawRequest, RequestChecker
from app.services.seeds import Limits
from app.storage.database import migrating
from tests.services.house import BASE, EVALUATION, SEEDS, House

SMALL: dict[str, Any] = {
    "preset": "quick",
    "num_examples": 120,
    "max_prompts": 480,
    "min_yield": 0,
    "promotion": "always",
}


def raw(*, recipe: dict[str, Any] = SMALL, **changes: Any) -> RawRequest:
    return RawRequest(**{"domain": "finance", "seeds": SEEDS, "evaluation": EVALUATION, "recipe": recipe, **changes})


def estimate(house: House, *, recipe: dict[str, Any] = SMALL, **changes: Any) -> Estimate:
    return house.services.estimator.estimate(raw(recipe=recipe, **changes))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> House:
    """No job has ended here, and none is ordered."""
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One job has ended here."""
    house = House(tmp_path_factory.mktemp("known"))
    house.run(house.services.specializer.start(raw()).job_id)
    return house


def with_engine(house: House, engine: FakeEngine) -> Estimator:
    """The house's estimator, asking another engine."""
    library = Library(house.database, house.artifacts)
    checker = RequestChecker(engine=engine, base=BASE, limits=Limits(100, 10_000, 16), library=library)
    forecaster = Forecaster(house.database, engine)
    return Estimator(house.database, engine, checker=checker, forecaster=forecaster, clock=house.clock)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"controls": ()},
        {"iterations": 3, "iteration_mode": "continue"},
        {"sizes": (0, 20, 40)},
        {"responders": 2, "response_samples": 3, "seed_share": 0.5, "validity": "strict"},
        {"response_shots": 2, "response_draws": 3, "min_agreement": 0.5},
        {"responders": 1, "responders_join": True, "response_shots": 2, "response_draws": 3, "iterations": 2},
        {"response_shots": 2, "prompt_style": "anchored", "task_check": "leave_one_out"},
        {"prompt_style": "list", "evaluation_shots": (0, 1, 5)},
        {"num_examples": 0},
        {"max_prompts": 0},
    ],
)
@pytest.mark.parametrize("labelled", [None, SEEDS[:3]])
def test_the_stages_are_those_of_the_walk(empty: House, changes: dict[str, Any], labelled: Any) -> None:
    recipe = {**SMALL, **changes}
    told = estimate(empty, recipe=recipe, labelled=labelled)
    stages = walk(make_recipe(recipe), has_labelled=labelled is not None)
    assert [(each.stage, each.kind) for each in told.stages] == [(stage.name, stage.kind) for stage in stages]
    assert all(0 < each.time.low < each.time.seconds < each.time.high for each in told.stages)
    learning = [each for each in told.stages if each.kind == "adapter"]
    assert all(each.trained_tokens > 0 for each in learning)
    assert (told.examples > 0) == (0 not in (changes.get("num_examples"), changes.get("max_prompts")))


def test_without_a_job_to_go_by_it_says_what_is_assumed(empty: House) -> None:
    told = estimate(empty)
    assert (told.basis.how, told.basis.num_jobs, told.basis.machine) == ("assumed", 0, None)
    assert "1,000 parameters" in told.basis.notes[0]
    assert "accepted examples" in told.basis.notes[1]
    assert {each.time.num_jobs for each in told.stages} == {0}
    assert told.time.high > 4 * told.time.seconds * 0.99


def test_the_first_job_takes_the_place_of_assumptions(empty: House, known: House) -> None:
    told, cold = estimate(known), estimate(empty)
    assert (told.basis.how, told.basis.num_jobs) == ("partly measured", 1)  # no process of its own was started
    assert {each.time.num_jobs for each in told.stages} == {1}
    assert told.basis.machine == told.basis.here
    for measured, assumed in zip(told.stages, cold.stages, strict=True):
        assert measured.time.high / measured.time.low < assumed.time.high / assumed.time.low
        assert measured.memory.num_jobs == 1


def test_tokens_of_the_next_job_are_told_as_they_come(known: House) -> None:
    """Another size, another seed number: what is told is near what the engine then counts."""
    recipe = {**SMALL, "num_examples": 80, "seed": 3}
    told = {each.stage: each for each in estimate(known, recipe=recipe).stages}
    house_job = known.services.specializer.start(raw(recipe=recipe)).job_id
    known.run(house_job)
    done = {run.stage: run.work for run in known.stages(house_job)}
    for stage in ("instructions", "responses"):
        assert told[stage].requests == pytest.approx(done[stage]["asked"], rel=0.25, abs=WAVE)
        assert told[stage].read_tokens == pytest.approx(done[stage]["read"], rel=0.25)
        assert told[stage].written_tokens == pytest.approx(done[stage]["written"], rel=0.25)
    for stage in ("adapter", "adapter-seeds", "adapter-seeds-steps"):
        assert told[stage].trained_tokens == pytest.approx(done[stage]["trained"], rel=0.15)


def test_demonstrations_before_what_is_learned_are_reckoned_with(tmp_path: Path) -> None:
    """But not before what a responder learns that is asked without."""
    house = House(tmp_path)
    joined = {"responders": 1, "responders_join": True, "response_shots": 2}
    recipe = {**SMALL, **joined, "training_shots": 3, "training_shots_share": 1.0, "controls": ["epochs"]}
    told, alone = (
        {each.stage: each.trained_tokens for each in estimate(house, recipe={**recipe, **changes}).stages}
        for changes in ({}, {"training_shots": 0})
    )
    job = house.services.specializer.start(raw(recipe=recipe)).job_id
    house.run(job)
    done = {run.stage: run.work["trained"] for run in house.stages(job) if "trained" in run.work}
    assert told["adapter-seeds"] > 1.5 * alone["adapter-seeds"]
    for stage in ("responder", "adapter-seeds"):
        assert told[stage] == pytest.approx(done[stage], rel=0.15)


def test_a_prompt_that_is_asked_again_is_reckoned_as_read_once(tmp_path: Path) -> None:
    house = House(tmp_path)
    once, often = (
        {each.stage: each for each in estimate(house, recipe={**SMALL, "replies_per_prompt": count}).stages}
        for count in (1, 8)
    )
    for stage, least in (("instructions", 5), ("responses", 1.5)):
        assert often[stage].requests == once[stage].requests
        assert often[stage].read_tokens < once[stage].read_tokens / least
    job_id = house.services.specializer.start(raw(recipe={**SMALL, "replies_per_prompt": 8})).job_id
    house.run(job_id)
    done = next(run.work for run in house.stages(job_id) if run.stage == "instructions")
    told = often["instructions"]
    assert told.read_tokens / told.requests == pytest.approx(done["read"] / done["asked"], rel=0.5)


def test_a_draw_of_demonstrations_is_reckoned_as_read_once_a_task(tmp_path: Path) -> None:
    house, few, many = House(tmp_path), {**SMALL, "response_shots": 2}, {"response_draws": 4}
    once, often = (
        next(each for each in estimate(house, recipe=recipe).stages if each.kind == "responses")
        for recipe in (few, {**few, **many})
    )
    assert often.requests == 4 * once.requests
    assert often.read_tokens < once.read_tokens
    job_id = house.services.specializer.start(raw(recipe={**few, **many})).job_id
    house.run(job_id)
    done = next(run.work for run in house.stages(job_id) if run.stage == "responses")
    assert often.read_tokens / often.requests == pytest.approx(done["read"] / done["asked"], rel=0.5)


def test_seconds_of_the_next_job_follow_from_the_pace_of_the_last(tmp_path: Path) -> None:
    """Times are made a thousand a unit; twice the work takes twice as long."""
    house = House(tmp_path)
    job_id = house.services.specializer.start(raw()).job_id
    house.run(job_id)
    with house.database.session() as uow:
        for row in uow.throughputs.newest(BASE):
            row.seconds = 1000.0 * row.amount
        uow.commit()
    told = {each.stage: each for each in estimate(house).stages}
    twice = {each.stage: each for each in estimate(house, recipe={**SMALL, "num_examples": 240}).stages}
    assert told["adapter"].time.seconds == pytest.approx(1000.0 * told["adapter"].trained_tokens, rel=0.01)
    ratio = twice["adapter"].trained_tokens / told["adapter"].trained_tokens
    assert ratio > 1.5
    assert twice["adapter"].time.seconds / told["adapter"].time.seconds == pytest.approx(ratio, rel=0.01)
    whole = estimate(house)
    assert whole.time.seconds == pytest.approx(whole.start.seconds + sum(each.time.seconds for each in whole.stages))


def rows_of(house: House) -> dict[str, int]:
    with migrating(house.database.url) as connection:
        tables = Base.metadata.sorted_tables
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables
        }


def test_nothing_is_queued_or_stored(known: House) -> None:
    files = {path for path in known.artifacts.root.parent.rglob("*") if path.is_file()}
    before = rows_of(known)
    told = estimate(known, domain="never-heard-of")
    assert told.domain == "never-heard-of"
    assert rows_of(known) == before
    assert {path for path in known.artifacts.root.parent.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    "changes",
    [
        {"domain": "No Name!"},
        {"seeds": None},
        {"seeds": [{"task": "t"}]},
        {"recipe": {"preset": "quick", "epoch": 3}},
        {"recipe": {"preset": "quick", "lora_rank": 64}},
        {"evaluation": SEEDS[:2]},
        {"base": "another"},
    ],
)
def test_what_is_refused_is_what_a_job_is_refused_for(known: House, changes: dict[str, Any]) -> None:
    told = []
    for ask in (known.services.specializer.start, known.services.estimator.estimate):
        with pytest.raises((InvalidInput, Conflict)) as caught:
            ask(raw(**changes))
        error: SelfspecError = caught.value
        told.append(error.to_dict())
    assert told[0] == told[1]


class Crowded(FakeEngine):
    """Has hardly any memory left."""

    def state(self) -> EngineState:
        return replace(super().state(), free_bytes=1000)


def test_a_job_that_does_not_fit_is_told_so(known: House) -> None:
    roomy = estimate(known)
    assert (roomy.fits, roomy.allowed_to_proceed, roomy.reasons) == (True, True, ())
    crowded = with_engine(known, Crowded(base_name=BASE)).estimate(raw())
    assert (crowded.fits, crowded.allowed_to_proceed) == (False, False)
    assert "1,000 are free" in crowded.reasons[0]


def test_while_the_base_loads_there_is_no_estimate(known: House) -> None:
    with pytest.raises(NotReady, match="still loading"):
        with_engine(known, FakeEngine(base_name=BASE, loaded=False)).estimate(raw())


def queue(house: House, count: int) -> list[str]:
    return [house.services.specializer.start(raw()).job_id for _ in range(count)]


def test_the_wait_is_that_for_the_jobs_ahead(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.run(queue(house, 1)[0])
    assert (estimate(house).jobs_ahead, estimate(house).queue_seconds) == (0, 0.0)
    waiting = queue(house, 3)
    house.services.mover.pause(waiting[1])  # is not ahead of anybody
    told = estimate(house)
    left = [house.services.jobs.get(job_id).seconds_remaining or 0.0 for job_id in (waiting[0], waiting[2])]
    assert told.jobs_ahead == 2
    assert told.queue_seconds == pytest.approx(sum(left), rel=0.01)


def test_a_corpus_is_reckoned_with(known: House) -> None:
    passages = b'{"title": "Ships", "text": "Firm 1 sold ships."}\n{"title": "Boats", "text": "Firm 2 sold boats."}\n'
    corpus, _ = known.services.corpora.add(BytesIO(passages), filename="news.jsonl")
    recipe = {**SMALL, "retrieval": "sequence", "corpus": corpus.id, "retrieval_top_k": 4}
    plain, beside = (
        next(each for each in estimate(known, recipe=chosen).stages if each.stage == "responses")
        for chosen in (SMALL, recipe)
    )
    assert beside.read_tokens > 4 * plain.read_tokens
    assert beside.time.num_jobs == 0  # jobs without passages say nothing about it


def test_the_seeds_own_trial_is_reckoned_as_it_will_be_read(tmp_path: Path) -> None:
    house = House(tmp_path)
    knobs = {"prompt_style": "anchored", "task_check": "leave_one_out", "response_shots": 3, "response_draws": 4}
    told = next(each for each in estimate(house, recipe={**SMALL, **knobs}).stages if each.kind == "tasks")
    job_id = house.services.specializer.start(raw(recipe={**SMALL, **knobs})).job_id
    house.run(job_id)
    done = next(run.work for run in house.stages(job_id) if run.stage == "tasks")
    assert told.requests == pytest.approx(done["asked"], rel=0.1)  # a draw that comes twice is asked once
    assert told.read_tokens == pytest.approx(done["read"], rel=0.25)
