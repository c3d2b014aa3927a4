"""What the doctor finds in labelled examples, and what it never does: refuse content, store anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.core.errors import InvalidInput, NotReady, TooLarge
from app.core.presets import make_recipe
from app.core.records import BaseInfo, Completion, GenerationRequest
from app.engine.fake import FakeEngine
from app.services.doctor import Doctor
from app.services.library import Library
from app.services.request_checks import RawRequest, RequestChecker
from app.services.seed_report import Finding, SeedReport, Severity
from app.services.seed_trial import project
from app.services.seeds import Limits
from tests.pipeline.samples import Recorder
from tests.services.house import BASE, House

TEXTS = [
    "Larkmere Bank lifts its dividend after a record quarter of lending",
    "Ostrava Steel idles two furnaces as orders from carmakers dry up",
    "Tavrick and Corvane agree on a merger worth nine hundred million",
    "Brindlemoor Foods recalls a cereal in four countries over labels",
    "Selkirk Shipping orders twelve vessels and hires three hundred sailors",
    "The regulator fines Pellworth for late accounts in two of five years",
]


def rows(*outputs: str, task: str = "tone", start: int = 0) -> list[dict[str, Any]]:
    """Examples of a task with these answers, each about another text."""
    return [
        {"task": task, "instruction": f"What is the {task}?", "input": TEXTS[start + number], "output": output}
        for number, output in enumerate(outputs)
    ]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


def examine(house: House, seeds: object, evaluation: object = None, *, num_prompts: int = 0, **more: Any) -> SeedReport:
    raw = RawRequest(seeds=seeds, evaluation=evaluation, **{"recipe": {"preset": "quick"}, **more})
    return house.services.doctor.examine(raw, num_prompts=num_prompts)


def finding(report: SeedReport, code: str) -> Finding:
    return next(found for found in report.findings if found.code == code)


def codes(report: SeedReport) -> set[str]:
    return {found.code for found in report.findings}


def test_counts_balance_and_labels(house: House) -> None:
    seeds = [*rows("good", "good", "good", "good", "bad"), *rows("A long free answer", task="sum", start=5)]
    evaluation = [{**rows("neutral")[0], "input": "Corvane keeps its forecast"}]
    report = examine(house, seeds, evaluation)
    tone, summing = report.tasks[1], report.tasks[0]
    assert (tone.task, tone.seeds, tone.evaluation, round(tone.share, 2)) == ("tone", 5, 1, 0.83)
    assert [(each.label, each.seeds, each.evaluation) for each in tone.labels] == [
        ("good", 4, 0),
        ("bad", 1, 0),
        ("neutral", 0, 1),
    ]
    assert summing.labels == ()
    assert codes(report) >= {"unbalanced_tasks", "unbalanced_labels", "label_missing", "task_without_evaluation"}
    assert "'neutral'" in finding(report, "label_missing").message
    assert finding(report, "few_seeds").task == "sum"
    assert report.is_usable
    assert all(found.remedy for found in report.findings)


def test_good_seeds_have_no_warning(house: House) -> None:
    evaluation = [{**rows("x")[0], "input": f"{word} of {n}", "output": word} for n, word in enumerate("ghijklmnop")]
    recipe = {"preset": "quick", "min_evaluation_items": 10}
    report = examine(house, rows(*"abcdef"), evaluation, recipe=recipe)
    assert (report.warnings, report.num_held_out) == ((), 0)


def test_near_duplicates_name_what_they_are_like(house: House) -> None:
    """Within a task, whatever the task's common instruction says, among the seeds and between the sets."""
    seeds = rows("a", "b", "c")
    near = {**seeds[1], "input": f"{seeds[1]['input']} again"}
    elsewhere = {**near, "task": "other"}
    report = examine(
        house, [*seeds, near, elsewhere], [{**seeds[2], "input": seeds[2]["input"].replace("nine", "six")}]
    )
    found, leaked = finding(report, "near_duplicate"), finding(report, "near_leakage")
    assert (found.source, found.lines) == ("seeds", (4,))
    assert "line 4 is like line 2 of seeds (ROUGE-L 0.9" in found.message
    assert (leaked.source, leaked.lines) == ("evaluation", (1,))
    assert "line 3 of seeds" in leaked.message
    assert report.is_usable


def test_what_would_be_refused_is_told_as_a_refusal_would(house: House) -> None:
    seeds = rows("a", "b", "c")
    evaluation = [seeds[2], {**seeds[0], "input": "new", "output": " "}]
    report = examine(house, [*seeds, seeds[0]], evaluation, recipe={"epoch": 1}, domain="Not a name")
    assert not report.is_usable
    assert {found.code: (found.severity, found.lines) for found in report.findings if found.severity == "error"} == {
        "duplicate": (Severity.ERROR, (4,)),
        "leakage": (Severity.ERROR, (1,)),
        "problems": (Severity.ERROR, ()),
    }
    assert finding(report, "problems").count == 3
    with pytest.raises(InvalidInput) as caught:
        house.services.specializer.start(
            RawRequest(domain="Not a name", seeds=[*seeds, seeds[0]], evaluation=evaluation, recipe={"epoch": 1})
        )
    assert caught.value.problems == report.problems


@pytest.mark.parametrize("seeds", [None, [], "text", [{}], [3]])
def test_no_content_is_refused(house: House, seeds: object) -> None:
    """Whatever it is, the answer is a report; only too much of it is not read."""
    report = examine(house, seeds)
    assert (report.num_seeds, report.is_usable, report.tasks) == (0, False, ())
    with pytest.raises(TooLarge):
        examine(house, [{}] * 101)


def test_contradictions_and_spellings(house: House) -> None:
    seeds = rows("Yes", "no", "yes", "no", "no", "yes.")
    report = examine(house, [*seeds, {**seeds[0], "output": "no"}])
    assert finding(report, "contradiction").lines == (1, 7)
    assert "'Yes'" in finding(report, "label_spelling").message


def test_what_is_held_out_is_told(house: House) -> None:
    report = examine(house, rows(*"abcdef"))
    assert (report.num_held_out, report.tasks[0].held_out) == (1, 1)
    assert "1 of 6 seeds are held out" in finding(report, "held_out").message
    assert "judged by 1 item" in finding(report, "small_evaluation").message


class SlowBase(FakeEngine):
    """Its tokenizer and base are still loading."""

    @property
    def base(self) -> BaseInfo | None:
        return None

    def count(self, text: str) -> int:
        raise NotReady("the tokenizer is still loading")


class SmallBase(FakeEngine):
    """Reads little."""

    @property
    def base(self) -> BaseInfo | None:
        base = super().base
        return replace(base, context_tokens=600) if base else None


def doctor_of(house: House, engine: FakeEngine) -> Doctor:
    limits = Limits(max_seeds=100, max_field_chars=10_000, max_lora_rank=16)
    library = Library(house.database, house.artifacts)
    return Doctor(engine, checker=RequestChecker(engine=engine, base=BASE, limits=limits, library=library))


def test_lengths(house: House) -> None:
    """In the base's tokens, the template around each, the longest among all."""
    seeds = rows(*"abcde")
    engine = FakeEngine(base_name=BASE)
    report = examine(house, [*seeds, {**seeds[0], "input": "word " * 300}])
    assert report.lengths.longest is not None
    assert report.lengths.median is not None
    assert report.lengths.longest > 300 > report.lengths.median > engine.count(str(seeds[0]["input"]))
    assert (report.lengths.max_length, report.lengths.context) == (512, 8192)


def test_prompts_too_long_for_the_base(house: House) -> None:
    seeds = [{**row, "input": f"{row['input']} " + "word " * 250} for row in rows(*"abcde")]
    raw = RawRequest(seeds=seeds, evaluation=rows("x", start=5), recipe={"preset": "quick"})
    report = doctor_of(house, SmallBase(base_name=BASE)).examine(raw)
    assert "the base reads 600" in finding(report, "long_prompts").message


def test_texts_that_would_be_cut_off(house: House) -> None:
    """Half of the job's prompts for such a task came to nothing, and nobody had said so."""
    long = [{**row, "input": f"{row['input']} " + "word " * 150} for row in rows(*"abcde", task="sum")]
    names = [{**row, "task": "names", "output": f"{row['input'].split()[0]}, word"} for row in long]
    report = examine(house, [*rows(*"abcde"), *long, *names], recipe={"preset": "quick", "validity": "strict"})
    assert [found.task for found in report.findings if found.code == "texts_cut_off"] == ["sum"]
    assert "instruction_max_new_tokens" in finding(report, "texts_cut_off").remedy


def test_without_a_base(house: House) -> None:
    """Everything but lengths is told while it is loading; a dry run has to wait."""
    doctor = doctor_of(house, SlowBase(base_name=BASE))
    raw = RawRequest(domain="finance", seeds=rows(*"abc"), recipe={"preset": "quick"})
    report = doctor.examine(raw)
    assert (report.lengths.longest, report.lengths.context) == (None, None)
    assert "lengths_unknown" in codes(report)
    with pytest.raises(NotReady, match="still loading"):
        doctor.examine(raw, num_prompts=1)


def test_a_dry_run(house: House) -> None:
    """The job's own prompts, and what they lead to at that yield."""
    report = examine(house, rows(*"abcdef"), domain="finance", num_prompts=10)
    trial = report.dry_run
    assert trial is not None
    assert (trial.prompts, trial.written, trial.accepted) == (10, 10, 10)
    assert (trial.answered, trial.answers_kept) == (8, 8)
    assert len(trial.samples) == 3
    assert (trial.projection.examples, trial.projection.wanted, trial.projection.prompts) == (60, 60, 60)
    assert trial.projection.instruction_seconds == pytest.approx(6 * trial.seconds)
    assert trial.projection.response_seconds == pytest.approx(60 * trial.answer_seconds / 8)
    with house.database.session(read_only=True) as uow:
        assert (uow.jobs.list(), uow.domains.list()) == ([], [])


def test_in_a_dry_run_every_task_has_a_turn(house: House) -> None:
    """Ten replies to two prompts would have told of two tasks only."""
    engine = Recorder(base_name=BASE)
    seeds = [row for task in ("tone", "mood", "kind") for row in rows(*"abc", task=task)]
    raw = RawRequest(domain="finance", seeds=seeds, recipe={"preset": "quick", "replies_per_prompt": 8})
    report = doctor_of(house, engine).examine(raw, num_prompts=10)
    assert report.dry_run is not None
    assert report.dry_run.prompts == 10
    prompts = [request.prompt for request in engine.waves[0]]
    for place, task in enumerate(("kind", "mood", "tone")):
        [prompt] = set(prompts[place::3])
        assert f"What is the {task}?" in prompt


class Repeater(FakeEngine):
    """Writes what it was shown."""

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        return [replace(done, text=TEXTS[0]) for done in super().generate(requests, **options)]


def test_a_dry_run_that_yields_nothing_says_why(house: House) -> None:
    raw = RawRequest(domain="finance", seeds=rows(*"abcdef"), recipe={"preset": "quick"})
    report = doctor_of(house, Repeater(base_name=BASE)).examine(raw, num_prompts=5)
    assert report.dry_run is not None
    assert [(each.reason, each.count) for each in report.dry_run.rejected] == [("near_duplicate", 5)]
    assert TEXTS[0] in report.dry_run.rejected[0].samples[0]
    assert report.dry_run.projection.examples == 0
    assert "0 of 5" in finding(report, "low_yield").message


def test_a_dry_run_needs_a_domain_and_seeds(house: House) -> None:
    with pytest.raises(InvalidInput) as caught:
        examine(house, [], num_prompts=3)
    assert [problem.field for problem in caught.value.problems] == ["domain", "seeds"]


@pytest.mark.parametrize(
    ("accepted_a_prompt", "examples", "prompts"), [(0.5, 72, 200), (4.0, 72, 25), (0.1, 14, 200), (0.0, 0, 200)]
)
def test_projection(accepted_a_prompt: float, examples: int, prompts: int) -> None:
    """No more prompts than are needed or allowed; of 100 examples that are answered, 72 are good enough."""
    recipe = make_recipe({"num_examples": 100, "max_prompts": 200, "iterations": 2})
    found = project(
        recipe, accepted_a_prompt=accepted_a_prompt, prompt_seconds=3.0, kept_share=0.72, answer_seconds=0.5
    )
    assert (found.examples, found.prompts, found.wanted) == (examples, prompts, 100)
    assert found.instruction_seconds == prompts * 3.0 * 2
