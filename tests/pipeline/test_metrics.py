"""An evaluation: who is asked what, that a kill changes nothing, and what the report says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.records import Completion, GenerationRequest, Line, Score, ScoreRequest, Seed
from app.engine.fake import FakeEngine, write_fake_adapter
from app.pipeline.asking import TOGETHER
from app.pipeline.bench import COMPARISONS, ROWS, AdapterPlace, Champion, Stage
from app.pipeline.holdout import Split
from app.pipeline.lines import CONTROLS
from app.pipeline.metrics import DEMONSTRATIONS, LINES, OFF_DOMAIN, REPORT, make_metrics
from app.pipeline.stages import walk
from app.pipeline.template import ALPACA, BARE, Template
from tests.pipeline.samples import Recorder, recipe, seed, seeds
from tests.pipeline.workbench import Workbench

BRIEF = Template("brief-v1", "{instruction} {input} =>", "{instruction} =>")
TRAINING = tuple(seeds(6, "tone", "sense"))


def place(folder: Path, name: str, *, base: str = "fake-base") -> AdapterPlace:
    """An adapter on disk; its name is its weights."""
    write_fake_adapter(folder / name, base_name=base, weights=name.encode().ljust(32))
    return AdapterPlace(f"id-{name}", folder / name)


def items(number: int, *tasks: str, first: int = 100) -> tuple[Seed, ...]:
    """Evaluation items, tasks mixed."""
    return tuple(seed(first + index, task=task) for index in range(number) for task in tasks or ("tone",))


def make_bench(
    folder: Path,
    *,
    adapters: Sequence[str] = ("adapter",),
    reads: Sequence[str] = (),
    evaluation: Sequence[Seed] = (),
    is_holdout: bool = False,
    champion: Champion | None = None,
    engine: FakeEngine | None = None,
    **knobs: Any,
) -> Workbench:
    return Workbench(
        recipe=recipe(**{"evaluation_shots": (0,), **knobs}),
        split=Split(TRAINING, tuple(evaluation) or items(3), is_holdout=is_holdout),
        stage=Stage("metrics", "metrics", (*adapters, *reads), make_metrics),
        folder=folder / "metrics",
        engine=engine or Recorder(),
        places={name: place(folder / "adapters", name) for name in adapters},
        champion=champion,
    )


def requests_of(bench: Workbench) -> list[GenerationRequest]:
    assert isinstance(bench.engine, Recorder)
    return [request for wave in bench.engine.waves for request in wave]


def champion_at(folder: Path, *, base: str = "fake-base") -> Champion:
    return Champion(place(folder, "old", base=base), "finance@v1", BRIEF)


# ---- who is asked what ----


def test_every_line_answers_every_item(tmp_path: Path) -> None:
    """Controls and other candidates only without demonstrations; the names of the walk's stages are known."""
    names = ("adapter", "adapter-2", *CONTROLS)
    champion = champion_at(tmp_path)
    bench = make_bench(tmp_path, adapters=names, champion=champion, evaluation_shots=(5, 0), evaluation=items(2))
    bench.chosen = "adapter-2"
    make_metrics(bench)
    counts = Counter((row["line"], row["shots"]) for row in bench.rows())
    expected = {(line, k): 2 for line in (Line.BASE, Line.BASE_TEMPLATE, Line.CHAMPION, Line.EXPERT) for k in (0, 5)}
    assert counts == expected | {(line, 0): 2 for line in CONTROLS.values()} | {("adapter", 0): 2}
    own = {row["line"]: row["generator"] for row in bench.rows()}
    assert (own["expert"], own["adapter"], own["champion"]) == ("id-adapter-2", "id-adapter", "id-old")
    assert own["base"] == own["base_template"] == "base"
    assert bench.progressed[-1] == (len(bench.rows()), len(bench.rows()))
    read = walk(recipe(iterations=2), has_labelled=True)[-2].reads
    assert set(read) - {"adapter", "adapter-2", "choice"} == set(CONTROLS)


def test_all_are_asked_alike_but_for_the_template(tmp_path: Path) -> None:
    [item] = items(1)
    bench = make_bench(tmp_path, champion=champion_at(tmp_path), evaluation=[item])
    make_metrics(bench)
    prompts = {(request.adapter, request.prompt) for request in requests_of(bench)}
    assert prompts == {
        (None, BARE.render(item.instruction, item.input)),
        (None, ALPACA.render(item.instruction, item.input)),
        ("id-old", BRIEF.render(item.instruction, item.input)),
        ("id-adapter", ALPACA.render(item.instruction, item.input)),
    }
    ways = {(request.temperature, request.max_new_tokens, request.stop) for request in requests_of(bench)}
    assert ways == {(0.0, bench.recipe.evaluation_max_new_tokens, ("\n\n", "###"))}


def test_a_champion_that_is_the_expert_itself_is_no_rival(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.champion = Champion(bench.expert(), "finance@v1", ALPACA)
    make_metrics(bench)
    assert {row["line"] for row in bench.rows()} == {"base", "base_template", "expert"}


def test_a_champion_of_another_base_is_left_out_and_said_so(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, champion=champion_at(tmp_path, base="other-base"))
    make_metrics(bench)
    assert "champion" not in {row["line"] for row in bench.rows()}
    message, _, is_warning = bench.told("champion_left_out")
    assert "finance@v1" in message
    assert "other-base" in message
    assert is_warning


# ---- demonstrations ----


def test_demonstrations_are_the_same_for_every_line_and_never_judged_by(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, evaluation=items(2, "tone", "sense"), evaluation_shots=(0, 1, 5))
    make_metrics(bench)
    recorded = {(row["task"], row["shots"]): row["seed_ids"] for row in bench.rows(DEMONSTRATIONS)}
    assert {key: len(ids) for key, ids in recorded.items()} == {(t, k): k for t in ("tone", "sense") for k in (1, 5)}
    learned = {row.id: row for row in TRAINING}
    for (task, shots), ids in recorded.items():
        shown = [learned[seed_id] for seed_id in ids]
        assert {row.task for row in shown} == {task}
        for template, adapter in ((BARE, None), (ALPACA, None), (ALPACA, "id-adapter")):
            before = "".join(template.render(row.instruction, row.input) + row.output + "\n\n" for row in shown)
            asked = [
                request
                for request in requests_of(bench)
                if request.adapter == adapter
                and request.prompt.startswith(before)
                and request.prompt.count(TRAINING[0].output + "\n\n") == shots
            ]
            assert len(asked) == 2


def test_items_of_a_task_follow_each_other(tmp_path: Path) -> None:
    """So that the engine computes their common beginning once; the paired figures do not care."""
    bench = make_bench(tmp_path, evaluation=items(3, "tone", "sense"))
    make_metrics(bench)
    assert [row["task"] for row in bench.rows() if row["line"] == "expert"] == ["tone"] * 3 + ["sense"] * 3


def test_an_item_too_long_for_all_demonstrations_is_shown_fewer(tmp_path: Path) -> None:
    """As many as every line can read; recorded with each answer, and counted."""
    long = seed(1, input="Firm 1 " + "sold ships " * 40)
    engine = FakeEngine(context_tokens=260)
    knobs: dict[str, Any] = {"evaluation_shots": (0, 3), "evaluation_max_new_tokens": 32}
    bench = make_bench(tmp_path, evaluation=[seed(100), long], engine=engine, **knobs)
    make_metrics(bench)
    shown = {(row["id"], row["shots"]): row["num_shown"] for row in bench.rows()}
    assert shown == {(seed(100).id, 0): 0, (seed(100).id, 3): 3, (long.id, 0): 0, (long.id, 3): 1}
    one_more = ALPACA.render(long.instruction, long.input, shown=TRAINING[:2])
    assert engine.count(one_more) + 32 > 260
    assert bench.rows(REPORT)[0]["about"]["num_shown_fewer"] == 1


# ---- kills ----


class Mortal(FakeEngine):
    """Dies at one call."""

    def __init__(self, number: int = 0) -> None:
        super().__init__()
        self.calls, self.number = 0, number

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        self.calls += 1
        if self.calls == self.number:
            raise KeyboardInterrupt
        return super().generate(requests, **options)


def files_of(bench: Workbench) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bench.folder.iterdir()}


def killed(folder: Path, number: int) -> Workbench:
    """Each attempt an engine of its own, as each has a process of its own."""
    bench = make_bench(folder, engine=Mortal(number), evaluation=items(50), evaluation_shots=(0, 1))
    bench.off_domain = {"law": items(2, "will", first=500)}
    with pytest.raises(KeyboardInterrupt):
        make_metrics(bench)
    bench.engine = Mortal()
    return bench


def test_a_killed_evaluation_goes_on_at_its_last_wave(tmp_path: Path) -> None:
    num_answers = 50 * 3 * 2
    num_waves = -(-num_answers // TOGETHER) + 1  # and one of the other domain
    undisturbed = make_bench(tmp_path, evaluation=items(50), evaluation_shots=(0, 1))
    undisturbed.off_domain = {"law": items(2, "will", first=500)}
    make_metrics(undisturbed)
    for number in range(1, num_waves + 1):
        bench = killed(tmp_path / str(number), number)
        make_metrics(bench)
        assert files_of(bench) == files_of(undisturbed)
        assert isinstance(bench.engine, Mortal)
        assert bench.engine.calls == num_waves + 1 - number + (number == num_waves)  # a part of a wave is asked again


def test_answers_of_a_line_that_is_no_longer_asked_are_thrown_away(tmp_path: Path) -> None:
    """Another champion was promoted between two attempts."""
    bench = killed(tmp_path, 2)
    assert len(bench.rows()) == TOGETHER
    bench.champion = champion_at(tmp_path)
    make_metrics(bench)
    fresh = make_bench(tmp_path / "fresh", champion=bench.champion, evaluation=items(50), evaluation_shots=(0, 1))
    fresh.off_domain = bench.off_domain
    make_metrics(fresh)
    assert files_of(bench) == files_of(fresh)


# ---- the report ----


def about(folder: Path, **options: Any) -> tuple[dict[str, Any], str]:
    bench = make_bench(folder, **options)
    make_metrics(bench)
    found = bench.rows(REPORT)[0]["about"]
    return found, "; ".join(found["notes"])


def test_the_report_says_what_chose_what_is_reported_and_how_little_there_is(tmp_path: Path) -> None:
    plain, notes = about(tmp_path / "a", evaluation=items(20))
    assert (plain["chosen_by"], plain["reported_on"], plain["n"]) == (None, "evaluation", 20)
    assert "points wide" in notes
    assert "too few" not in notes
    held, notes = about(tmp_path / "b", is_holdout=True)
    assert (held["chosen_by"], held["reported_on"], held["n"]) == (None, "holdout", 3)
    assert "only 3 items" in notes
    assert "no evaluation set" in notes
    chosen, notes = about(tmp_path / "c", reads=["choice"])
    assert (chosen["chosen_by"], chosen["reported_on"]) == ("holdout", "evaluation")
    assert "flatters" not in notes
    _, notes = about(tmp_path / "d", reads=["choice"], is_holdout=True)
    assert "flatters" in notes


def test_worst_and_best_over_the_numbers_of_demonstrations_are_reported(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, evaluation_shots=(0, 1, 5))
    make_metrics(bench)
    rows = {(r["line"], r["task"], r["metric"]): r for r in bench.rows(REPORT)[0]["over_shots"]}
    assert {line for line, _, _ in rows} == {"base", "base_template", "expert"}
    scores = [
        r["score"] for r in bench.rows(COMPARISONS) if (r["against"], r["task"], r["metric"]) == ("base", "tone", "f1")
    ]
    assert len(scores) == 3
    assert rows["base", "tone", "f1"]["best"] == max(scores)


def test_the_story_names_every_line_with_its_score(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, adapters=("adapter", "adapter-seeds"))
    make_metrics(bench)
    message, data, _ = bench.told("metrics_ready")
    assert set(data["scores"]) == {"base", "base_template", "seeds_same_epochs", "expert"}
    assert message.startswith("mean token F1 over 3 items: base ")


# ---- forgetting ----


class Changed(FakeEngine):
    """Its base answers "good", its experts "bad", and plain English surprises them ``times`` as much."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.times = times

    def generate(self, requests: Sequence[GenerationRequest], **options: Any) -> list[Completion]:
        answers = super().generate(requests, **options)
        return [replace(answer, text="bad" if answer.adapter else "good") for answer in answers]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        nats = {True: math.log(20 * self.times), False: math.log(20)}
        counts = [self.count(request.continuation) for request in requests]
        return [Score(-nats[request.adapter is not None] * n, n) for request, n in zip(requests, counts, strict=True)]


def test_other_domains_show_what_was_forgotten(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, engine=Changed())
    bad = [seed(number, task="will", output="bad") for number in range(8)]
    bench.off_domain = {"medicine": items(8, "cells", "drugs", first=500), "law": bad}
    make_metrics(bench)
    found = {row["domain"]: row for row in bench.rows(REPORT)[0]["off_domain"]["domains"]}
    assert (found["medicine"]["n"], found["medicine"]["base"], found["medicine"]["expert"]) == (16, 100.0, 0.0)
    assert (found["law"]["difference"], found["law"]["low"]) == (100.0, 100.0)
    assert {row["domain"] for row in bench.rows(OFF_DOMAIN)} == {"medicine", "law"}
    assert {row["line"] for row in bench.rows(OFF_DOMAIN)} == {"base_template", "expert"}
    message, _, is_warning = bench.told("off_domain_checked")
    assert is_warning
    assert "medicine fell from 100.0 to 0.0" in message
    assert "law" not in message


@pytest.mark.parametrize(("times", "is_warning"), [(0.9, False), (1.5, False), (1.6, True)])
def test_plain_english_shows_what_was_forgotten(tmp_path: Path, times: float, is_warning: bool) -> None:
    bench = make_bench(tmp_path, engine=Changed(times - 1e-9))
    make_metrics(bench)
    found = bench.rows(REPORT)[0]["off_domain"]
    assert found["domains"] == []
    assert found["perplexity"]["base"] == pytest.approx(20)
    assert found["perplexity"]["ratio"] == pytest.approx(times)
    assert bench.told("off_domain_checked")[2] == is_warning


def test_an_item_of_another_domain_that_the_base_cannot_read_is_left_out(tmp_path: Path) -> None:
    engine = FakeEngine(context_tokens=260)
    bench = make_bench(tmp_path, engine=engine, evaluation_max_new_tokens=32)
    bench.off_domain = {"law": [seed(1, input="very " * 300), seed(2)], "none": [seed(3, input="very " * 300)]}
    make_metrics(bench)
    assert [(row["domain"], row["n"]) for row in bench.rows(REPORT)[0]["off_domain"]["domains"]] == [("law", 1)]


def test_nothing_in_the_product_tells_the_time_or_the_place(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, champion=champion_at(tmp_path), evaluation_shots=(0, 1))
    make_metrics(bench)
    assert {path.name for path in bench.folder.iterdir()} == {
        ROWS,
        LINES,
        COMPARISONS,
        DEMONSTRATIONS,
        REPORT,
        OFF_DOMAIN,
    }
    assert not any(str(tmp_path).encode() in content for content in files_of(bench).values())
