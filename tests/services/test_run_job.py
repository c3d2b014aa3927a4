"""The whole walk of a job in this process: what it leaves, and that no kill, failure or rival changes it."""

from __future__ import annotations

import errno
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import DatabaseAway, DiskFull, InvalidInput, Problem, SelfspecError, StageFailed
from app.core.records import Completion, GenerationRequest, TrainingStep
from app.core.states import JobStatus, StageStatus, WaitsFor
from app.engine.fake import FakeEngine
from app.pipeline.answering import ANSWERS
from app.pipeline.instructions import REPLIES
from app.services.interruptions import what_interrupts
from app.services.lease import MAX_DEATHS, Held, LeaseLost
from app.services.run_job import JobRunner
from app.storage.artifacts import read_rows
from app.storage.database import Database, UnitOfWork
from tests.services.house import (
    BASE,
    EVALUATION,
    LEASE_SECONDS,
    SEEDS,
    SMALL_JOB,
    Countdown,
    House,
    Killed,
    MortalEngine,
)

SMALL: dict[str, Any] = {**SMALL_JOB, "num_examples": 70, "max_prompts": 200, "evaluation_shots": (0, 1)}
STAGES = ("instructions", "responses", "dataset", "adapter", "metrics", "gate")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(shared: House) -> House:
    """The rows of other tests' jobs are there, their files are not."""
    shared.lose_artifacts()
    return shared


class Reference:
    """A job that nothing disturbed: what it made, and when it called engine and clock."""

    def __init__(self, folder: Path) -> None:
        house, clock = House(folder), Countdown()
        job_id = house.order(**SMALL)
        self.engine_calls: list[str | None] = []  # the stage at each
        engine = MortalEngine(lambda: self.engine_calls.append(house.job(job_id).stage))
        house.run(job_id, engine=engine, clock=counting(clock, house))
        self.digests, self.num_clock_calls = house.digests(job_id), clock.count

    def second_call(self, stage: str) -> int:
        """Number (from 1) of the engine's second call in a stage."""
        return self.engine_calls.index(stage) + 2


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"))


def counting(countdown: Countdown, house: House) -> Callable[[], datetime]:
    def clock() -> datetime:
        countdown()
        return house.now

    return clock


# ---- what a job leaves ----


def test_seeds_in_champion_out(house: House) -> None:
    job_id = house.order(**SMALL, domain="champion")
    house.run(job_id)
    job, stages = house.job(job_id), house.stages(job_id)
    assert (job.status, job.error_code, job.attempt) == (JobStatus.SUCCEEDED, None, 1)
    assert [stage.stage for stage in stages] == list(STAGES)
    assert all(stage.status is StageStatus.SUCCEEDED and stage.done == stage.total for stage in stages)
    with house.database.session(read_only=True) as uow:
        champion = uow.domains.champion("champion")
        metrics = uow.metrics.list(job_id=job_id)
    assert (champion.id, champion.name, champion.base) == (job.adapter_id, "champion@v1", BASE)
    assert champion.artifact_digest == house.digests(job_id)["adapter"]
    assert {(row.task, row.metric) for row in metrics if row.against == "base_template"} == {
        (task, metric) for task in ("tone", "mean") for metric in ("f1", "f1_box", "rougeL")
    }
    assert house.drafts(job_id) == []


def test_every_generated_row_can_be_walked_back(house: House) -> None:
    """From the row to the reply that holds it, to the seeds that were shown, and from artifact to artifact."""
    job_id = house.order(**SMALL)
    house.run(job_id)
    replies = {row["index"]: row for row in _read(house, job_id, "instructions", REPLIES)}
    seeds = {row["id"] for row in house.rows(job_id, "dataset") if row["origin"] == "seed"}
    generated = [row for row in house.rows(job_id, "dataset") if row["origin"] == "generated"]
    assert len(generated) > 50
    for row in generated:
        assert row["input"] in replies[row["reply"]]["text"]
        assert row["seed_ids"] == replies[row["reply"]]["seed_ids"]
        assert seeds.issuperset(row["seed_ids"])
    digests = house.digests(job_id)
    for before, after in (("instructions", "responses"), ("responses", "dataset"), ("dataset", "adapter")):
        assert house.artifact(job_id, after).parents == (digests[before],)
    assert len(house.artifact(job_id, "instructions").parents) == 2  # seeds and evaluation set


def test_the_same_seed_number_makes_the_same_adapter(tmp_path: Path) -> None:
    made = []
    for name, number in (("a", 0), ("b", 0), ("c", 1)):
        house = House(tmp_path / name)
        job_id = house.order(**SMALL, seed=number)
        house.run(job_id)
        made.append(house.digests(job_id))
    assert made[0] == made[1]
    assert made[0]["adapter"] != made[2]["adapter"]


def test_what_is_held_out_is_neither_shown_nor_learned(house: House) -> None:
    job_id = house.order(evaluation=None, **SMALL)
    house.run(job_id)
    [event] = house.events(job_id, "dataset_ready")
    held = set(event.data["held_out"])
    judged = {row["id"] for row in house.rows(job_id, "metrics")}
    assert judged == held
    assert len(held) == 2  # a fifth of each task's five
    dataset = house.rows(job_id, "dataset")
    assert held.isdisjoint(seed_id for row in dataset for seed_id in (row["id"], *row["seed_ids"]))
    shown = {seed_id for row in _read(house, job_id, "instructions", REPLIES) for seed_id in row["seed_ids"]}
    assert held.isdisjoint(shown)
    assert len(shown) == len(SEEDS) - 2


class KnowingEngine(FakeEngine):
    """Base and champion know the answers of the evaluation items, a new expert does not."""

    def __init__(self, champion: str) -> None:
        super().__init__(slots=1, base_name=BASE)
        self._knowing = (None, champion)

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        return [
            replace(completion, text="bad")
            if "### Response:" in request.prompt and request.adapter in self._knowing
            else completion
            for request, completion in zip(requests, super().generate(requests, **options), strict=True)
        ]


def test_an_expert_worse_than_what_is_served_is_kept_but_not_served(house: House) -> None:
    good = house.order(**SMALL, domain="worse")
    bad = house.order(**{**SMALL, "promotion": "unless_worse"}, domain="worse", seed=1)
    house.run(good)
    house.run(bad, engine=KnowingEngine(house.job(good).adapter_id or ""))
    assert house.job(bad).status is JobStatus.SUCCEEDED
    with house.database.session(read_only=True) as uow:
        assert uow.domains.champion("worse").id == house.job(good).adapter_id
        assert uow.adapters.by_name("worse", 2).id == house.job(bad).adapter_id
    [told] = house.events(bad, "gate_decided")
    assert (told.level, told.data["decision"]) == ("warning", "reject")
    assert house.events(bad, "job_succeeded")[0].message == "worse@v2 is not served"


# ---- kills ----


def assert_goes_on(house: House, job_id: str, reference: Reference) -> None:
    """Another attempt ends as if nothing had happened."""
    assert house.job(job_id).status is JobStatus.RUNNING
    house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).attempt) == (JobStatus.SUCCEEDED, 2)
    assert house.digests(job_id) == reference.digests
    assert house.drafts(job_id) == []


def kill_at_engine_call(number: int, house: House) -> str:
    job_id = house.order(**SMALL)
    with pytest.raises(Killed):
        house.run(job_id, engine=MortalEngine(Countdown(number)))
    return job_id


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.chaos)])
def test_a_kill_while_the_model_works_changes_nothing(house: House, reference: Reference, every: int) -> None:
    """At the waves of every stage and the training steps."""
    assert set(reference.engine_calls) == {"instructions", "responses", "adapter", "metrics"}
    for number in range(1, len(reference.engine_calls) + 1, every):
        house.lose_artifacts()
        assert_goes_on(house, kill_at_engine_call(number, house), reference)


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.chaos)])
def test_a_kill_between_two_writes_changes_nothing(house: House, reference: Reference, every: int) -> None:
    """The clock is read just before each transaction, so this is every boundary of every stage."""
    for number in range(1, reference.num_clock_calls + 1, every):
        house.lose_artifacts()
        job_id = house.order(**SMALL)
        try:
            house.run(job_id, clock=counting(Countdown(number), house))
        except Killed:
            assert_goes_on(house, job_id, reference)
        else:  # it told its progress less often than the reference, which was slower
            assert number > 0.8 * reference.num_clock_calls
            break


@pytest.mark.parametrize(("stage", "file"), [("instructions", REPLIES), ("responses", ANSWERS)])
@pytest.mark.parametrize(
    "tear", [lambda rows: rows[:-20], lambda rows: rows + b'{"index": 32, "te'], ids=["cut", "begun"]
)
def test_a_row_torn_by_the_kill_is_written_again(
    house: House, reference: Reference, stage: str, file: str, tear: Callable[[bytes], bytes]
) -> None:
    job_id = kill_at_engine_call(reference.second_call(stage), house)
    path = house.artifacts.draft(job_id, stage, attempt=1) / file
    path.write_bytes(tear(path.read_bytes()))
    assert_goes_on(house, job_id, reference)


def test_a_killed_training_leaves_nothing_to_the_next(house: House, reference: Reference) -> None:
    job_id = kill_at_engine_call(reference.second_call("adapter"), house)
    left = house.artifacts.draft(job_id, "adapter", attempt=1)
    (left / "checkpoint").mkdir()
    for name in ("adapter_model.safetensors.part", "checkpoint/state"):
        (left / name).write_text("half")
    assert_goes_on(house, job_id, reference)


def test_an_artifact_that_is_gone_is_made_again(house: House, reference: Reference) -> None:
    job_id = kill_at_engine_call(reference.second_call("metrics"), house)
    shutil.rmtree(house.artifact(job_id, "responses").folder)
    assert_goes_on(house, job_id, reference)


def test_a_stage_that_succeeded_is_not_run_again(house: House, reference: Reference) -> None:
    job_id = kill_at_engine_call(reference.second_call("metrics"), house)
    countdown = Countdown()
    house.run(job_id, engine=MortalEngine(countdown))
    assert countdown.count == 1  # the last wave of the metrics
    started = [event.stage for event in house.events(job_id, "stage_started")]
    assert started == [*STAGES[:5], "metrics", "gate"]


# ---- failures ----


def fail_at(number: int, error: Exception) -> MortalEngine:
    countdown = Countdown(number)

    def before() -> None:
        try:
            countdown()
        except Killed:
            raise error from None

    return MortalEngine(before)


@pytest.mark.parametrize("stage", ["instructions", "adapter"])
def test_a_failure_names_its_stage_and_keeps_its_cause(
    house: House, reference: Reference, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = house.order(**SMALL)
    cause = RuntimeError("out of memory")
    with caplog.at_level(logging.ERROR):
        house.run(job_id, engine=fail_at(reference.second_call(stage), cause))
    job = house.job(job_id)
    assert (job.status, job.error_code, job.error_fault) == (JobStatus.FAILED, "stage_failed", "service")
    assert job.error_message == f"stage {stage}: RuntimeError: out of memory"
    statuses = {run.stage: run.status for run in house.stages(job_id)}
    assert statuses[stage] is StageStatus.FAILED
    assert {statuses[name] for name in STAGES[: STAGES.index(stage)]} <= {StageStatus.SUCCEEDED}
    assert [event.message for event in house.events(job_id, "job_failed")] == [job.error_message]
    assert house.drafts(job_id) == []  # nothing will go on with them
    [logged] = [record.exc_info for record in caplog.records if record.exc_info]
    assert isinstance(logged[1], StageFailed)
    assert logged[1].__cause__ is cause


def test_an_expected_refusal_keeps_its_words_and_its_blame(house: House) -> None:
    mistake = InvalidInput([Problem("input", "the prompt has 9,000 tokens")])
    ours = SelfspecError("the model thread ended", param="engine")
    for error, fault, param in ((mistake, "user", "input"), (ours, "service", "engine")):
        job_id = house.order(**SMALL)
        house.run(job_id, engine=fail_at(2, error))
        job = house.job(job_id)
        assert (job.error_fault, job.error_param) == (fault, param)
        assert job.error_message == f"stage instructions: {error.message}"


class DivergingEngine(FakeEngine):
    """Its loss is no number from the third step on."""

    def train(self, *arguments: Any, on_step: Callable[[TrainingStep], None], **options: Any) -> Any:
        def step(report: TrainingStep) -> None:
            on_step(replace(report, loss=math.nan) if report.step == 3 else report)

        return super().train(*arguments, on_step=step, **options)


def test_training_that_diverges_says_what_to_change(house: House) -> None:
    job_id = house.order(**SMALL)
    house.run(job_id, engine=DivergingEngine(base_name=BASE))
    job = house.job(job_id)
    assert (job.status, job.error_fault, job.error_param) == (JobStatus.FAILED, "user", "recipe.learning_rate")
    assert job.error_message is not None
    assert "step 3" in job.error_message


def test_seeds_that_are_gone_fail_the_job(house: House) -> None:
    job_id = house.order(**SMALL)
    shutil.rmtree(house.artifacts.root / "seeds")
    house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).error_code) == (JobStatus.FAILED, "not_found")


# ---- the lease ----


@pytest.mark.parametrize("stage", ["instructions", "responses", "adapter", "metrics"])
def test_who_lost_the_lease_leaves_everything_alone(house: House, reference: Reference, stage: str) -> None:
    """It was taken over while the model worked (so no transaction is open then): no row and no file changes after."""
    job_id, countdown = house.order(**SMALL), Countdown(reference.second_call(stage))
    taken: dict[str, Any] = {}

    def before() -> None:
        try:
            countdown()
        except Killed:
            taken.update(lease=house.take(job_id, owner="rival"), left=_left(house, job_id))

    with pytest.raises(LeaseLost):
        house.run(job_id, engine=MortalEngine(before))
    assert _left(house, job_id) == taken["left"]
    assert (house.job(job_id).status, house.job(job_id).owner) == (JobStatus.RUNNING, "rival")
    house.run(job_id, lease=taken["lease"])
    assert house.digests(job_id) == reference.digests


def test_a_job_that_was_cancelled_meanwhile_stays_so(house: House) -> None:
    job_id = house.order(**SMALL)
    lease, countdown = house.take(job_id), Countdown(4)

    def before() -> None:
        try:
            countdown()
        except Killed:
            house.leases.end_cancelled(lease)

    with pytest.raises(LeaseLost):
        house.run(job_id, engine=MortalEngine(before), lease=lease)
    assert house.job(job_id).status is JobStatus.CANCELLED
    assert house.drafts(job_id) == []
    assert {run.status for run in house.stages(job_id)} == {
        StageStatus.SUCCEEDED,
        StageStatus.CANCELLED,
        StageStatus.PENDING,
    }


class Watched(Database):
    """Knows whether it has a transaction open."""

    is_open = False

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[UnitOfWork]:
        self.is_open = True
        try:
            with super().session(read_only=read_only) as uow:
                yield uow
        finally:
            self.is_open = False


class Stalled:
    """A clock that at one of its calls stands still until another has taken over the job and ended it."""

    def __init__(self, house: House, job_id: str, database: Watched, *, number: int) -> None:
        self._house, self._job_id, self._database = house, job_id, database
        self.number, self.count = number, 0

    def __call__(self) -> datetime:
        if not self._database.is_open:
            self.count += 1
            if self.count == self.number:
                self._house.run(self._job_id)
        return self._house.now


def run_stalled(house: House, job_id: str, *, number: int) -> Stalled:
    with Watched(house.database.url) as database, closing(FakeEngine(slots=1, base_name=BASE)) as engine:
        lease = house.take(job_id, owner="stalled")
        clock = Stalled(house, job_id, database, number=number)
        JobRunner(lease, database=database, artifacts=house.artifacts, engine=engine, clock=clock).run()
    return clock


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=pytest.mark.chaos)])
def test_who_stalls_until_another_has_ended_the_job_commits_nothing(
    house: House, reference: Reference, every: int
) -> None:
    """Stopped for longer than its lease before any write, then awake again."""
    whole = run_stalled(house, house.order(**SMALL), number=0)
    for number in range(1, whole.count + 1, every):
        house.lose_artifacts()
        job_id = house.order(**SMALL)
        with pytest.raises(LeaseLost):
            run_stalled(house, job_id, number=number)
        assert (house.job(job_id).status, house.job(job_id).attempt) == (JobStatus.SUCCEEDED, 2)
        assert house.digests(job_id) == reference.digests
        assert [event.type for event in house.events(job_id)].count("job_succeeded") == 1
        assert house.drafts(job_id) == []


def test_a_write_that_began_under_the_lease_and_ends_without_it_is_lost(house: House, reference: Reference) -> None:
    """It had opened its file when another took over, and writes on into it."""
    job_id = kill_at_engine_call(reference.second_call("responses"), house)
    path = house.artifacts.draft(job_id, "responses", attempt=1) / ANSWERS
    with path.open("ab", buffering=0) as stale:
        rival = MortalEngine(once(lambda: stale.write(b'{"index": 0, "stale": true}\n')))
        house.run(job_id, engine=rival)
    assert house.digests(job_id) == reference.digests


def once(act: Callable[[], object]) -> Callable[[], None]:
    """Does it at the first call."""
    done: list[object] = []
    return lambda: None if done else done.append(act())


def test_a_pause_that_was_asked_of_a_dead_worker_is_kept_by_the_next(house: House, reference: Reference) -> None:
    job_id = kill_at_engine_call(reference.second_call("responses"), house)
    house.services.mover.pause(job_id)
    assert house.job(job_id).status is JobStatus.RUNNING
    with pytest.raises(Held):
        house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).waits_for) == (JobStatus.QUEUED, "resume")
    house.services.mover.resume(job_id)
    house.run(job_id)
    assert house.digests(job_id) == reference.digests


# ---- another try ----


@pytest.mark.parametrize("stage", ["instructions", "responses", "adapter", "metrics"])
def test_a_retry_goes_on_from_the_first_missing_artifact(house: House, reference: Reference, stage: str) -> None:
    job_id = house.order(**SMALL)
    house.run(job_id, engine=fail_at(reference.second_call(stage), RuntimeError("out of memory")))
    assert house.job(job_id).status is JobStatus.FAILED
    assert house.services.mover.retry(job_id).status is JobStatus.QUEUED
    assert (house.job(job_id).error_code, house.job(job_id).error_message) == (None, None)
    house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).error_code) == (JobStatus.SUCCEEDED, None)
    assert house.digests(job_id) == reference.digests
    started = [event.stage for event in house.events(job_id, "stage_started")]
    assert started == [*STAGES[: STAGES.index(stage) + 1], *STAGES[STAGES.index(stage) :]]


@pytest.mark.parametrize(
    "error",
    [
        DatabaseAway("the database does not answer"),
        DiskFull("the disk is full: rows.jsonl"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
    ids=repr,
)
def test_what_the_job_cannot_help_is_no_failure(house: House, reference: Reference, error: Exception) -> None:
    """The database went away, the disk was full: what is made stays, and another attempt goes on with it."""
    job_id = house.order(**SMALL)
    with pytest.raises(StageFailed) as raised:
        house.run(job_id, engine=fail_at(reference.second_call("responses"), error))
    interruption = what_interrupts(raised.value)
    assert interruption is not None
    assert interruption.waits_for == (None if isinstance(error, DatabaseAway) else WaitsFor.DISK)
    assert house.drafts(job_id) != []
    assert_goes_on(house, job_id, reference)


def test_what_was_saved_forgives_the_deaths_before_it(house: House) -> None:
    """A long job on a machine that is taken away every few minutes gets there, wave by wave."""
    job_id, kills = house.order(**{**SMALL, "num_examples": 140, "max_prompts": 400, "batch_size": 16}), 0
    while "adapter" not in [event.stage for event in house.events(job_id, "stage_started")]:
        with pytest.raises(Killed):
            house.run(job_id, engine=MortalEngine(Countdown(2)))
        kills += 1
    assert len(house.events(job_id, "worker_lost")) == kills - 1 > MAX_DEATHS
    house.run(job_id)
    assert house.job(job_id).status is JobStatus.SUCCEEDED


def test_a_job_that_takes_its_worker_with_it_again_and_again_fails(house: House, reference: Reference) -> None:
    """A container whose memory it fills is killed whole: nobody is left to tell of it, or to count."""
    job_id = kill_at_engine_call(reference.second_call("responses"), house)
    for _ in range(MAX_DEATHS - 1):
        house.take(job_id)
    house.now += timedelta(seconds=LEASE_SECONDS + 1)
    assert house.leases.take(job_id, owner="worker") is None
    job = house.job(job_id)
    assert (job.status, job.error_code, job.error_fault) == (JobStatus.FAILED, "worker_lost", "service")
    assert (job.error_message or "").startswith("the worker was lost while it worked on the job")
    assert len(house.events(job_id, "worker_lost")) == MAX_DEATHS
    house.services.mover.retry(job_id)
    house.run(job_id)
    assert house.digests(job_id) == reference.digests


def test_a_cancel_counts_before_the_deaths(house: House, reference: Reference) -> None:
    job_id = kill_at_engine_call(reference.second_call("responses"), house)
    for _ in range(MAX_DEATHS - 1):
        house.take(job_id)
    house.services.mover.cancel(job_id)
    lease = house.take(job_id)
    house.leases.end_cancelled(lease)
    assert house.job(job_id).status is JobStatus.CANCELLED


# ---- odd domains ----


def seed(number: int, **changes: str) -> dict[str, str]:
    plain = {"task": "tone", "instruction": "Good or bad?", "input": f"Firm {number} grew", "output": "good"}
    return {**plain, **changes}


ODD: dict[str, list[dict[str, str]]] = {
    "one task, two seeds": [seed(1), seed(2)],
    "no inputs": [seed(n, instruction=f"What is number {n}?", input="") for n in range(4)],
    "some inputs": [seed(1), seed(2), seed(3, instruction="What is it?", input=""), seed(4)],
    "blank lines": [seed(n, input=f"Firm {n}\n\ngrew\n\n\na lot", output="one\n\ntwo") for n in range(4)],
    "texts in texts": [seed(n, input=f"Text 2:\nFirm {n}\n\nText 3: more\n2. Input: x") for n in range(4)],
    "Windows newlines": [seed(n, input=f"Firm {n}\r\n\r\ngrew", output="one\r\ntwo") for n in range(4)],
    "short inputs": [seed(n, input=f"T{n}") for n in range(4)],
    "a task called mean": [seed(n, task="mean") for n in range(4)],
    "other letters": [seed(n, input=f"Выручка {n}", output="хорошо") for n in range(4)],
    "braces": [seed(n, instruction="{input} {0}", input=f"{{instruction}} {n} %s") for n in range(4)],
}


@pytest.mark.parametrize("style", ["list", "anchored"])
@pytest.mark.parametrize("seeds", ODD.values(), ids=ODD)
def test_odd_seeds_make_an_expert(house: House, seeds: list[dict[str, str]], style: str) -> None:
    job_id = house.order(
        seeds=seeds, evaluation=None, **{**SMALL, "num_examples": 5}, prompt_style=style, seeds_per_prompt=19
    )
    house.run(job_id)
    assert (house.job(job_id).status, house.job(job_id).error_message) == (JobStatus.SUCCEEDED, None)
    rows = house.rows(job_id, "dataset")
    assert sum(row["origin"] == "generated" for row in rows) == 5
    assert sum(row["origin"] == "seed" for row in rows) == len(seeds) - 1


class SilentEngine(FakeEngine):
    """Writes nothing at all."""

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        return [replace(completion, text=" \n") for completion in super().generate(requests, **options)]


class MostlySilentEngine(FakeEngine):
    """Writes something in every fourth answer only."""

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        completions = super().generate(requests, **options)
        return [done if number % 4 == 0 else replace(done, text=" \n") for number, done in enumerate(completions)]


@pytest.mark.parametrize("style", ["list", "anchored"])
def test_a_base_that_writes_nothing_usable_leaves_the_seeds(house: House, style: str) -> None:
    job_id = house.order(**{**SMALL, "max_prompts": 40}, prompt_style=style)
    house.run(job_id, engine=SilentEngine(base_name=BASE))
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    assert len(house.rows(job_id, "dataset")) == len(SEEDS)
    assert len(_read(house, job_id, "instructions", "rejections.jsonl")) == 40
    told = {event.type: (event.level, event.message) for event in house.events(job_id)}
    assert told["seeds_alone"] == (
        "warning",
        "nothing that was generated could be used: the expert learns from 10 seeds alone",
    )
    assert told["instructions_judged"][0] == "warning"


def test_what_was_accepted_before_the_yield_fell_too_low_is_kept(house: House) -> None:
    job_id = house.order(**{**SMALL, "max_prompts": 100, "min_yield": 0.5, "yield_window": 64})
    house.run(job_id, engine=MostlySilentEngine(base_name=BASE))
    job = house.job(job_id)
    assert (job.status, job.error_param, job.error_fault) == (JobStatus.FAILED, "recipe.min_yield", "user")
    [told] = house.events(job_id, "work_kept")
    kept = house.artifacts.open(told.data["artifact"], kind="instructions-unfinished")
    assert len(list(kept.rows())) == 16
    [samples] = [event.data["samples"] for event in house.events(job_id, "yield_too_low")]
    assert samples
    assert house.drafts(job_id) == []


@pytest.mark.parametrize("changes", [{"num_examples": 0}, {"max_prompts": 0}])
def test_a_recipe_may_ask_for_the_seeds_alone(house: House, changes: dict[str, int]) -> None:
    job_id = house.order(**{**SMALL, **changes})
    countdown = Countdown()
    house.run(job_id, engine=MortalEngine(countdown))
    assert house.job(job_id).status is JobStatus.SUCCEEDED
    assert len(house.rows(job_id, "dataset")) == len(SEEDS)
    warned = [event.type for event in house.events(job_id) if event.level == "warning" and event.stage]
    assert warned == ([] if changes == {"num_examples": 0} else ["instructions_judged", "seeds_alone"])


def test_a_base_that_reads_little_is_shown_less(house: House) -> None:
    """Long seeds and a small context: fewer of them in a prompt instead of a failed job."""
    long = [seed(n, input=f"Firm {n} " + "grew " * 200) for n in range(6)]
    job_id = house.order(seeds=long, evaluation=EVALUATION, **SMALL, seeds_per_prompt=5, response_shots=5)
    engine = MortalEngine(Countdown())
    engine._base = replace(engine._base, context_tokens=600)
    house.run(job_id, engine=engine)
    shown = {len(row["seed_ids"]) for row in _read(house, job_id, "instructions", REPLIES)}
    assert (house.job(job_id).status, shown) == (JobStatus.SUCCEEDED, {2})


def _read(house: House, job_id: str, stage: str, file: str) -> list[dict[str, Any]]:
    return list(read_rows(house.artifact(job_id, stage).folder / file))


def _left(house: House, job_id: str) -> object:
    """All that a job has made and told, and its unfinished files."""
    with house.database.session(read_only=True) as uow:
        entries = [entry.digest for entry in uow.artifacts.list(job_id)]
    stages = [(stage.stage, stage.status, stage.done, stage.artifact_digest) for stage in house.stages(job_id)]
    files = {path: path.read_bytes() for path in house.artifacts.root.rglob("*") if path.is_file()}
    return entries, stages, [event.id for event in house.events(job_id)], files
