"""The prompts of the loop, one function each (paper §2, Table 6; wording our own). Texts in, text out.

What a reader of the replies must know of their layout stands here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from app.core.records import Seed

Fits = Callable[[str], bool]  # is a prompt short enough for the base?

ENGLISH = "English"
NO_INPUT = "(none)"  # how a list prompt shows that a seed has no input

# The eight requirements the paper's prompt conveys (Table 6).
_REQUIREMENTS = (
    "Begin the instructions with different verbs; do not use the same verb twice.",
    "Vary the language: mix questions with requests.",
    "Vary the kind of task: open questions, classification, extraction, editing, summarizing and others.",
    "A language model that only reads and writes text must be able to do the task.",
    "Write in {language}.",
    "Keep each instruction to one or two sentences.",
    "Give each instruction a suitable input: realistic and substantial text, never a placeholder.",
    "Make the tasks differ from each other while all belong to {domain}.",
)


def list_prompt(
    domain: str, seeds: Sequence[Seed], *, num_tasks: int, description: str = "", language: str = ENGLISH
) -> str:
    """Ask for a numbered list of ``num_tasks`` tasks whose first items are ``seeds``; ends where the next begins."""
    numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(_REQUIREMENTS, start=1))
    requirements = numbered.format(domain=domain, language=language)
    items = "".join(
        f"{n}. Instruction: {seed.instruction}\n{n}. Input: {seed.input or NO_INPUT}\n"
        for n, seed in enumerate(seeds, start=1)
    )
    return (
        f"Write a list of {num_tasks} different tasks from the field of {domain}{_about(description)}. Each has an "
        f"instruction and an input that the instruction works on.\nRequirements:\n{requirements}\n\n"
        f"List of {num_tasks} tasks:\n{items}{len(seeds) + 1}. Instruction:"
    )


def anchored_prompt(
    domain: str,
    seeds: Sequence[Seed],
    *,
    description: str = "",
    language: str = ENGLISH,
    answer: str | None = None,
) -> str:
    """Ask for a new input of the one task that ``seeds`` share; ends where the new text begins.

    ``answer``: the right one for all of the texts, the new one too.

    Where the seeds have no input, what is new in each is its instruction: then that is asked for.
    """
    texts, label = varying_texts(seeds), label_of(seeds)
    shown = "".join(f"{label} {n}:\n{text}\n\n" for n, text in enumerate(texts, start=1))
    told = f"are for one task: {seeds[0].instruction}" if seeds[0].input else "are tasks of one kind."
    told += f" For every one of these texts the answer is: {answer}." if answer is not None else ""
    tongue = "" if language == ENGLISH else f" in {language}"  # a base that is shown English writes English
    return (
        f"The following texts{tongue} from the field of {domain}{_about(description)} {told} "
        f"Every text is about other names, other numbers and other events.\n\n{shown}{label} {len(texts) + 1}:\n"
    )


def varying_texts(seeds: Sequence[Seed]) -> list[str]:
    """What differs from seed to seed of one task: the inputs, or the instructions of seeds that have none."""
    return [seed.input or seed.instruction for seed in seeds]


def label_of(seeds: Sequence[Seed]) -> str:
    """The word that heads each text of an anchored prompt; none of the texts has a line that looks like it."""
    label, texts = "Text", "\n".join(varying_texts(seeds))
    while heading(label).search(texts):
        label = f"New {label}"
    return label


def heading(label: str) -> re.Pattern[str]:
    """Matches a line that begins a numbered text."""
    return re.compile(rf"^[ \t]*{label} \d+:", re.MULTILINE)


def response_prompt(
    domain: str, instruction: str, input: str, *, shots: Sequence[Seed] = (), description: str = ""
) -> str:
    """Ask the base, as an expert of the domain, for the response; the paper shows no demonstrations (App. C)."""
    shown = "".join(_task(seed.instruction, seed.input) + f" {seed.output}\n\n" for seed in shots)
    return (
        f"You are an expert in {domain}{_about(description)}. Give the best and most exact response to the instruction "
        f"and its input.\n\n{shown}{_task(instruction, input)}"
    )


def always_fits(prompt: str) -> bool:
    """For a base whose limit does not matter."""
    return True


def shorten(seeds: Sequence[Seed], make: Callable[[Sequence[Seed]], str], *, fits: Fits, least: int) -> Sequence[Seed]:
    """The most of the first seeds whose prompt fits the base; ``least`` of them whether it does or not."""
    while len(seeds) > least and not fits(make(seeds)):
        seeds = seeds[:-1]
    return seeds


def _task(instruction: str, input: str) -> str:
    given = f"Input: {input}\n" if input else ""
    return f"Instruction: {instruction}\n{given}Response:"


def _about(description: str) -> str:
    return f" ({description.strip()})" if description.strip() else ""
