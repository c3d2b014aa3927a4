"""The prompts of the loop, one function each (paper §2, Table 6; wording our own). Texts in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.records import Seed

# The eight requirements the paper's prompt conveys (Table 6).
_REQUIREMENTS = (
    "Begin the instructions with different verbs; do not use the same verb twice.",
    "Vary the language: mix questions with requests.",
    "Vary the kind of task: open questions, classification, extraction, editing, summarizing and others.",
    "A language model that only reads and writes text must be able to do the task.",
    "Write in English.",
    "Keep each instruction to one or two sentences.",
    "Give each instruction a suitable input: realistic and substantial text, never a placeholder.",
    "Make the tasks differ from each other while all belong to {domain}.",
)


def list_prompt(domain: str, seeds: Sequence[Seed], *, num_tasks: int, description: str = "") -> str:
    """Ask for a numbered list of ``num_tasks`` tasks whose first items are ``seeds``; ends where the next begins."""
    requirements = "\n".join(f"{n}. {text}" for n, text in enumerate(_REQUIREMENTS, start=1)).format(domain=domain)
    items = "".join(
        f"{n}. Instruction: {seed.instruction}\n{n}. Input: {seed.input}\n" for n, seed in enumerate(seeds, start=1)
    )
    return (
        f"Write a list of {num_tasks} different tasks from the field of {domain}{_about(description)}. Each has an "
        f"instruction and an input that the instruction works on.\nRequirements:\n{requirements}\n\n"
        f"List of {num_tasks} tasks:\n{items}{len(seeds) + 1}. Instruction:"
    )


def anchored_prompt(domain: str, seeds: Sequence[Seed], *, description: str = "") -> str:
    """Ask for a new input of the one task that ``seeds`` share; ends where the new text begins."""
    texts = "".join(f"Text {n}:\n{seed.input}\n\n" for n, seed in enumerate(seeds, start=1))
    return (
        f"The following texts from the field of {domain}{_about(description)} are for one task: {seeds[0].instruction} "
        f"Every text is about other names, other numbers and other events.\n\n{texts}Text {len(seeds) + 1}:\n"
    )


def response_prompt(
    domain: str, instruction: str, input: str, *, shots: Sequence[Seed] = (), description: str = ""
) -> str:
    """Ask the base, as an expert of the domain, for the response; the paper shows no demonstrations (App. C)."""
    shown = "".join(_task(seed.instruction, seed.input) + f" {seed.output}\n\n" for seed in shots)
    return (
        f"You are an expert in {domain}{_about(description)}. Give the best and most exact response to the instruction "
        f"and its input.\n\n{shown}{_task(instruction, input)}"
    )


def _task(instruction: str, input: str) -> str:
    given = f"Input: {input}\n" if input else ""
    return f"Instruction: {instruction}\n{given}Response:"


def _about(description: str) -> str:
    return f" ({description.strip()})" if description.strip() else ""
