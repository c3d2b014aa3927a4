"""The bundled seeds and evaluation items are what the README promises, and the two do not overlap."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from app.services.seed_files import Upload
from app.services.seeds import Limits, read_seeds

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHARED_WORDS = 8  # as many words in a row are never shared by a seed's and an evaluation item's input
DOMAINS = {"finance": (90, 10), "biomedicine": (80, 10), "sports": (40, 8)}  # seeds, tasks


def load(domain: str, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (EXAMPLES / domain / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + SHARED_WORDS]) for at in range(len(words) - SHARED_WORDS + 1)}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_sets_have_the_promised_size_and_tasks(domain: str) -> None:
    seeds, evaluation = load(domain, "seeds"), load(domain, "evaluation")
    num_seeds, num_tasks = DOMAINS[domain]
    assert len(seeds) == num_seeds
    assert len(evaluation) >= 100
    assert {row["task"] for row in seeds} == {row["task"] for row in evaluation}
    assert len({row["task"] for row in seeds}) == num_tasks


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", ["seeds", "evaluation"])
def test_the_service_accepts_every_row(domain: str, name: str) -> None:
    data = (EXAMPLES / domain / f"{name}.jsonl").read_bytes()
    found = read_seeds(Upload(data, f"{name}.jsonl"), source=name, limits=Limits(10_000, 20_000, 16))
    assert not found.problems
    assert len(found.records()) == len(load(domain, name))


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_evaluation_item_overlaps_a_seed(domain: str) -> None:
    learned = set().union(*(runs_of_words(row["input"]) for row in load(domain, "seeds")))
    shared = [row["input"] for row in load(domain, "evaluation") if runs_of_words(row["input"]) & learned]
    assert not shared


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_task_asks_one_thing_and_its_labels_are_balanced(domain: str) -> None:
    """A task that can be answered by one constant measures nothing."""
    for name in ("seeds", "evaluation"):
        rows = load(domain, name)
        for task in {row["task"] for row in rows}:
            own = [row for row in rows if row["task"] == task]
            assert len({row["instruction"] for row in own}) == 1
            (_, most), *_ = Counter(row["output"] for row in own).most_common(1)
            assert most <= 0.67 * len(own), task
