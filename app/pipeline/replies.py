"""Raw replies → items: reads what the base wrote to an instruction prompt, strictly. Judges form, not content.

An item that breaks the form keeps its text and the fault's name, so that nothing that was written is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.records import Reply, Seed
from app.pipeline.prompts import NO_INPUT, heading, label_of

_INSTRUCTION = re.compile(r"^(\d+)\. Instruction:", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)")
_MARKER = re.compile(r"^\d+\. (?:Instruction|Input|Output|Response|Answer):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a reply: where it stood (from 0), its raw text, and either what it says or why it cannot be used."""

    position: int
    text: str
    instruction: str = ""
    input: str = ""
    fault: str | None = None


def read_list(reply: Reply) -> Iterator[Item]:
    """Items of a numbered list whose prompt ended at "N. Instruction:"; each number needs its input, and they grow.

    A reply cut at its token limit loses its last item.
    """
    first = len(reply.seed_ids) + 1
    text = f"{first}. Instruction: {_lines(reply.text).strip()}"
    marks = list(_INSTRUCTION.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    last = first - 1
    for position, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        block, number = text[mark.end() : end].strip(), int(mark[1])
        if reply.finish_reason == "length" and end == len(text):
            yield Item(position, block, fault="truncated")
        elif number <= last:
            yield Item(position, block, fault="broken_numbering")
        else:
            yield _list_item(position, block, number)
        last = max(last, number)


def read_anchored(reply: Reply, seeds: Sequence[Seed], *, may_cut: bool = False) -> Item:
    """The one new text of an anchored prompt that showed ``seeds``: an input, or an instruction if they have none.

    ``may_cut``: an input at which the token limit fell ends with its last whole sentence.
    """
    text = raw = _lines(reply.text).strip()
    if reply.finish_reason == "length":
        text = _whole_sentences(raw) if may_cut and seeds[0].input else ""
        if not text:
            return Item(0, raw, fault="truncated")
    if heading(label_of(seeds)).search(text):
        return Item(0, raw, fault="several_texts")
    if seeds[0].input:
        return Item(0, raw, instruction=seeds[0].instruction, input=text)
    return Item(0, raw, instruction=_one_line(text))


def _list_item(position: int, block: str, number: int) -> Item:
    instruction, marker, input = block.partition(f"\n{number}. Input:")
    if not marker:
        return Item(position, block, fault="no_input_marker")
    if _MARKER.search(instruction) or _MARKER.search(input):
        return Item(position, block, fault="stray_marker")
    input = input.strip()
    return Item(position, block, _one_line(instruction), "" if input.casefold() == NO_INPUT else input)


def _whole_sentences(text: str) -> str:
    return text[: max((end.end() for end in _SENTENCE_END.finditer(text)), default=0)]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> str:
    """The text with every kind of line end as a newline."""
    return "\n".join(text.splitlines())
