"""The training set: every seed, and of what was generated only what is new, of one mind and not judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.core.records import Example, Origin, Seed
from app.pipeline.bench import ROWS, Stage
from app.pipeline.dataset import CONTAMINATED, REJECTIONS, make_dataset
from app.pipeline.holdout import Split
from app.pipeline.rows import from_row, to_row
from app.pipeline.training_rows import seed_example
from tests.pipeline.samples import recipe, seed, seeds
from tests.pipeline.workbench import Workbench

WORDS = ("tide", "lamp", "river", "stone", "cloud", "market", "winter", "garden", "copper", "violin", "meadow")


def text(number: int) -> str:
    """Unlike that of any other number."""
    return " ".join(f"{word}{number}" for word in WORDS)


def example(number: int, *, output: str = "fine", input: str = "") -> Example:
    row = seed_example(seed(input=input or text(number)))
    return replace(row, id=f"e{number}", output=output, origin=Origin.GENERATED, generator="base", reply=number, item=0)


def made(
    folder: Path,
    examples: Sequence[Example],
    *,
    given: Sequence[Seed] = (),
    evaluation: Sequence[Seed] = (),
    holdout: Sequence[Seed] = (),
    size: int | None = None,
    stage: str = "responses",
) -> Workbench:
    split = Split(tuple(given or seeds(2)), tuple(evaluation), is_holdout=False, holdout=tuple(holdout))
    work = Stage("dataset", "dataset", ("trial", stage), partial(make_dataset, size=size))
    bench = Workbench(recipe(), split, work, folder, products={(stage, ROWS): [to_row(row) for row in examples]})
    work.work(bench)
    return bench


def generated(bench: Workbench) -> list[str]:
    return [row["id"] for row in bench.rows() if row["origin"] == "generated"]


def refused(bench: Workbench) -> list[tuple[str, int]]:
    return [(row["reason"], row["reply"]) for row in bench.rows(REJECTIONS)]


def test_seeds_come_first_and_are_their_own_origin(tmp_path: Path) -> None:
    given = [replace(item, domain="law") for item in seeds(2)]
    rows = [from_row(Example, row) for row in made(tmp_path, [example(7), example(8)], given=given).rows()]
    assert [(row.origin.value, row.generator) for row in rows] == [("seed", "user")] * 2 + [("generated", "base")] * 2
    assert [(row.seed_ids, row.domain) for row in rows[:2]] == [((item.id,), "law") for item in given]


def test_rows_name_the_stage_that_made_them_and_its_verdicts(tmp_path: Path) -> None:
    bench = made(tmp_path, [example(7)], evaluation=[seed(1)], stage="responses-2")
    *_, row = (from_row(Example, row) for row in bench.rows())
    assert row.stage == "responses-2"
    assert [(check.name, check.is_passed) for check in row.checks] == [("contradicts", True), ("contamination", True)]


def test_rows_that_contradict_each_other_are_all_dropped(tmp_path: Path) -> None:
    """Whatever their order, and though case and spacing differ; the same answer again is only a repetition."""
    rows = [example(1), example(2), example(1, output="bad"), example(3, input=text(2).upper()), example(4)]
    bench = made(tmp_path, rows)
    assert generated(bench) == ["e2", "e4"]
    assert refused(bench) == [("contradicts", 1), ("contradicts", 1), ("repeats", 3)]
    assert bench.told("dataset_ready")[1]["rejected"] == {"contradicts": 2, "repeats": 1}


def test_a_seeds_answer_wins(tmp_path: Path) -> None:
    given = [seed(input=text(1), output="good"), seed(input=text(2), output="good")]
    bench = made(tmp_path, [example(1, output="bad"), example(2, output="Good"), example(3)], given=given)
    assert generated(bench) == ["e3"]
    assert refused(bench) == [("contradicts", 1), ("repeats", 2)]
    assert bench.rows(REJECTIONS)[0]["detail"] == f"seed {given[0].id}"


def test_no_seed_is_left_out(tmp_path: Path) -> None:
    """Two seeds that ask the same and answer differently are both the user's: the second was dropped silently."""
    twins = [Seed("t", "i", "x", "one"), Seed("t", "i", "x", "two")]
    assert [row["output"] for row in made(tmp_path, [], given=twins).rows()] == ["one", "two"]


@pytest.mark.parametrize("role", ["evaluation", "holdout"])
def test_what_judges_is_not_learned(tmp_path: Path, role: str) -> None:
    judges = [seed(input=text(9))]
    rows = [example(1), example(2, input=text(9).replace("lamp9", "lamp")), example(3)]
    bench = made(tmp_path, rows, **{role: judges})  # type: ignore[arg-type]
    assert generated(bench) == ["e1", "e3"]
    [hit] = bench.rows(CONTAMINATED)
    assert (hit["row"], hit["item"], hit["kind"]) == ("e2", judges[0].id, "rouge_l")
    _, data, _ = bench.told("contamination_checked")
    assert data == {"rows": 3, "items": 1, "dropped": 1, "ngram": 0, "rouge_l": 1}


def test_a_size_counts_usable_rows_and_smaller_ones_are_the_first_of_larger_ones(tmp_path: Path) -> None:
    rows = [example(1), example(1, output="bad"), *(example(number) for number in range(2, 300))]
    by_size = {size: generated(made(tmp_path / str(size), rows, size=size)) for size in (0, 1, 3, 270)}
    assert [len(found) for found in by_size.values()] == [0, 1, 3, 270]
    assert by_size[270][:3] == by_size[3] == ["e2", "e3", "e4"]
    assert len(generated(made(tmp_path / "all", rows))) == 298


def test_the_seeds_alone_are_a_warning_unless_asked_for(tmp_path: Path) -> None:
    _, _, is_warning = made(tmp_path / "none", []).told("seeds_alone")
    assert is_warning
    assert "seeds_alone" not in [event[0] for event in made(tmp_path / "asked", [example(1)], size=0).events]


def test_files_are_made_anew_after_a_kill(tmp_path: Path) -> None:
    whole = made(tmp_path, [example(1), example(2)])
    before = whole.rows()
    whole.append(REJECTIONS, [{"reason": "left over"}])
    whole.stage.work(whole)
    assert (whole.rows(), whole.rows(REJECTIONS)) == (before, [])
