"""The prompt template: how an instruction and its input become the text an expert was trained on.

The template belongs to the adapter: it is stored beside the weights, and training, evaluation and serving all render
through it (paper App. A: one simple Alpaca-style template for training and evaluation).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from app.core.records import Seed

_FIELD = re.compile(r"\{(instruction|input)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """Two texts with the fields ``{instruction}`` and ``{input}``; the second is for an empty input."""

    name: str
    with_input: str
    without_input: str

    def render(self, instruction: str, input: str = "", *, shown: Sequence[Seed] = ()) -> str:
        """The prompt, up to where the answer begins. Braces inside the arguments are left as they are.

        ``shown`` stand in front, each a whole rendering with its answer, so that prompts of one expert begin alike and
        the engine computes that beginning once.
        """
        fields = {"instruction": instruction.strip(), "input": input.strip()}
        text = self.with_input if fields["input"] else self.without_input
        before = "".join(f"{self.render(seed.instruction, seed.input)}{seed.output}\n\n" for seed in shown)
        return before + _FIELD.sub(lambda match: fields[match.group(1)], text)

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Template:
        return cls(name=data["name"], with_input=data["with_input"], without_input=data["without_input"])


ALPACA = Template(
    name="alpaca-v1",
    with_input=(
        "You are given a task and the text it is about. Write the answer that does what the task asks.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    ),
    without_input=(
        "You are given a task. Write the answer that does what the task asks.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
)

PLAIN = Template(name="plain-v1", with_input="{instruction}\n\n{input}\n\n", without_input="{instruction}\n\n")

# How a base that knows no template is asked: with several of these in a row it can see where an answer begins.
BARE = Template(
    name="bare-v1", with_input="{instruction}\nInput: {input}\nOutput:\n", without_input="{instruction}\nOutput:\n"
)

TEMPLATES: dict[str, Template] = {template.name: template for template in (ALPACA, PLAIN)}
