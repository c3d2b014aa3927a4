"""The recipe: presets, and every way in which knobs can be wrong is refused by the name of the field."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.presets import PRESETS, make_recipe


def problems(**knobs: Any) -> dict[str, str]:
    """Field and reason of what is refused."""
    with pytest.raises(InvalidInput) as refused:
        make_recipe(knobs)
    return {problem.field: problem.reason for problem in refused.value.problems}


@pytest.mark.parametrize(
    ("knobs", "field", "words"),
    [
        ({"retrieval": "token"}, "corpus", "POST /corpora"),
        ({"corpus": "c1"}, "retrieval", "would not be used"),
        ({"sizes": [0, 5], "iterations": 2}, "sizes", "iterations"),
        ({"sizes": [5, 5]}, "sizes", "different"),
        ({"sizes": [-1]}, "sizes", "below 0"),
        ({"evaluation_shots": [1, 5]}, "evaluation_shots", "must hold 0"),
        ({"evaluation_shots": []}, "evaluation_shots", "must hold 0"),
        ({"evaluation_shots": [0, 0]}, "evaluation_shots", "different"),
        ({"min_agreement": 0.5}, "min_agreement", "response_samples"),
        ({"retrieval": "sequence", "corpus": "c1", "response_samples": 3}, "response_samples", "must be 1"),
        ({"response_draws": 3}, "response_draws", "response_shots"),
        (
            {"retrieval": "token", "corpus": "c", "response_shots": 2, "response_draws": 3},
            "response_draws",
            "must be 1",
        ),
        ({"retrieval": "token", "corpus": "c1", "responders": 2}, "responders", "0 or 1"),
        ({"retrieval": "token", "corpus": "c", "response_temperature": 1}, "response_temperature", "must be 0"),
        ({"language": "Englisch"}, "language", "did you mean 'English'"),
        ({"weigh_by_agreement": True}, "weigh_by_agreement", "responders"),
        ({"merge_findings": True}, "merge_findings", "validity strict"),
        (
            {"merge_findings": True, "validity": "strict", "retrieval": "sequence", "corpus": "c1"},
            "merge_findings",
            "must be false",
        ),
        ({"label_first": True}, "label_first", "anchored"),
        ({"task_check": "leave_one_out"}, "task_check", "anchored"),
        (
            {"task_check": "leave_one_out", "prompt_style": "anchored", "responders": 1},
            "task_check",
            "know their answers",
        ),
        ({"responders_join": True}, "responders_join", "nobody"),
        (
            {"responders": 1, "responders_join": True, "retrieval": "token", "corpus": "c1"},
            "responders_join",
            "one writer",
        ),
        ({"replies_per_prompt": 2, "instruction_temperature": 0}, "replies_per_prompt", "would be the same"),
        ({"tasks_per_prompt": 3}, "tasks_per_prompt", "must exceed"),
        ({"iterations": 0}, "iterations", "greater than or equal to 1"),
        ({"iteration_mod": "fresh"}, "iteration_mod", "did you mean 'iteration_mode'"),
        ({"preset": "big"}, "preset", "unknown preset"),
        ({"blocked_words": ["fine", "\ud800"]}, "blocked_words.1", "valid string"),  # could be stored and never shown
        ({"evaluation_stop": ["\ud800"]}, "evaluation_stop.0", "valid string"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(knobs: dict[str, Any], field: str, words: str) -> None:
    found = problems(**knobs)
    assert list(found) == [f"recipe.{field}"]
    assert words in found[f"recipe.{field}"]


def test_the_paper_is_the_default() -> None:
    recipe = make_recipe()
    assert (recipe.lora_rank, recipe.lora_alpha, recipe.batch_size, recipe.learning_rate) == (8, 16, 32, 3e-4)
    assert (recipe.num_examples, recipe.epochs, recipe.seeds_per_prompt, recipe.retrieval_top_k) == (5000, 3, 3, 5)
    assert (recipe.instruction_temperature, recipe.instruction_top_p) == (1.0, 0.98)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_survives_its_own_record(preset: str) -> None:
    recipe = make_recipe({"preset": preset, "sizes": [0, 7]})
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe
    assert recipe.pool_size == 7


def test_all_that_contradicts_is_told_at_once() -> None:
    """A preset that has several answers, and passages that want one: five answers of ours in a row were no help."""
    told = problems(preset="grounded", retrieval="sequence", corpus="c1")
    assert set(told) == {
        f"recipe.{field}" for field in ("response_draws", "response_samples", "merge_findings", "responders_join")
    }
