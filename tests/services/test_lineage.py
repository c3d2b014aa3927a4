"""Every training row can be followed to what it came from, and every seed to what came of it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput, NotFound
from app.core.records import Completion, GenerationRequest, Origin
from app.engine.fake import FakeEngine
from app.services.lineage import RowLineage, SeedRow
from app.services.seed_sets import load_seeds
from tests.services.house import BASE, EVALUATION, SEEDS, SMALL_JOB, House


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def plain(house: House) -> str:
    """A job of one round with an evaluation set."""
    job_id = house.order(**SMALL_JOB, evaluation=EVALUATION[:4])
    house.run(job_id)
    return job_id


@pytest.fixture(scope="module")
def rounds(house: House) -> str:
    """A job of two rounds that holds seeds out."""
    job_id = house.order(**SMALL_JOB, domain="rounds", iterations=2, seed=3)
    house.run(job_id)
    return job_id


def assert_whole(house: House, found: RowLineage) -> None:
    """What was written stands in what was replied to a prompt that showed the seeds that are told."""
    assert found.reply is not None
    assert found.answer is not None
    assert found.example.input in found.reply.text
    assert tuple(seed.id for seed in found.seeds) == found.example.seed_ids == found.reply.seed_ids
    assert all(seed.input in found.reply.prompt for seed in found.seeds)
    assert found.example.input in found.answer.prompt
    assert found.answer.text.strip() == found.example.output
    assert {"near_duplicate", "empty_response"} <= {check.name for check in found.example.checks}
    digests = house.digests(found.job)
    assert found.artifacts.pop("seeds")
    assert found.artifacts == {name: digests[name] for name in found.artifacts}
    assert list(found.artifacts)[-1] == found.stage


def dataset_rows(house: House, job_id: str, stage: str = "dataset") -> list[dict[str, Any]]:
    digest = house.digests(job_id)[stage]
    assert digest is not None
    return list(house.artifacts.open(digest, kind="dataset").rows())


def test_a_generated_row(house: House, plain: str) -> None:
    """By its number and by its id."""
    rows = house.rows(plain, "dataset")
    for number in (len(SEEDS), len(rows) - 1):
        found = house.services.lineage.row(plain, str(number))
        assert (found.row, found.example.id) == (number, rows[number]["id"])
        assert found == house.services.lineage.row(plain, rows[number]["id"])
        assert (found.instruction_writer.id, found.response_writer.id) == ("base", "base")
        assert_whole(house, found)


def test_a_row_answered_with_passages(house: House) -> None:
    """Each passage whole, with the weight it had."""
    texts = [f"Firm {number} sold {number}00 shares of a bond with a dividend and a yield" for number in range(8)]
    corpus, _ = house.services.corpora.add(io.BytesIO("\n\n".join(texts).encode()), filename="bonds.txt")
    recipe = {**SMALL_JOB, "num_examples": 4, "retrieval": "sequence", "corpus": corpus.id, "retrieval_top_k": 3}
    job_id = house.order(**recipe, evaluation=EVALUATION[:4], domain="bonds")
    house.run(job_id)
    found = house.services.lineage.row(job_id, str(len(SEEDS)))
    assert len(found.passages) == 3
    assert {passage.text for passage in found.passages} <= set(texts)
    assert sum(passage.weight for passage in found.passages) == pytest.approx(1)


class Finder(FakeEngine):
    """Finds the first word of an input in one answer, the last in the next."""

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        done = super().generate(requests, **options)
        ends = [
            (text, text.rpartition("Input: ")[2].split("\n")[0].split()) for text in (each.prompt for each in requests)
        ]
        return [
            replace(each, text=words[-(number % 2)]) if prompt.endswith("Response:") and words else each
            for number, (each, (prompt, words)) in enumerate(zip(done, ends, strict=True))
        ]


def test_a_row_that_is_made_of_several_answers(house: House) -> None:
    """What the row says stands in none of them: it is told, with each answer and how that ended."""
    seeds = [
        {
            "task": "firms",
            "instruction": "List them.",
            "input": f"Nord{n} and ships and Ost{n}",
            "output": f"Nord{n}, Ost{n}",
        }
        for n in "abcd"
    ]
    made = {"response_samples": 4, "validity": "strict", "merge_findings": True}
    job_id = house.order(**{**SMALL_JOB, **made}, seeds=seeds, evaluation=EVALUATION[:4], domain="firms")
    house.run(job_id, engine=Finder(slots=1, base_name=BASE))
    found = house.services.lineage.row(job_id, str(len(seeds)))
    assert found.answer is not None
    words = found.example.input.split()
    assert found.answer.merged == found.example.output == f"{words[0]}, {words[-1]}"
    assert {found.answer.text, *found.answer.samples} == {words[0], words[-1]}
    assert found.answer.sample_finish_reasons == ("stop",) * 3


def test_a_seeds_row(house: House, plain: str) -> None:
    found = house.services.lineage.row(plain, "0")
    assert (found.example.origin, found.response_writer.id) == (Origin.SEED, "user")
    assert [seed.input for seed in found.seeds] == [SEEDS[0]["input"]]
    assert (found.reply, found.answer) == (None, None)
    assert list(found.artifacts) == ["seeds", "dataset"]


def test_rows_of_every_round(house: House, rounds: str) -> None:
    """The second round's were written by the first round's adapter, and the expert's dataset is what is told."""
    chosen = next(iter(house.artifact(rounds, "choice").rows()))["stage"]
    for stage, adapter in (("dataset", None), ("dataset-2", "adapter")):
        last = len(dataset_rows(house, rounds, stage)) - 1
        found = house.services.lineage.row(rounds, str(last), stage=stage)
        assert (found.stage, found.instruction_writer.stage) == (stage, adapter)
        assert found.response_writer.stage == adapter
        assert_whole(house, found)
    assert house.services.lineage.row(rounds, "0").stage == chosen.replace("adapter", "dataset")


def test_a_writer_that_is_a_version_has_its_name(house: House, rounds: str) -> None:
    """Of two rounds that both write, the expert is a version; the other is only the job's."""
    with house.database.session(read_only=True) as uow:
        expert = uow.adapters.get(house.job(rounds).adapter_id or "")
    first = house.digests(rounds)["adapter"]
    found = house.services.lineage.row(
        rounds, str(len(dataset_rows(house, rounds, "dataset-2")) - 1), stage="dataset-2"
    )
    is_version = expert.artifact_digest == first
    assert found.response_writer.name == (expert.name if is_version else None)


@pytest.mark.parametrize(
    ("row", "stage", "reason"),
    [
        ("90000", None, "rows, 0 to"),
        ("-1", None, "none is -1"),
        ("0123456789abcdef", None, "none is 0123456789abcdef"),
        ("0", "dataset-9", "has no dataset 'dataset-9'; there are: dataset"),
    ],
)
def test_unknown_rows(house: House, plain: str, row: str, stage: str | None, reason: str) -> None:
    with pytest.raises(NotFound, match=reason):
        house.services.lineage.row(plain, row, stage=stage)


def test_a_job_without_a_dataset(house: House) -> None:
    job_id = house.order(**SMALL_JOB, domain="waiting")
    with pytest.raises(NotFound, match="no dataset yet: it is queued"):
        house.services.lineage.row(job_id, "0")
    with pytest.raises(NotFound, match="no job"):
        house.services.lineage.row("job-0", "0")


def seed_id(house: House, job_id: str, number: int = 0) -> str:
    return str(dataset_rows(house, job_id)[number]["id"])


def test_what_came_of_a_seed(house: House, plain: str) -> None:
    """Every row that lists it, page by page, and the version that learned from it."""
    wanted = seed_id(house, plain)
    expected = [number for number, row in enumerate(dataset_rows(house, plain)) if wanted in row["seed_ids"]]
    assert len(expected) > 3
    rows: list[SeedRow] = []
    after = None
    while True:
        page = house.services.lineage.seed_rows(wanted, after=after, limit=3)
        rows += page.rows
        if (after := page.next) is None:
            break
        assert len(page.rows) == 3
    assert [row.row for row in rows if row.job == plain] == expected
    assert page.seed is not None
    assert page.seed.input == SEEDS[0]["input"]
    [job] = [job for job in page.jobs if job.job == plain]
    assert (job.is_held_out, job.adapter and job.adapter.id) == (False, house.job(plain).adapter_id)


def test_a_seed_that_was_held_out(house: House, rounds: str) -> None:
    """No row and no version learned from it: one of each task chooses between the rounds."""
    with house.database.session(read_only=True) as uow:
        digest = uow.seed_sets.get(house.job(rounds).seed_set_id).artifact_digest
    learned = {row["id"] for row in dataset_rows(house, rounds)}
    held = 0
    for seed in load_seeds(house.artifacts, digest):
        found = house.services.lineage.seed_rows(seed.id)
        [job] = [job for job in found.jobs if job.job == rounds]
        has_rows = any(row.job == rounds for row in found.rows)
        if seed.id in learned:
            assert (job.is_held_out, job.adapter is not None, has_rows) == (False, True, True)
        else:
            assert (job.is_held_out, job.adapter, has_rows) == (True, None, False)
            held += 1
    assert held == 2


def test_unknown_seeds_and_cursors(house: House, plain: str) -> None:
    with pytest.raises(NotFound, match="no seed '0000'"):
        house.services.lineage.seed_rows("0000")
    for after in ("x", f"{plain}:x", "job-0:3"):
        with pytest.raises(InvalidInput, match="after"):
            house.services.lineage.seed_rows(seed_id(house, plain), after=after)


def test_files_that_are_gone(tmp_path: Path) -> None:
    """The jobs are still known; a row says what is missing."""
    house = House(tmp_path)
    job_id = house.order(**SMALL_JOB, evaluation=[*EVALUATION[:3]])
    house.run(job_id)
    wanted = seed_id(house, job_id)
    shutil.rmtree(house.artifact(job_id, "responses").folder)
    with pytest.raises(NotFound, match="no artifact responses/"):
        house.services.lineage.row(job_id, str(len(SEEDS)))
    house.lose_artifacts()
    found = house.services.lineage.seed_rows(wanted)
    assert (found.seed, found.rows, [job.job for job in found.jobs]) == (None, (), [job_id])
