"""How long a job's texts will be, in tokens: counted on a few of its own prompts and seeds.

Before the tokenizer is there a token counts as four characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, pairwise
from os.path import commonprefix
from statistics import fmean

from app.core.errors import NotReady
from app.core.ports import Tokens
from app.core.recipe import Recipe
from app.core.records import Candidate, Seed
from app.pipeline.answering import request_answers
from app.pipeline.asking import by_task
from app.pipeline.demonstrations import Demonstrations
from app.pipeline.holdout import Split
from app.pipeline.instructions import prompt_at
from app.pipeline.prompts import varying_texts
from app.pipeline.template import ALPACA, Template
from app.pipeline.training_rows import seed_example, training_rows
from app.pipeline.turns import count_prompts

_CHARS_A_TOKEN = 4
_COUNTED = 32  # texts of a kind that are counted
_PROMPTS = 8  # prompts of a kind that are made and counted
_TASKS = 4  # whose evaluation prompts are counted


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job is asked for. ``has_champion``: its domain serves something; ``off_domain``: other domains' items."""

    recipe: Recipe
    split: Split
    labelled: Sequence[Seed]
    domain: str
    description: str
    has_champion: bool = False
    off_domain: int = 0


class Texts:
    """Mean lengths, tokens."""

    def __init__(self, wanted: Wanted, tokens: Tokens) -> None:
        self._wanted, self._tokens = wanted, tokens

    @cached_property
    def _tasks(self) -> dict[str, list[Seed]]:
        """The seeds that are learned, by task."""
        tasks: dict[str, list[Seed]] = {}
        for seed in self._wanted.split.training:
            tasks.setdefault(seed.task, []).append(seed)
        return tasks

    @cached_property
    def answer(self) -> float:
        """A seed's output and the end of sequence."""
        return self._mean(seed.output for seed in self._wanted.split.training) + 1

    @cached_property
    def prompt(self) -> float:
        """A seed through the expert's template."""
        return self._mean(ALPACA.render(seed.instruction, seed.input) for seed in self._wanted.split.training)

    @cached_property
    def learned(self) -> float:
        """A seed as it is learned: with its answer, and behind demonstrations where the recipe says so."""
        seeds = list(map(seed_example, self._wanted.split.training))
        rows = training_rows(seeds, shown=seeds, recipe=self._wanted.recipe, count=self.count)
        return self._mean(row.prompt + row.target for row in rows) + 1

    @cached_property
    def instruction_prompt(self) -> float:
        """What the writer of new tasks is shown."""
        return self._mean(map(self._instruction_prompt, range(_PROMPTS)))

    def instruction_read(self, num_replies: int) -> float:
        """Of all prompts: one asked again is known but for its last token, of others the beginning they share."""
        whole, num_tasks = self.instruction_prompt, self._num_tasks
        different = count_prompts(num_replies, self._wanted.split.training, self._wanted.recipe)
        alike = max(0, different - num_tasks) * min(whole - 1, self._instruction_known)
        return different * whole - alike + num_replies - different

    @cached_property
    def _instruction_known(self) -> float:
        """Tokens that prompts begin alike with, one round of the tasks apart; of a few tasks."""
        places = range(min(_TASKS, self._num_tasks))
        pairs = ([self._instruction_prompt(at) for at in (place, place + self._num_tasks)] for place in places)
        return self._mean(map(commonprefix, pairs))

    @property
    def _num_tasks(self) -> int:
        return len({(seed.domain, seed.task) for seed in self._wanted.split.training})

    def _instruction_prompt(self, number: int) -> str:
        """The job's prompt of this number, from 0."""
        wanted, once = self._wanted, self._wanted.recipe.model_copy(update={"replies_per_prompt": 1})
        seeds, about = wanted.split.training, wanted.description
        return prompt_at(number, seeds, recipe=once, domain=wanted.domain, description=about).prompt

    @cached_property
    def reply(self) -> float:
        """What is written to it: another input, or the rest of a list; never more than the recipe lets be written."""
        recipe, seeds = self._wanted.recipe, self._wanted.split.training
        if recipe.prompt_style == "anchored":
            likely = self._mean(varying_texts(seeds)) + 1
        else:
            task = self._mean(f"{seed.instruction}\n{seed.input}" for seed in seeds) + 4  # its number and its labels
            likely = task * (recipe.tasks_per_prompt - recipe.seeds_per_prompt)
        return min(likely, recipe.instruction_max_new_tokens)

    def response_prompt(self, *, writer: str | None) -> float:
        """What the writer of answers is shown: an adapter, or (None) the base."""
        return self._mean(self._response_prompt(seed, writer) for seed in islice(self._wanted.split.training, _PROMPTS))

    def response_read(self, num_answers: int, num_replies: int, *, writer: str | None) -> float:
        """Of all answers of one writer: what prompts of one draw of demonstrations begin alike with is read once."""
        recipe, whole = self._wanted.recipe, self.response_prompt(writer=writer)
        asked = num_answers * recipe.response_draws
        if recipe.response_draws > 1:
            different = recipe.response_draws * len(self._tasks)
        elif recipe.prompt_style == "list":
            different = asked
        else:
            different = count_prompts(num_replies, self._wanted.split.training, recipe)
        return asked * whole - max(0, asked - different) * min(whole - 1, self._response_known(writer))

    def _response_known(self, writer: str | None) -> float:
        """Tokens that two items of one task begin alike with, where they are shown the same; of a few tasks."""
        pairs = islice((own[:2] for own in self._tasks.values() if len(own) > 1), _TASKS)
        return self._mean(commonprefix([self._response_prompt(seed, writer) for seed in pair]) for pair in pairs)  # noqa: RUF071 - texts, no paths

    def _response_prompt(self, seed: Seed, writer: str | None) -> str:
        """As if the first reply had brought this seed; with a space more it is none, so that any may be shown."""
        return self._asked(replace(seed, instruction=f"{seed.instruction} "), writer)[0]

    def _asked(self, item: Seed, writer: str | None = None) -> list[str]:
        """The prompts of one item, one a draw of demonstrations."""
        wanted = self._wanted
        requests = request_answers(
            Candidate(item.instruction, item.input, item.task, 0, 0, (), domain=item.domain),
            seeds=wanted.split.training,
            recipe=wanted.recipe,
            domain=wanted.domain,
            description=wanted.description,
            writers=[] if writer is None else [writer],
        )
        return [request.prompt for request in requests]

    def check_read(self) -> float:
        """Of all seeds, each asked without being shown; a few tasks stand for all."""
        read, num_seeds = 0.0, 0
        for own in islice(self._tasks.values(), _TASKS):
            prompts = sorted(prompt for seed in own for prompt in self._asked(seed))
            known = sum(self.count(commonprefix(pair)) for pair in pairwise(prompts))  # noqa: RUF071 - texts, no paths
            read += sum(map(self.count, prompts)) - known
            num_seeds += len(own)
        return read * len(self._wanted.split.training) / max(1, num_seeds)

    def response(self, *, writer: str | None) -> float:
        """An adapter answers as the seeds do, the base at greater length."""
        likely = self.answer if writer is not None else 2 * self.answer + 8
        return min(likely, self._wanted.recipe.response_max_new_tokens)

    def judged_answer(self, *, is_adapter: bool) -> float:
        """To an evaluation item; the base often writes until it is stopped."""
        most = self._wanted.recipe.evaluation_max_new_tokens
        return min(most, self.answer if is_adapter else (self.answer + most) / 2)

    def evaluation_read(self, template: Template, shots: int) -> float:
        """Of one line and one number of demonstrations, over all items: what they begin alike with is read once a task.

        The prompts of a few tasks stand for all.
        """
        wanted = self._wanted
        tasks: dict[str, list[Seed]] = {}
        for item in by_task(wanted.split.evaluation):
            tasks.setdefault(item.task, []).append(item)
        shown = Demonstrations(wanted.split.training, seed=wanted.recipe.seed, most=shots)
        read, num_items = 0.0, 0
        for task, items in islice(tasks.items(), _TASKS):
            before = shown.of(task, shots)
            prompts = [template.render(item.instruction, item.input, shown=before) for item in items[:2]]
            first = self.count(prompts[0])
            known = self.count(commonprefix(prompts)) if len(prompts) > 1 else 0  # noqa: RUF071 - texts, no paths
            read += first + (len(items) - 1) * max(1, self.count(prompts[-1]) - known)
            num_items += len(items)
        return read * len(wanted.split.evaluation) / max(1, num_items)

    def count(self, text: str) -> int:
        try:
            return self._tokens.count(text)
        except NotReady:
            return len(text) // _CHARS_A_TOKEN + 1

    def _mean(self, texts: Iterable[str]) -> float:
        """Of a few of them, spread over all."""
        listed = list(texts)
        sample = listed[:: max(1, len(listed) // _COUNTED)][:_COUNTED]
        return fmean(map(self.count, sample)) if sample else 0.0
