"""The yield meter: what it counts, what it shows, and when it says that it is not worth going on."""

from __future__ import annotations

from app.core.records import Candidate, Rejection
from app.pipeline.yields import YieldMeter
from tests.pipeline.samples import candidate, recipe, reply, seeds


def rejection(reason: str, text: str = "words", detail: str = "") -> Rejection:
    return Rejection(reason, 0, 0, text, detail)


def meter(*replies: list[Candidate | Rejection], **knobs: object) -> YieldMeter:
    """One that read so many replies with these verdicts."""
    made = YieldMeter(recipe(**{"yield_window": 2, "min_yield": 0.5, **knobs}))
    for results in replies:
        made.read(reply("three words here", shown=seeds(1)), results)
    return made


def test_figures_count_items_and_reasons_most_frequent_first() -> None:
    counted = meter([candidate(), rejection("too_short")], [rejection("truncated"), rejection("truncated")], [])
    counted.seconds += 1.23456
    counted.num_read = 2
    assert counted.figures() == {
        "prompts": 3,
        "prompts_read": 2,
        "written": 4,
        "accepted": 1,
        "tokens": 9,
        "seconds": 1.235,
        "rejected": {"truncated": 2, "too_short": 1},
    }


def test_samples_are_of_different_reasons_where_there_are_several() -> None:
    read = meter(
        [rejection("b", "b1"), rejection("a", "a1"), rejection("a", "a2", "why")], [rejection("c", "c " * 900)]
    )
    samples = read.samples()
    assert [each["reason"] for each in samples] == ["a", "b", "c"]
    assert len(samples[2]["text"]) < 200
    assert [each["text"] for each in meter([rejection("a", "a1"), rejection("a", "a2", "why")]).samples()] == [
        "a1",
        "a2",
    ]


def test_it_is_never_too_early_nor_without_a_limit() -> None:
    bad: list[Candidate | Rejection] = [rejection("too_short")]
    assert meter(bad).fault() is None  # one prompt of two
    assert meter(bad, bad, min_yield=0).fault() is None
    assert meter([candidate(), *bad], [], []).fault() is None  # half, as asked
    assert meter(bad, bad).fault() is not None


def test_the_fault_names_reasons_samples_and_a_remedy() -> None:
    told = meter([rejection("near_duplicate", "Ann  grew", "ROUGE-L 0.9 with seed 1")] * 2, [rejection("no_input")])
    fault = told.fault() or ""
    assert "0 of 3 written items were accepted from 2 prompts" in fault
    assert "near_duplicate 2, no_input 1" in fault
    assert "'Ann grew' (near_duplicate: ROUGE-L 0.9 with seed 1)" in fault
    assert "prompt_style anchored" in fault
    assert "min_yield 0" in fault
