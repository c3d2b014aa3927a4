"""What /v1 sends back, in OpenAI's shapes; what is None in an answer is left out. Streams are in ``openai_stream``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

FinishReason = Literal["stop", "length"]


class TopLogprob(BaseModel):
    """A token that could have stood there."""

    token: str
    logprob: float = Field(description="Natural logarithm of its probability, before temperature.")
    bytes: list[int] = Field(description="The token's text in UTF-8.")


class ChatLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob] = Field(description="The likeliest, likeliest first.")


class ChatLogprobs(BaseModel):
    """Log-probabilities of an answer's tokens."""

    content: list[ChatLogprob]


class CompletionLogprobs(BaseModel):
    """Log-probabilities of a completion's tokens; the lists are of one length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int] = Field(description="Where each token begins in the text, characters.")


class AnswerMessage(BaseModel):
    """The answer as a turn of the chat."""

    role: Literal["assistant"] = "assistant"
    content: str


class _Choice(BaseModel):
    index: int = Field(description="With several prompts: the prompt's position times n, plus the answer's.")
    finish_reason: FinishReason = Field(description="stop: the end, or a stop text; length: max_tokens or timeout_s.")
    timed_out: Literal[True] | None = Field(None, description="Extension: timeout_s ended the answer.")


class ChatChoice(_Choice):
    """One answer to a chat."""

    message: AnswerMessage
    logprobs: ChatLogprobs | None = None


class CompletionChoice(_Choice):
    """One answer to a prompt."""

    text: str
    logprobs: CompletionLogprobs | None = None


class PromptDetails(BaseModel):
    """Of the prompts' tokens."""

    cached_tokens: int = Field(description="Not computed again: they begin like an earlier prompt of the same adapter.")


class OpenAIUsage(BaseModel):
    """Tokens of all prompts and answers; a prompt counts once, however many answers it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class _Answers(BaseModel):
    id: str
    created: int = Field(description="Seconds since 1970.")
    model: str = Field(description="The version that answered, such as finance@v2, or the base's name.")
    usage: OpenAIUsage


class ChatBody(_Answers):
    """The answers to a chat."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class CompletionBody(_Answers):
    """The answers to prompts."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class ModelBody(BaseModel):
    """One name that ``model`` may be."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970.")
    owned_by: str = "selfspec"
    root: str = Field(description="What is behind the name: a domain's version, a version's adapter id, a loaded path.")
    parent: str | None = Field(description="The base, for everything but the base itself.")
    max_model_len: int = Field(description="Prompt and answer together, tokens.")


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people; names the remedy.")
    type: str = Field(description="The kind of error, one a status.")
    param: str | None = Field(description="The field it is about.")
    code: str = Field(description="Stable, for programs.")


class OpenAIErrorBody(BaseModel):
    """Every answer of /v1 that is not a success."""

    error: OpenAIErrorDetail


class VllmErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people; names the remedy.")
    type: str = Field(description="The kind of error.")
    param: str | None = Field(description="The field it is about.")
    code: int = Field(description="The HTTP status.")


class VllmErrorBody(VllmErrorDetail):
    """A refusal in vLLM's shape, flat and under ``error``: its versions differ."""

    object: Literal["error"] = "error"
    error: VllmErrorDetail
