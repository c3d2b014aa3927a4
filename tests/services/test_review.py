"""Rows that people change before they are learned: what is learned then, and what stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest

from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ports import Engine
from app.core.records import TrainingRow
from app.core.states import JobStatus, WaitsFor
from app.engine.fake import FakeEngine
from app.pipeline.template import ALPACA
from app.services.dataset_rows import EDITS, RowView, Texts
from app.services.lease import Held
from app.storage.artifacts import ROWS, Artifact, read_rows
from tests.services.house import BASE, EVALUATION, SEEDS, SMALL_JOB, House
from tests.storage.samples import at_once

FIRST = len(SEEDS)  # number of the first generated row


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(shared: House) -> House:
    """The rows of other tests' jobs are there, their files are not."""
    shared.lose_artifacts()
    return shared


def held(house: House, **recipe: Any) -> str:
    """A job that waits for its rows to be looked at."""
    job_id = house.order(**{**SMALL_JOB, "review": True, **recipe})
    with pytest.raises(Held):
        house.run(job_id)
    job = house.job(job_id)
    assert (job.status, job.waits_for) == (JobStatus.QUEUED, WaitsFor.REVIEW)
    return job_id


def dataset(house: House, job_id: str, stage: str = "dataset") -> Artifact:
    digest = house.digests(job_id)[stage]
    assert digest is not None
    return house.artifacts.open(digest, kind="dataset")


def inputs(house: House, job_id: str) -> list[str]:
    return [row["input"] for row in dataset(house, job_id).rows()]


def finish(house: House, job_id: str, *, engine: Engine | None = None) -> None:
    house.services.mover.resume(job_id)
    house.run(job_id, engine=engine)
    assert (house.job(job_id).status, house.job(job_id).error_message) == (JobStatus.SUCCEEDED, None)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Where one job waits, for tests that change nothing that is learned."""
    return House(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def waiting(other: House) -> str:
    return held(other)


# ---- what is learned ----


def test_a_review_without_a_change_makes_what_is_made_without_a_review(house: House) -> None:
    plain = house.order(**SMALL_JOB)
    house.run(plain)
    job_id = held(house)
    made = house.digests(job_id)
    finish(house, job_id)
    assert house.digests(job_id) == house.digests(plain)
    assert house.digests(job_id)["dataset"] == made["dataset"]
    [told] = house.events(job_id, "rows_reviewed")
    assert (told.stage, told.data["edited"], told.data["deleted"]) == ("dataset", 0, 0)


def test_what_is_learned_is_what_people_left(house: House) -> None:
    """Other texts, no hole where a row was deleted, and what was made stays as it was."""
    job_id = held(house)
    made, review = dataset(house, job_id), house.services.review
    before = list(made.rows())
    review.edit(job_id, FIRST, {"output": " splendid\r\n", "input": "Firm 7 sold its last ship"})
    review.delete(job_id, FIRST + 1)
    review.delete(job_id, 0)
    finish(house, job_id)

    learned = dataset(house, job_id)
    changed = {**before[FIRST], "output": "splendid", "input": "Firm 7 sold its last ship"}
    was = {key: before[FIRST][key] for key in ("instruction", "input", "output")}
    assert list(learned.rows()) == [*before[1:FIRST], {**changed, "was": was}, *before[FIRST + 2 :]]
    assert (learned.parents, list(made.rows())) == ((made.digest,), before)
    assert learned.meta == {"reviewed": {"edited": 1, "deleted": 2}}
    assert [row["index"] for row in read_rows(learned.folder / EDITS)] == [0, FIRST, FIRST + 1]
    assert house.services.jobs.dataset(job_id) == learned.folder / ROWS
    [trained] = house.events(job_id, "training_done")
    assert trained.data["num_rows"] == len(before) - 2
    assert dataset_parents_of_adapter(house, job_id) == (learned.digest,)
    [told] = house.events(job_id, "rows_reviewed")
    assert told.message == f"rows changed: 1, deleted: 2; {len(before) - 2} are learned"


class Reader(FakeEngine):
    """Keeps what the first adapter learned."""

    def __init__(self) -> None:
        super().__init__(slots=1, base_name=BASE)
        self.learned: list[TrainingRow] = []

    def train(self, rows: Iterable[TrainingRow], **options: Any) -> Any:
        listed = list(rows)
        self.learned = self.learned or listed
        return super().train(listed, **options)


def test_what_is_shown_before_a_row_that_is_learned_is_as_people_left_it(house: House) -> None:
    """A seed that somebody deleted as wrong, or put right, would be learned from all the same."""
    job_id = held(house, training_shots=5, training_shots_share=1.0)
    deleted, changed = list(dataset(house, job_id).rows())[:2]
    house.services.review.delete(job_id, 0)
    house.services.review.edit(job_id, 1, {"output": "splendid"})
    engine = Reader()
    finish(house, job_id, engine=engine)
    wrong, right = (ALPACA.render(row["instruction"], row["input"]) for row in (deleted, changed))
    before = [row.prompt for row in engine.learned if row.target != "splendid"]
    assert any(f"{right}splendid\n" in prompt for prompt in before)
    assert not any(f"{right}{changed['output']}\n" in prompt or wrong in prompt for prompt in before)


def dataset_parents_of_adapter(house: House, job_id: str) -> tuple[str, ...]:
    return house.artifact(job_id, "adapter").parents


def test_the_same_edits_make_the_same_adapter(house: House) -> None:
    """Another kills every process in between, changes its mind twice, and edits in another order."""
    jobs = [held(house), held(house)]
    review = house.services.review
    review.edit(jobs[0], 3, {"output": "other"})
    review.delete(jobs[0], 5)
    review.delete(jobs[1], 3)
    review.delete(jobs[1], 5)
    review.restore(jobs[1], 3)
    review.edit(jobs[1], 3, {"output": "another"})
    review.edit(jobs[1], 3, {"output": "other"})
    review.delete(jobs[1], 5)
    for job_id in jobs:
        finish(house, job_id)
    assert house.digests(jobs[0]) == house.digests(jobs[1])


def test_texts_put_back_are_no_change(house: House) -> None:
    job_id = held(house)
    made = dataset(house, job_id)
    was = house.services.rows.row(job_id, 2)
    assert house.services.review.edit(job_id, 2, {"output": "else"}).was == Texts(
        was.instruction, was.input, was.output
    )
    assert house.services.review.edit(job_id, 2, {"output": was.output}) == was
    finish(house, job_id)
    assert dataset(house, job_id).digest == made.digest


def test_every_round_is_looked_at(house: House) -> None:
    """And only the one that is held can be changed."""
    job_id = held(house, iterations=2, domain="rounds", seed=3)
    first = house.services.rows.page(job_id)
    house.services.review.delete(job_id, 0)
    house.services.mover.resume(job_id)
    with pytest.raises(Held):
        house.run(job_id)
    page = house.services.rows.page(job_id)
    assert (first.stage, page.stage, page.is_open) == ("dataset", "dataset-2", True)
    with pytest.raises(Conflict, match="holds dataset-2 for review: the rows of dataset are learned"):
        house.services.review.restore(job_id, 0, stage="dataset")
    house.services.review.delete(job_id, 1)
    finish(house, job_id)
    for stage, gone in (("dataset", 0), ("dataset-2", 1)):
        rows = house.services.rows.page(job_id, stage=stage)
        assert [row.index for row in rows.data if row.is_deleted] == [gone]
        assert len(list(dataset(house, job_id, stage).rows())) == rows.num_rows - 1


def test_a_job_of_which_nothing_is_left_is_not_let_go(house: House) -> None:
    job_id = held(house, num_examples=0)
    for index in range(len(SEEDS)):
        house.services.review.delete(job_id, index)
    with pytest.raises(Conflict, match="all 10 rows of dataset are deleted: restore some, or cancel"):
        house.services.mover.resume(job_id)
    assert house.job(job_id).waits_for is WaitsFor.REVIEW
    house.services.review.restore(job_id, 4)
    finish(house, job_id)
    assert inputs(house, job_id) == [SEEDS[4]["input"]]


# ---- the wait ----


def test_a_pause_does_not_end_a_review_and_a_retry_does_not_get_past_it(house: House) -> None:
    """A bug: a job that was cancelled while it was held, and tried again, learned rows that nobody had let go."""
    job_id = held(house)
    house.services.review.delete(job_id, FIRST)
    assert house.services.mover.pause(job_id).waits_for is WaitsFor.REVIEW
    house.services.mover.cancel(job_id)
    with pytest.raises(Conflict, match="only while their job waits for review"):
        house.services.review.delete(job_id, FIRST + 1)
    assert house.services.mover.retry(job_id).waits_for is WaitsFor.REVIEW
    assert [event.type for event in house.events(job_id)[-2:]] == ["job_retried", "review_wanted"]
    assert house.leases.take(job_id, owner="worker") is None
    assert house.services.rows.row(job_id, FIRST).is_deleted
    finish(house, job_id)
    [told] = house.events(job_id, "rows_reviewed")
    assert told.data["deleted"] == 1


def test_a_retry_after_the_review_asks_no_second_time(house: House) -> None:
    job_id = held(house)
    house.services.review.delete(job_id, FIRST)
    house.services.mover.resume(job_id)
    learned = dataset(house, job_id).digest
    house.services.mover.cancel(job_id)
    assert house.services.mover.retry(job_id).waits_for is None
    house.run(job_id)
    assert dataset(house, job_id).digest == learned


def test_a_dataset_that_is_gone_is_made_and_looked_at_again(house: House) -> None:
    """With the changes of before."""
    job_id = held(house)
    house.services.review.edit(job_id, 1, {"output": "other"})
    made = dataset(house, job_id).digest
    for folder in (house.artifacts.root / "dataset").iterdir():
        (folder / "manifest.json").unlink()
    house.services.mover.resume(job_id)
    with pytest.raises(Held):
        house.run(job_id)
    assert dataset(house, job_id).digest == made
    assert house.services.rows.row(job_id, 1).output == "other"
    finish(house, job_id)
    assert next(row["output"] for row in list(dataset(house, job_id).rows())[1:]) == "other"


def test_an_edit_is_learned_or_refused(house: House) -> None:
    """Whoever edits while another resumes: no edit that was accepted is lost."""
    job_id = held(house)

    def act(number: int) -> str:
        try:
            if number == 0:
                house.services.mover.resume(job_id)
            else:
                house.services.review.edit(job_id, number, {"output": f"word {number}"})
        except Conflict as error:
            return error.code
        return "done"

    told = at_once(act, times=6)
    if told[0] == "conflict":  # a row was changed between its look and its move
        house.services.mover.resume(job_id)
    outputs = [row["output"] for row in dataset(house, job_id).rows()]
    assert [outputs[number] == f"word {number}" for number in range(1, 6)] == [word == "done" for word in told[1:]]


# ---- looking ----


def test_rows_are_looked_at_page_by_page(other: House, waiting: str) -> None:
    made = list(dataset(other, waiting).rows())
    other.services.review.edit(waiting, 4, {"output": "other"})
    other.services.review.delete(waiting, 6)
    after, seen, sizes = -1, list[RowView](), list[int]()
    while True:
        page = other.services.rows.page(waiting, after=after, limit=7)
        seen += page.data
        sizes.append(len(page.data))
        if page.next is None:
            break
        after = int(page.next)
    assert [(row.index, row.id) for row in seen] == [(index, row["id"]) for index, row in enumerate(made)]
    assert sizes[0] == 7
    edited, deleted = ([row.index for row in seen if row.is_edited], [row.index for row in seen if row.is_deleted])
    assert (4 in edited, 6 in deleted, {*edited} & {*deleted}) == (True, True, set())
    assert (page.num_rows, page.num_edited, page.num_deleted) == (len(made), len(edited), len(deleted))
    assert other.services.rows.page(waiting, after=10_000).data == ()


def test_rows_of_any_job_can_be_looked_at_and_those_of_one_that_is_held_changed(house: House) -> None:
    job_id = house.order(**SMALL_JOB)
    with pytest.raises(NotFound, match="no dataset yet: it is queued"):
        house.services.rows.page(job_id)
    house.run(job_id)
    page = house.services.rows.page(job_id, limit=3)
    assert (page.is_open, len(page.data), page.next) == (False, 3, "2")
    review = house.services.review
    for change in (partial(review.edit, given={"output": "x"}), review.delete, review.restore):
        with pytest.raises(Conflict, match="is succeeded: ask for it with review in the recipe"):
            change(job_id, 0)


def test_one_row_of_many_is_found_without_parsing_the_others(house: House) -> None:
    """The file is read once to learn where its rows begin; broken rows elsewhere do not matter then."""
    job_id = held(house)
    path = dataset(house, job_id).folder / ROWS
    lines = path.read_bytes().splitlines(keepends=True)
    broken = [b"x" * (len(line) - 1) + b"\n" if number != 20 else line for number, line in enumerate(lines)]
    path.write_bytes(b"".join(broken))
    assert house.services.rows.row(job_id, 20).id == json.loads(lines[20])["id"]


# ---- refusals ----


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({}, "body", "changes nothing"),
        ({"output": " \n"}, "output", "is empty"),
        ({"instruction": ""}, "instruction", "is empty"),
        ({"output": None}, "output", "must be a text, and is null"),
        ({"input": "x" * 10_001}, "input", "at most 10,000"),
        ({"output": "a\x00b"}, "output", "U\\+0000"),
        ({"input": "word " * 1500}, "item", "tokens long"),
        ({"instruction": EVALUATION[3]["instruction"], "input": EVALUATION[3]["input"]}, "input", "leakage"),
        ({"input": EVALUATION[3]["input"] + " today"}, "input", "contamination"),
    ],
)
def test_texts_that_cannot_be_learned_are_refused(
    other: House, waiting: str, changes: dict[str, Any], field: str, reason: str
) -> None:
    before = other.services.rows.row(waiting, FIRST)
    with pytest.raises(InvalidInput, match=reason) as refused:
        other.services.review.edit(waiting, FIRST, changes)
    assert [(problem.field, problem.line) for problem in refused.value.problems] == [(field, None)]
    assert other.services.rows.row(waiting, FIRST) == before


def test_rows_that_are_not_there_or_deleted(other: House, waiting: str) -> None:
    review = other.services.review
    num_rows = other.services.rows.page(waiting).num_rows
    for act in (review.delete, review.restore, other.services.rows.row):
        with pytest.raises(NotFound, match=f"has {num_rows} rows, 0 to {num_rows - 1}; none is {num_rows}"):
            act(waiting, num_rows)
    review.delete(waiting, 1)
    with pytest.raises(Conflict, match="row 1 is deleted: restore it"):
        review.edit(waiting, 1, {"output": "x"})
    with pytest.raises(NotFound, match="has no dataset 'dataset-9'"):
        review.delete(waiting, 1, stage="dataset-9")


# ---- lineage ----


def test_the_lineage_of_a_changed_row_says_what_it_was(house: House) -> None:
    """What the model wrote, and what is learned instead; rows behind a deleted one are found at their new place."""
    job_id = held(house)
    before = house.services.rows.row(job_id, FIRST + 2)
    house.services.review.edit(job_id, FIRST + 2, {"output": "other"})
    house.services.review.delete(job_id, FIRST)
    finish(house, job_id)
    found = house.services.lineage.row(job_id, str(FIRST + 1))
    assert found == house.services.lineage.row(job_id, before.id)
    assert (found.example.id, found.example.output) == (before.id, "other")
    assert found.was == Texts(before.instruction, before.input, before.output)
    assert found.answer is not None
    assert found.answer.text.strip() == before.output
    assert found.artifacts["dataset"] == dataset(house, job_id).digest
    assert house.services.lineage.row(job_id, str(FIRST)).was is None


def test_what_came_of_a_seed_counts_only_what_was_left(house: House) -> None:
    job_id = held(house, domain="left")
    rows = list(dataset(house, job_id).rows())
    seed, other = rows[0]["id"], rows[1]["id"]
    for index, row in enumerate(rows):
        if seed in row["seed_ids"]:
            house.services.review.delete(job_id, index)
    house.services.review.edit(job_id, 1, {"output": "other"})
    finish(house, job_id)
    found = house.services.lineage.seed_rows(seed)
    assert [row for row in found.rows if row.job == job_id] == []
    assert [job.adapter for job in found.jobs if job.job == job_id] == [None]
    found = house.services.lineage.seed_rows(other)
    own = next(row for row in found.rows if row.job == job_id)
    assert (own.is_edited, own.output) == (True, "other")
    assert next(job.adapter for job in found.jobs if job.job == job_id) is not None
