"""Answers that satisfy a JSON schema: which tokens may come next, by llguidance.

Knows a tokenizer's bytes and schemas, nothing of models or requests. What a schema asks and the library cannot
promise is refused by name, never ignored. Not checked: that a document can end within the tokens a request allows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidInput, Problem

ANY_OBJECT = '{"type":"object"}'
_MOST_CHARACTERS = 65_536  # of a schema; one that long compiles in about a second
_MOST_CHOICES = 128  # of one anyOf, oneOf or allOf: compared pair by pair
_MOST_PATTERNS = 12  # that may meet on one string: whether any string fits them all takes exponential time
_MOST_KEPT = 64  # compiled schemas
_MOST_STATES = 20_000  # of an answer's lexer, about 2 kB each; a pattern that needs more fails its own request
_OPTIONS: dict[str, Any] = {
    "whitespace_pattern": "( |\n {0,16})",  # at most once between two tokens: a model cannot write blanks for ever
    "json_allowed_escapes": 'nrbtf\\"',  # a \u escape could spell the name of a property whose value is restricted
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,
    "lenient": False,
}
_APPLY = {"$ref", "anyOf", "oneOf", "pattern", "format", "properties", "additionalProperties", "items", "prefixItems"}


class Grammars:
    """Compiles schemas for one tokenizer, from any thread; the last ones are kept."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, vocab_size: int, eos_ids: Collection[int]) -> None:
        """``vocab_size``: the width of the logits. The tokenizer is read at the first schema (a second or less)."""
        self._tokenizer, self._vocab_size, self._eos_ids = tokenizer, vocab_size, sorted(eos_ids)
        self._lock = Lock()
        self._tokens: LLTokenizer | None = None
        self._compile_once = lru_cache(maxsize=_MOST_KEPT)(self._compile)

    def compile(self, schema: str) -> Grammar:
        """Raises InvalidInput (param ``json_schema``) for what is no schema, or asks what cannot be promised."""
        return self._compile_once(schema)

    def _compile(self, schema: str) -> Grammar:
        content = _read(schema)
        tokens = self._read_tokenizer()
        try:
            matcher = LLMatcher(
                tokens,
                LLMatcher.grammar_from_json_schema(json.dumps(content), overrides=_OPTIONS),  # type: ignore[arg-type]
                log_level=0,
                limits=LLParserLimits(max_lexer_states=_MOST_STATES, verbose_errors=False),
            )
        except (ValueError, RecursionError) as error:
            raise _refusal(str(error)) from error
        grammar = Grammar(matcher)
        if (problem := grammar.start().probe()) is not None:
            raise problem
        return grammar

    def _read_tokenizer(self) -> LLTokenizer:
        with self._lock:
            if self._tokens is None:
                backend = getattr(self._tokenizer, "backend_tokenizer", None)
                if backend is None:
                    raise _refusal("the base's tokenizer does not tell its tokens' bytes")
                size = max(self._vocab_size, len(self._tokenizer))
                self._tokens = LLTokenizer(
                    backend.to_str(), n_vocab=size, eos_token=self._eos_ids, slices=LLTokenizer.json_slices()
                )
            return self._tokens


class Grammar:
    """One compiled schema, to be followed by any number of answers at once."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def start(self) -> Constraint:
        """A constraint for one answer from its first token on."""
        return Constraint(self._matcher.deep_copy())


class Constraint:
    """Where one answer stands in its grammar. Belongs to one thread at a time and never raises.

    If the schema proves too complex to follow, or a token was taken that it forbids, ``error`` says so, every token
    is forbidden from there on, and no other answer is touched.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self, logits: Tensor) -> None:
        """Forbid in place (-inf) what may not come next: logits [vocabulary or wider], any float type and device.

        An end of sequence is allowed exactly where the document is complete.
        """
        bits = self._allowed()
        if bits is None:
            logits.fill_(-torch.inf)
            return
        allowed = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")[: len(logits)]
        known = len(allowed)
        logits[:known].masked_fill_(torch.from_numpy(allowed == 0).to(logits.device), -torch.inf)
        logits[known:] = -torch.inf

    def advance(self, token: int) -> None:
        """Take the token that was chosen; an end of sequence may be told or not."""
        self._matcher.consume_token(token)

    def probe(self) -> InvalidInput | None:
        """What stands in the way of the next token."""
        self._allowed()
        return self.error

    @property
    def is_done(self) -> bool:
        """Whether only an end of sequence may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def error(self) -> InvalidInput | None:
        """Why nothing may follow, if the schema could not be followed."""
        return _refusal(self._matcher.get_error()) if self._matcher.is_error() else None

    def _allowed(self) -> bytes | None:
        """A bit a token, lowest first."""
        if self._matcher.is_error():
            return None
        bits = self._matcher.compute_bitmask()
        return None if self._matcher.is_error() else bits


def _read(schema: str) -> dict[str, Any]:
    """The schema as JSON; raises InvalidInput where the library would misread it or keep silent."""
    if len(schema) > _MOST_CHARACTERS:
        raise _refusal(f"the schema has {len(schema)} characters; at most {_MOST_CHARACTERS} are taken")
    try:
        content = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _refusal('not a schema: give a JSON object, such as {"type": "object"}')
    content.pop("x-guidance", None)  # the library's own switches
    parts = list(_parts(content))
    for part in parts:
        if max(_size(part, key) for key in ("anyOf", "oneOf", "allOf")) > _MOST_CHOICES:
            raise _refusal(f"at most {_MOST_CHOICES} schemas in one anyOf, oneOf or allOf")
        least, num_required = part.get("minProperties"), _size(part, "required")
        if isinstance(least, int) and least > num_required + 1:  # two free properties could get the same name
            raise _refusal(f'"minProperties": {least} needs {least - 1} names or more under "required"')
    if any(_joins(part) for part in parts) and len(set(_patterns(parts))) > _MOST_PATTERNS:
        raise _refusal(f"at most {_MOST_PATTERNS} patterns and formats where schemas are joined (allOf, $ref beside …)")
    return content


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value, itself included."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
        if isinstance(part, dict | list):
            waiting.extend(part.values() if isinstance(part, dict) else part)


def _size(part: dict[str, Any], key: str) -> int:
    """How many entries stand there; 0 for what is no collection."""
    entries = part.get(key)
    return len(entries) if isinstance(entries, dict | list) else 0


def _joins(part: dict[str, Any]) -> bool:
    """Whether several schemas may apply to one value here."""
    if "allOf" in part or "patternProperties" in part:
        return True
    return bool(part.keys() & {"$ref", "anyOf", "oneOf"}) and len(part.keys() & _APPLY) > 1


def _patterns(parts: Iterable[dict[str, Any]]) -> Iterator[str]:
    for part in parts:
        yield from (part[key] for key in ("pattern", "format") if isinstance(part.get(key), str))
        if isinstance(named := part.get("patternProperties"), dict):
            yield from named


def _refusal(reason: str) -> InvalidInput:
    """The library's reasons run over several lines, of which a person needs one; some show no more than a code."""
    line = " ".join(reason.split("<non-verbose/>")[0].split())[:300]
    if "NoExtension" in line:
        line = "no document can satisfy the schema in this base's tokens"
    elif any(word in line for word in ("TooComplex", "too big", "too large", "too many", "max is", "fuel")):
        line = f"too complex to be followed: {line}"
    return InvalidInput([Problem("json_schema", line)])
