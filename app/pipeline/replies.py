"""Raw replies → items: reads what the base wrote to an instruction prompt, strictly. Judges form, not content.

An item that breaks the form keeps its text and the fault's name, so that nothing that was written is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.records import Reply, Seed
from app.pipeline.prompts import NO_INPUT, heading, label_of
from app.pipeline.validity import repeats

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

    ``may_cut``: of an input only the beginning is taken, up to where the token limit cut a sentence off, or where it
    begins to repeat itself.
    """
    raw = _lines(reply.text).strip()
    is_cut, has_input = reply.finish_reason == "length", bool(seeds[0].input)
    text = _sound_beginning(raw, is_cut=is_cut) if may_cut and has_input else raw
    if not text and raw:
        return Item(0, raw, fault="truncated" if is_cut else "input_repeats")
    if is_cut and text == raw:
        return Item(0, raw, fault="truncated")
    if heading(label_of(seeds)).search(text):
        return Item(0, raw, fault="several_texts")
    if has_input:
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


def _sound_beginning(text: str, *, is_cut: bool) -> str:
    """Whole sentences, up to the first that mostly says again, three words in a row, what was said before, or with
    which the text goes round in circles."""
    ends = [end.end() for end in _SENTENCE_END.finditer(text)] + ([] if is_cut else [len(text)])
    said, begin = set[tuple[str, ...]](), 0
    for end in ends:
        words = text[begin:end].casefold().split()
        runs = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
        new = set(runs) - said
        if 2 * len(new) < len(runs) or repeats(text[:end].casefold().split()):
            break
        said |= new
        begin = end
    return text[:begin]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> str:
    """The text with every kind of line end as a newline."""
    return "\n".join(text.splitlines())
