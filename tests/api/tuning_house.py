"""Training files as OpenAI's clients send them, and a check that a reply is all that the client's types promise."""

from __future__ import annotations

import json
from typing import TypeVar

import openai
from openai.types import FileObject
from pydantic import BaseModel

from tests.api.live import EVALUATION, SEEDS

RECIPE = {"preset": "quick", "num_examples": 5, "max_prompts": 20, "controls": [], "off_domain_items": 0}
Reply = TypeVar("Reply", bound=BaseModel)


def chat_of(seed: dict[str, str]) -> dict[str, object]:
    """A seed as a training row of OpenAI's."""
    messages = [
        {"role": "system", "content": "You judge headlines."},
        {"role": "user", "content": f"{seed['instruction']}\n\n{seed['input']}"},
        {"role": "assistant", "content": seed["output"]},
    ]
    return {"messages": messages}


def lines(*rows: object) -> bytes:
    """JSONL."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


CHATS = lines(*map(chat_of, SEEDS))
EVALUATION_CHATS = lines(*map(chat_of, EVALUATION))


def upload(client: openai.OpenAI, data: bytes = CHATS, *, name: str = "train.jsonl") -> FileObject:
    """A file for fine-tuning."""
    return whole(client.files.create(file=(name, data), purpose="fine-tune"))


def whole(reply: Reply) -> Reply:
    """The reply itself, after all fields of the client's type were found sent, each of the type it promises.

    The client does not check what it reads, so a field that is missing or of another type would pass unseen.
    """
    assert set(type(reply).model_fields) <= reply.model_fields_set, type(reply)
    type(reply).model_validate(reply.model_dump(), strict=True)
    return reply
