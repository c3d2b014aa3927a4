"""Answers in OpenAI's shapes: whole bodies, and the parts that whole bodies and streams share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from app.api.answering import Answers
from app.api.schemas.openai_answers import (
    AnswerMessage,
    ChatBody,
    ChatChoice,
    ChatLogprob,
    ChatLogprobs,
    CompletionBody,
    CompletionChoice,
    CompletionLogprobs,
    FinishReason,
    OpenAIUsage,
    PromptDetails,
    TopLogprob,
)
from app.core.records import Completion, TokenLogprob

_LEAST = -9999.0


class Shape(Protocol):
    """How a kind of request is answered whole."""

    def __call__(
        self, asked: Sequence[Answers], *, id: str, created: int, model: str, with_logprobs: bool
    ) -> ChatBody | CompletionBody: ...


def chat_body(asked: Sequence[Answers], *, id: str, created: int, model: str, with_logprobs: bool) -> ChatBody:
    """The answers to a chat."""
    choices = [
        ChatChoice(
            index=index,
            message=AnswerMessage(content=completion.text),
            logprobs=chat_logprobs(completion.logprobs) if with_logprobs else None,
            finish_reason=finish_reason(completion),
            timed_out=has_timed_out(completion),
        )
        for index, completion in enumerate(_completions(asked))
    ]
    return ChatBody(id=id, created=created, model=model, choices=choices, usage=usage(map(_of, asked)))


def completion_body(
    asked: Sequence[Answers], *, id: str, created: int, model: str, with_logprobs: bool
) -> CompletionBody:
    """The answers to prompts, all of the first prompt before those of the second."""
    choices = [
        CompletionChoice(
            index=index,
            text=completion.text,
            logprobs=completion_logprobs(completion.logprobs) if with_logprobs else None,
            finish_reason=finish_reason(completion),
            timed_out=has_timed_out(completion),
        )
        for index, completion in enumerate(_completions(asked))
    ]
    return CompletionBody(id=id, created=created, model=model, choices=choices, usage=usage(map(_of, asked)))


def finish_reason(completion: Completion) -> FinishReason:
    """OpenAI knows no time-out: the answer was cut short."""
    return "stop" if completion.finish_reason == "stop" else "length"


def has_timed_out(completion: Completion) -> bool | None:
    """None instead of False: the field is left out then."""
    return completion.finish_reason == "timeout" or None


def usage(prompts: Iterable[Sequence[Completion]]) -> OpenAIUsage:
    """Tokens of several prompts, each with its answers."""
    num_prompt = num_completion = num_cached = 0
    for completions in prompts:
        num_prompt += completions[0].prompt_tokens
        num_cached += completions[0].cached_tokens
        num_completion += sum(completion.completion_tokens for completion in completions)
    return OpenAIUsage(
        prompt_tokens=num_prompt,
        completion_tokens=num_completion,
        total_tokens=num_prompt + num_completion,
        prompt_tokens_details=PromptDetails(cached_tokens=num_cached),
    )


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
    """Each token with its likeliest alternatives."""
    return ChatLogprobs(
        content=[
            ChatLogprob(
                token=token.token,
                logprob=_finite(token.logprob),
                bytes=_bytes(token.token),
                top_logprobs=[
                    TopLogprob(token=text, logprob=_finite(value), bytes=_bytes(text)) for text, value in token.top
                ],
            )
            for token in tokens
        ]
    )


def completion_logprobs(tokens: Sequence[TokenLogprob], *, offset: int = 0) -> CompletionLogprobs:
    """In columns. ``offset``: characters of the answer before these tokens. The chosen token is among the likeliest."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return CompletionLogprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[_finite(token.logprob) for token in tokens],
        top_logprobs=[
            {text: _finite(value) for text, value in (*token.top, (token.token, token.logprob))} for token in tokens
        ],
        text_offset=offsets,
    )


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what cannot be."""
    return max(logprob, _LEAST)


def _bytes(text: str) -> list[int]:
    return list(text.encode("utf-8", "replace"))


def _of(answers: Answers) -> tuple[Completion, ...]:
    return tuple(answer.completion for answer in answers.answers)


def _completions(asked: Sequence[Answers]) -> Iterable[Completion]:
    return (completion for answers in asked for completion in _of(answers))
