"""What the fake engine writes: words that mean nothing, always the same for the same request.

Numbered items for a prompt that asks for them, an instance of the schema for one that has a schema, else a few words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.errors import InvalidInput, Problem
from app.core.records import GenerationRequest, Piece, TokenLogprob

_VOCABULARY = (
    "margin revenue guidance quarter dividend forecast shares profit outlook cash debt growth board bond "
    "yield audit merger index fund loan credit asset tax lease capital order market price cost demand "
    "supply region product"
)
_WORDS = _VOCABULARY.split()
_TOKEN = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\s*(?:\w+|[^\w\s])(?:\s+\Z)?")  # one token with the space around it
_BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer before it is told: its pieces, one token each, and why it ends."""

    pieces: tuple[Piece, ...]
    finish_reason: str


def tokens_of(text: str) -> list[str]:
    """The fake tokenizer: words and marks."""
    return _TOKEN.findall(text)


def clip(text: str, num_tokens: int) -> str:
    """The first ``num_tokens`` tokens of a text, as they stand in it."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    return text if len(ends) <= num_tokens else text[: ends[num_tokens - 1] if num_tokens > 0 else 0]


def write(request: GenerationRequest) -> Written:
    """The answer to a request; raises InvalidInput for a schema that cannot be read."""
    chance = random.Random(f"{request.prompt}|{request.adapter}|{request.seed if request.temperature > 0 else 0}")
    text = _text(request, chance)
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=len(text))
    parts = _PIECE.findall(text[:cut])
    kept = parts[: request.max_new_tokens]
    reason = "length" if len(parts) > len(kept) or (request.ignore_end and cut == len(text)) else "stop"
    return Written(tuple(Piece(part, 1, _logprobs(part, request.logprobs, chance)) for part in kept), reason)


def _text(request: GenerationRequest, chance: random.Random) -> str:
    def phrase(length: int) -> str:
        return " ".join(chance.choice(_WORDS) for _ in range(length))

    if request.schema is not None:
        return json.dumps(_instance(_read_schema(request.schema)))
    if request.ignore_end:
        return phrase(request.max_new_tokens)
    item = re.search(r"(\d+)\. Instruction:\s*$", request.prompt)
    if item is None:
        return phrase(chance.randint(3, 12))
    first = int(item.group(1))
    text = f" {phrase(8)}?\n{first}. Input: {phrase(14)}\n"
    for number in range(first + 1, first + 4):
        text += f"{number}. Instruction: {phrase(8)}?\n{number}. Input: {phrase(14)}\n"
    return text


def _logprobs(token: str, count: int | None, chance: random.Random) -> tuple[TokenLogprob, ...]:
    """Made up, falling from the token itself to its ``count`` alternatives, of which it is the first."""
    if count is None:
        return ()
    likely = -round(chance.uniform(0.01, 0.5), 4)
    others = [word for word in _WORDS if word != token.strip()]
    top = [token, *chance.sample(others, count - 1)] if count else []
    return (TokenLogprob(token, likely, tuple((text, likely - rank) for rank, text in enumerate(top))),)


def _read_schema(schema: str) -> Any:
    try:
        read = json.loads(schema)
        if not isinstance(read, dict | bool):
            raise ValueError("it is not an object")
        if isinstance(read, dict) and not _is_known(read.get("type")):
            raise ValueError(f"there is no type {read['type']!r}")
        return read
    except ValueError as error:
        raise InvalidInput([Problem("schema", f"this JSON schema cannot be used: {error}")]) from error


def _is_known(kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return all(each is None or each in (*_BY_TYPE, "object", "array") for each in kinds)


def _instance(schema: Any) -> Any:
    """A small value that satisfies the schema, for the keywords that a test may use."""
    if not isinstance(schema, dict):
        return None
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _instance(schema[choice][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, Sequence) and not isinstance(kind, str) else kind
    if kind == "object":
        return {name: _instance(field) for name, field in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema.get("items", {})) for _ in range(schema.get("minItems", 1))]
    if kind == "string":
        return "text".ljust(schema.get("minLength", 0), "t")[: schema.get("maxLength")]
    return schema.get("minimum", _BY_TYPE[kind]) if kind in ("integer", "number") else _BY_TYPE[kind]
