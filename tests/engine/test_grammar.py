"""Whatever a model would like to say, what it writes under a schema satisfies it; jsonschema is the judge."""

from __future__ import annotations

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidInput
from app.engine.grammar import ANY_OBJECT, Constraint, Grammars
from tests.engine.test_detokenize import byte_fallback_tokenizer, decode
from tests.engine.tiny import BOS, EOS, VOCABULARY, make_tokenizer

WIDTH = VOCABULARY + 12  # padded, as many bases' logits are
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
NODE = {
    "type": "object",
    "properties": {"v": {"enum": [1, 2]}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["v", "next"],
    "additionalProperties": False,
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "ok": {"type": "boolean"}, "no": {"type": "null"}},
        "required": ["name", "ok"],
        "additionalProperties": False,
    },
    "free keys": {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "null"}},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"const": "a"}, {"type": "integer"}], "items": False, "minItems": 2},
    "enum": {"enum": ["positive", "negative", 'quo"te', "é😀", "line\nbreak", 7, None, {"deep": [True]}]},
    "bounded integer": {"type": "integer", "minimum": -12, "maximum": 205},
    "bounded number": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 5000},
    "refs": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "union": {"anyOf": [POINT, {"type": "string", "maxLength": 3}, {"type": "array", "items": POINT, "maxItems": 2}]},
    "exclusive": {"oneOf": [{"type": "string", "maxLength": 2}, {"type": "integer", "minimum": 0, "maximum": 9}]},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"},
    "pattern within": {"type": "string", "pattern": "b.?d", "maxLength": 6},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 5},
    "format": {"type": "string", "format": "date"},
    "joined": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 40}], "multipleOf": 4},
    "unicode names": {"type": "object", "properties": {"größe": {"const": "日本"}}, "required": ["größe"]},
}
TOKENIZERS = {"byte-level": make_tokenizer, "byte-fallback": byte_fallback_tokenizer}


def grammars(tokenizer: PreTrainedTokenizerBase, *, eos_ids: frozenset[int] = frozenset({EOS})) -> Grammars:
    return Grammars(tokenizer, vocab_size=max(WIDTH, len(tokenizer)), eos_ids=eos_ids)


def allowed(constraint: Constraint, *, width: int = 500) -> list[int]:
    logits = torch.zeros(width)
    constraint.mask(logits)
    return torch.isfinite(logits).nonzero()[:, 0].tolist()


def walk(constraint: Constraint, chance: random.Random, *, most: int = 300) -> list[int] | None:
    """Tokens chosen blindly among those allowed, until the document ends; None if it does not."""
    written: list[int] = []
    while len(written) < most:
        choices = allowed(constraint)
        assert choices
        assert constraint.is_done == (choices == [EOS])
        if EOS in choices and (constraint.is_done or chance.random() < 0.5):
            return written
        token = chance.choice([choice for choice in choices if choice != EOS])
        constraint.advance(token)
        written.append(token)
    return None


@pytest.mark.parametrize("make", list(TOKENIZERS.values()), ids=list(TOKENIZERS))
@pytest.mark.parametrize("name", SCHEMAS)
def test_random_walks_end_in_documents_that_satisfy_the_schema(name: str, make: Any) -> None:
    tokenizer = make()
    grammar = grammars(tokenizer).compile(json.dumps(SCHEMAS[name]))
    chance = random.Random(name)
    num_ended = 0
    for _ in range(12):
        if (tokens := walk(grammar.start(), chance)) is not None:
            document = json.loads(decode(tokenizer, tokens))
            jsonschema.validate(document, SCHEMAS[name], format_checker=jsonschema.FormatChecker())
            num_ended += 1
    assert num_ended >= 3


def test_any_object_is_an_object() -> None:
    tokenizer = make_tokenizer()
    grammar = grammars(tokenizer).compile(ANY_OBJECT)
    walks = [walk(grammar.start(), random.Random(seed), most=100) for seed in range(30)]
    documents = [json.loads(decode(tokenizer, tokens)) for tokens in walks if tokens is not None]
    assert len(documents) >= 3
    assert all(isinstance(document, dict) for document in documents)


def follow(constraint: Constraint, tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Whether a text may be written, token by token."""
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if token not in allowed(constraint):
            return False
        constraint.advance(token)
    return True


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (POINT, '{"x": 12}', '{"x": 1.'),
        (POINT, '{\n  "x": 12\n}', '{"y'),
        (POINT, '{"x":-1}', '{"x":01'),
        (POINT, '{ "x" : 1 }', '{  "'),
        ({"type": "string"}, '"a\\n\\"😀"', '"a\n'),
        ({"type": "string", "maxLength": 2}, '"éa"', '"éab'),
        ({"enum": ["up", "upper"]}, '"upper"', '"upp"'),
        ({"type": "integer", "maximum": 31}, "31", "32"),
        ({"type": "array", "maxItems": 1}, "[1]", "[1,"),
        (SCHEMAS["free keys"], '{"a":1,"b":null}', '{"a":1,"b":2'),
        (SCHEMAS["free keys"], '{"a":1}', '{"a":1,"a"'),
        (SCHEMAS["free keys"], '{"b":null}', '{"\\u0061'),
    ],
)
def test_only_what_would_break_the_document_is_forbidden(schema: dict[str, Any], good: str, bad: str) -> None:
    tokenizer = make_tokenizer()
    grammar = grammars(tokenizer).compile(json.dumps(schema))
    constraint = grammar.start()
    assert follow(constraint, tokenizer, good)
    assert EOS in allowed(constraint)
    assert not follow(grammar.start(), tokenizer, bad)


def test_every_token_that_is_forbidden_would_break_the_document() -> None:
    """All tokens of the vocabulary, at each step of one document: its own next one and no wrong one."""
    tokenizer = make_tokenizer()
    words = ["true", "the", "third"]
    constraint = grammars(tokenizer).compile(json.dumps({"enum": words})).start()
    text = '"the"'
    for at, character in enumerate(text):
        fits = {
            token
            for token in range(VOCABULARY)
            if (piece := decode(tokenizer, [token]))
            and any(f'"{word}"'.startswith(text[:at] + piece) for word in words)
        }
        assert set(allowed(constraint)) == fits
        constraint.advance(tokenizer(character)["input_ids"][0])
    assert allowed(constraint) == [EOS]
    assert constraint.is_done


def test_any_of_several_ends_is_allowed_when_the_document_is_complete() -> None:
    tokenizer = make_tokenizer()
    constraint = grammars(tokenizer, eos_ids=frozenset({BOS, EOS})).compile('{"type": "integer"}').start()
    assert not {BOS, EOS} & set(allowed(constraint))
    constraint.advance(tokenizer("7")["input_ids"][0])
    assert {BOS, EOS} <= set(allowed(constraint))
    assert not constraint.is_done  # more digits may follow


@pytest.mark.parametrize("width", [VOCABULARY, WIDTH, WIDTH + 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_masked_in_place_and_otherwise_left_alone(dtype: torch.dtype, width: int) -> None:
    rows: Tensor = torch.randn(3, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = rows.clone()
    constraint = grammars(make_tokenizer()).compile('{"type": "boolean"}').start()
    constraint.mask(rows[1])
    kept = rows[1].isfinite()
    assert 0 < int(kept.sum()) < 10
    assert torch.equal(rows[1][kept], before[1][kept])
    assert bool((rows[1][~kept] == -math.inf).all())
    assert torch.equal(rows[[0, 2]], before[[0, 2]])


def test_answers_under_one_schema_do_not_touch_each_other() -> None:
    tokenizer = make_tokenizer()
    grammar = grammars(tokenizer).compile(json.dumps(POINT))
    first, second = grammar.start(), grammar.start()
    assert follow(first, tokenizer, '{"x":1}')
    assert follow(second, tokenizer, '{"x":2')
    assert first.is_done
    assert not second.is_done


def test_one_schema_is_compiled_once_and_others_push_it_out() -> None:
    compiler = grammars(make_tokenizer())
    first = compiler.compile('{"const": "kept"}')
    assert compiler.compile('{"const": "kept"}') is first
    for number in range(100):
        compiler.compile(json.dumps({"const": number}))
    assert compiler.compile('{"const": "kept"}') is not first


def test_many_threads_may_compile_and_start() -> None:
    tokenizer = make_tokenizer()
    compiler = grammars(tokenizer)

    def answer(number: int) -> bool:
        constraint = compiler.compile(json.dumps({"const": number % 5})).start()
        return follow(constraint, tokenizer, str(number % 5)) and constraint.is_done

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(answer, range(60)))


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "characters"),
        ("[" * 60_000, "not JSON"),
        ('{"not":' * 2000 + "{}" + "}" * 2000, "recursion"),
        ("[]", "not a schema"),
        ("true", "not a schema"),
        ('{"type": "objekt"}', "objekt"),
        ('{"properties": 3}', "properties"),
        ('{"uniqueItems": true}', "uniqueItems"),
        ('{"not": {}}', "not"),
        ('{"x-guidance": {"lenient": true}, "not": {}}', "not"),
        ('{"if": {}, "then": {}}', "if"),
        ('{"format": "poem"}', "poem"),
        ('{"type": "string", "pattern": "("}', "unclosed"),
        ('{"type": "string", "pattern": "(?=a)b"}', "look-ahead"),
        ('{"oneOf": [{"type": "integer"}, {"type": "number"}]}', "oneOf"),
        ('{"$ref": "https://example.com/schema.json"}', "example.com"),
        ('{"$ref": "#/$defs/missing"}', "missing"),
        ('{"$ref": "#"}', "no document"),
        ('{"enum": []}', "nsatisfiable"),
        ('{"type": "object", "minProperties": 2}', "minProperties"),
        (json.dumps({"anyOf": [{"const": number} for number in range(129)]}), "at most 128"),
        (json.dumps({"allOf": [{"type": "string", "pattern": f"a{number}"} for number in range(100)]}), "patterns"),
        (json.dumps({"enum": ["x" * 60_000, "y" * 10_000]}), "characters"),
        (json.dumps({"type": "integer", "multipleOf": 999_999_937}), "too complex"),
    ],
)
def test_what_cannot_be_promised_is_refused_by_name(schema: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word) as refused:
        grammars(make_tokenizer()).compile(schema)
    assert refused.value.param == "json_schema"
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": ".*a.{200}"},
        {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
        {"type": "string", "maxLength": 10_000_000},
        {"type": "array", "minItems": 1_000_000},
        {"enum": [f"{number:08x}" for number in range(5000)]},
    ],
)
def test_what_is_large_is_followed_or_given_up_with_a_reason(schema: dict[str, Any]) -> None:
    constraint = grammars(make_tokenizer()).compile(json.dumps(schema)).start()
    chance = random.Random(1)
    for _ in range(60):
        choices = allowed(constraint)
        if constraint.error is not None:
            assert choices == []
            assert "too complex" in constraint.error.message
        if not choices or constraint.is_done:
            break
        constraint.advance(chance.choice([choice for choice in choices if choice != EOS]))


def test_a_token_that_was_forbidden_ends_its_own_answer_only() -> None:
    tokenizer = make_tokenizer()
    grammar = grammars(tokenizer).compile(json.dumps(POINT))
    broken, sound = grammar.start(), grammar.start()
    broken.advance(tokenizer("x")["input_ids"][0])
    assert broken.error is not None
    assert not broken.is_done
    assert allowed(broken) == []
    assert follow(sound, tokenizer, '{"x":1}')
