"""LoRAX's shape of /generate: ``{"inputs", "parameters"}`` in, ``{"generated_text", "details"}`` out.

``inputs`` is the prompt as it stands, as it is there: no template is put around it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from app.api.answering import Answers
from app.api.schemas.generate import Name, Stop, Text
from app.api.schemas.openai_fields import Fields
from app.core.records import Completion
from app.services.generate import Drawing


class LoraxFormat(Fields):
    """What the answer is to be."""

    type: Literal["json_object"] = "json_object"
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A JSON schema; left out: any object.")


class LoraxParameters(Fields):
    """How the answer is drawn. What is not done here is refused by name."""

    PASSED_OVER = frozenset({"api_token"})
    NEUTRAL: ClassVar = {
        "adapter_source": ("local",),
        "merged_adapters": (),
        "best_of": (1,),
        "repetition_penalty": (1,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "top_k": (0, -1),
        "typical_p": (1,),
        "truncate": (),
        "watermark": (False,),
        "decoder_input_details": (False,),
        "return_k_alternatives": (),
        "apply_chat_template": (False,),
    }

    adapter_id: Name | None = Field(None, description="The same as the query's adapter.")
    do_sample: bool = Field(False, description="Draw at temperature 1, if no temperature is given.")
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**63)
    max_new_tokens: int | None = Field(None, ge=1, le=8192, description="Left out: as many as still fit.")
    stop: list[Stop] = Field(default_factory=list, max_length=16)
    ignore_eos_token: bool = False
    return_full_text: bool = Field(False, description="The prompt stands before the answer.")
    details: bool = False
    response_format: LoraxFormat | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="A JSON schema, or its text.")

    @field_validator("schema_", mode="before")
    @classmethod
    def _read_schema(cls, given: object) -> object:
        return json.loads(given) if isinstance(given, str) else given

    def drawing(self) -> Drawing:
        is_sampled = self.do_sample or self.top_p is not None
        temperature = self.temperature if self.temperature is not None else float(is_sampled)
        return Drawing(
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=tuple(self.stop),
            schema=self._schema_text(),
            ignore_end=self.ignore_eos_token,
        )

    def _schema_text(self) -> str | None:
        if self.schema_ is not None:
            return json.dumps(self.schema_)
        return None if self.response_format is None else json.dumps(self.response_format.schema_ or {"type": "object"})


class LoraxRequest(Fields):
    """A prompt as LoRAX's clients send it."""

    NEUTRAL: ClassVar = {"stream": (False,)}

    inputs: Annotated[Text, StringConstraints(min_length=1)] = Field(description="The prompt, without a template.")
    parameters: LoraxParameters = LoraxParameters()


class LoraxDetails(BaseModel):
    """Figures of the answer. Tokens have no ids here, so the two lists stay empty."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    prompt_tokens: int
    generated_tokens: int
    skipped_tokens: int = 0
    seed: int | None
    prefill: list[Any] = Field(default_factory=list)
    tokens: list[Any] = Field(default_factory=list)


class LoraxBody(BaseModel):
    """An answer as LoRAX's clients read it."""

    generated_text: str
    details: LoraxDetails | None = None

    @classmethod
    def of(cls, request: LoraxRequest, answers: Answers) -> LoraxBody:
        [answer] = answers.answers
        asked, text = request.parameters, answer.completion.text
        return cls(
            generated_text=answers.prompt.text + text if asked.return_full_text else text,
            details=_details(answer.completion, asked) if asked.details else None,
        )


def _details(completion: Completion, asked: LoraxParameters) -> LoraxDetails:
    """Whether the end was the model's own or a stop text is not known: with stop texts it is taken for one."""
    ended: Literal["eos_token", "stop_sequence"] = "stop_sequence" if asked.stop else "eos_token"
    return LoraxDetails(
        finish_reason=ended if completion.finish_reason == "stop" else "length",
        prompt_tokens=completion.prompt_tokens,
        generated_tokens=completion.completion_tokens,
        seed=asked.seed if asked.drawing().temperature > 0 else None,
    )
