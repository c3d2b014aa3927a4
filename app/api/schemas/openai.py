"""What OpenAI's clients send to /v1: chats and completions. What is sent back is in ``openai_answers``."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from app.api.schemas.generate import MAX_ANSWERS, MAX_LOGPROBS, Name, Stop, Text
from app.api.schemas.openai_fields import Fields, custom

MAX_MESSAGES = 1000

_PASSED_OVER = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "prediction",
        "parallel_tool_calls",
        "request_id",
    }
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    # vLLM's
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "min_tokens": (0,),
    "priority": (0,),
    "use_beam_search": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_special_tokens": (True, False),
}


class StreamOptions(Fields):
    """How a stream ends."""

    PASSED_OVER = frozenset({"include_obfuscation"})
    NEUTRAL: ClassVar = {"continuous_usage_stats": (False,)}

    include_usage: bool = Field(False, description="A last chunk without choices tells the tokens of all answers.")


class JsonSchema(Fields):
    """A named JSON schema."""

    PASSED_OVER = frozenset({"name", "description", "strict"})  # always strict

    json_object: dict[str, Any] = Field(alias="schema", description="The JSON schema itself.")


class ResponseFormat(Fields):
    """What kind of text the answer is to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise custom("json_schema goes with type json_schema, and only with it")
        return self

    @property
    def schema_text(self) -> str | None:
        """The schema an answer satisfies, as JSON text."""
        if self.json_schema is not None:
            return json.dumps(self.json_schema.json_object)
        return '{"type": "object"}' if self.type == "json_object" else None


class _Request(Fields):
    """What both kinds of request have."""

    model: Name = Field(
        description="Who answers: a domain (its champion), a version (finance@v2), an adapter's id, the base's name …",
        examples=["finance"],
    )
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False, description="0: always the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens that make up this share.")
    n: int = Field(1, ge=1, le=MAX_ANSWERS, description="Answers to the same prompt.")
    stop: list[Stop] = Field(default_factory=list, max_length=16, description="A text, or texts, that end the answer.")
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="The same seed draws the same answer. Left out: another answer each time."
    )
    stream: bool = Field(False, description="Server-sent events, one a part of the answer; the last is [DONE].")
    stream_options: StreamOptions = Field(default_factory=StreamOptions)
    response_format: ResponseFormat = Field(
        default_factory=lambda: ResponseFormat(type="text"), description="JSON, or JSON of a schema, if not text."
    )
    ignore_eos: bool = Field(False, description="Extension: write on past the end, up to max_tokens.")
    timeout_s: float | None = Field(
        None, gt=0, le=86_400, allow_inf_nan=False, description="Extension: seconds after which what is there is sent."
    )
    truncate: bool = Field(False, description="Extension: leave out the end of an input that is too long.")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop


class Message(Fields):
    """One turn of a chat. ``content`` is a text, or a list of parts of type text."""

    PASSED_OVER = frozenset({"name", "refusal", "annotations", "reasoning", "reasoning_content"})
    NEUTRAL: ClassVar = {"tool_calls": ([],), "function_call": (), "audio": ()}

    role: Literal["system", "developer", "user", "assistant"]
    content: Text = Field(description="A text, or a list of parts of type text.")

    @field_validator("role", mode="before")
    @classmethod
    def _no_tools(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise custom(f"messages of role {role} are not supported: experts call no tools")
        return role

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        return "\n".join(_text_of(part, number=number) for number, part in enumerate(content))


def _text_of(part: Any, *, number: int) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(part.get("text"), str):
        raise custom(f"part {number} is of type {kind!r}; only parts of type 'text' are read")
    return str(part["text"])


class ChatRequest(_Request):
    """A chat. Its last message is the question."""

    PASSED_OVER = _PASSED_OVER
    NEUTRAL: ClassVar = {
        **_NEUTRAL,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
        "moderation": (),
        "echo": (False,),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "chat_template": (),
    }

    messages: list[Message] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The last one is the user's question: its first paragraph is the instruction, the rest the input. "
        "System texts stand before the instruction, earlier turns before the input.",
    )
    input: Text | None = Field(
        None,
        description="Extension: the text the question is about; the whole last message is the instruction then. "
        "Empty: the question has none.",
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Longest answer, tokens. Left out: whatever the base's context still holds.",
    )
    max_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="The older name of max_completion_tokens, which wins."
    )
    logprobs: bool = Field(False, description="Tell each token's log-probability.")
    top_logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="And those of the likeliest tokens in its place."
    )

    @field_validator("top_logprobs")
    @classmethod
    def _check_logprobs(cls, top_logprobs: int | None, others: ValidationInfo) -> int | None:
        if top_logprobs is not None and not others.data.get("logprobs"):
            raise custom("needs logprobs: true")
        return top_logprobs

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives told for each token; 0: only the chosen one's; None: nothing is told."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def longest(self) -> int | None:
        """Longest answer in tokens, if one was said."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """A prompt, or several, each answered for itself."""

    PASSED_OVER = _PASSED_OVER
    NEUTRAL: ClassVar = {**_NEUTRAL, "best_of": (1,), "echo": (False,), "suffix": ("",)}

    prompt: list[Text] = Field(
        min_length=1,
        max_length=MAX_ANSWERS,
        description="A text, or a list of texts. Each is put into the expert's template as a user's message is.",
    )
    raw: bool = Field(False, description="Extension: the prompt is continued as it is, without the template.")
    max_tokens: int = Field(16, ge=1, le=1_000_000, description="Longest answer, tokens.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Tell log-probabilities: of each token and so many in its place."
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, prompt: Any) -> Any:
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int | list):
            raise custom("token ids are not read; send the text")
        return [prompt] if isinstance(prompt, str) else prompt

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, prompt: list[str]) -> list[str]:
        for number, text in enumerate(prompt):
            if not text.strip():
                raise custom(f"prompt {number} is empty")
        return prompt

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives told for each token; 0: only the chosen one's; None: nothing is told."""
        return self.logprobs

    @property
    def longest(self) -> int | None:
        """Longest answer in tokens."""
        return self.max_tokens
