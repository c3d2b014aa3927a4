"""What one writes first: transformers' ``generate``, one prompt after the other, behind the part of the engine's port
that the generating stages use. So prompts, limits, stop texts and filters are the very same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from app.core.records import BaseInfo, Completion, GenerationRequest
from app.engine.base import LoadedBase


class PlainLoop:
    """Over a base that was loaded as the engine loads it; nothing is batched or shared between prompts."""

    def __init__(self, base: LoadedBase) -> None:
        self._base = base

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        return self._base.info

    def count(self, text: str) -> int:
        return len(self._base.encode(text))

    def clip(self, text: str, num_tokens: int) -> str:
        return self._base.encoder.clip(text, num_tokens)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """One after the other."""
        answers = []
        for position, request in enumerate(requests):
            answers.append(self._answer(request))
            if on_completion is not None:
                on_completion(position, answers[-1])
        return answers

    @torch.inference_mode()
    def _answer(self, request: GenerationRequest) -> Completion:
        started = time.perf_counter()
        prompt = torch.tensor([self._base.encode(request.prompt)], device=self._base.device)
        torch.manual_seed(request.seed)
        stops = _StopTexts(self._base.tokenizer, request.stop, prompt.shape[1])
        sampling: dict[str, Any] = {"do_sample": False}
        if request.temperature > 0:
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=request.max_new_tokens,
            eos_token_id=sorted(self._base.eos_ids),
            pad_token_id=self._base.eos_id,
            **sampling,
        )
        out = self._base.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([stops]),
        )
        tokens = out[0, prompt.shape[1] :].tolist()
        text, is_cut = stops.cut(tokens)
        is_ended = is_cut or (tokens and tokens[-1] in self._base.eos_ids)
        return Completion(
            text,
            "stop" if is_ended else "length",
            prompt.shape[1],
            len(tokens),
            None,
            seconds=time.perf_counter() - started,
        )


class _StopTexts(StoppingCriteria):
    """Ends an answer once one of the stop texts stands in it."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], num_prompt: int) -> None:
        self._tokenizer, self._stop, self._num_prompt = tokenizer, stop, num_prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **more: Any) -> torch.Tensor:
        _, is_cut = self.cut(input_ids[0, self._num_prompt :].tolist())
        return torch.tensor([is_cut], device=input_ids.device)

    def cut(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """The text up to the first stop text, and whether there is one."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        ends = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return (text[: min(ends)], True) if ends else (text, False)
