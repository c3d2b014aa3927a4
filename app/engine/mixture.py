"""One answer from several prompts at once (paper App. D): each prompt is a row, and all rows take the same next token.

The next token is the argmax of Σ_z w_z p(t | prompt_z, answer so far). In "sequence" mode w_z grows with what the
answer's tokens were worth after prompt z (Bayes' rule), so that the steps multiply to Σ_z w_z p(answer | prompt_z).
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from itertools import groupby

import torch
from torch import Tensor

from app.core.errors import SelfspecError
from app.core.records import GenerationRequest, MixtureCompletion, MixtureRequest
from app.engine.bands import Band
from app.engine.base import LoadedBase
from app.engine.passes import Passes
from app.engine.request_checks import check_fits, check_mixture
from app.engine.sequences import Sequence


class Mixture:
    """One request on its way. The first of its rows, ``lead``, writes the answer; the others follow."""

    def __init__(self, passes: Passes, request: MixtureRequest) -> None:
        """Raises InvalidInput for one that means nothing, cannot be read or does not fit the base."""
        check_mixture(request)
        self.request = request
        asked = GenerationRequest("", request.adapter, max_new_tokens=request.max_new_tokens, stop=request.stop)
        self.rows = [passes.greedy(asked, _read(passes.base, prompt, request)) for prompt in request.prompts]
        self.lead = self.rows[0]
        self.log_weights = torch.tensor(request.weights, dtype=torch.float64, device=passes.base.device).log()
        self.log_probability = 0.0

    @property
    def most_tokens(self) -> int:
        """Of its longest row, as long as it can get."""
        return max(row.most_tokens for row in self.rows)

    def accept(self, logits: Tensor) -> None:
        """logits [prompts, vocabulary] → one token more for every row. Raises SelfspecError if they are no numbers."""
        told = torch.log_softmax(logits.float(), dim=-1)
        mixed = (told + self.log_weights[:, None].float()).logsumexp(dim=0)  # [vocabulary]
        best, token = mixed.max(dim=0)
        if not math.isfinite(best):
            raise SelfspecError(f"{self.request.adapter or 'the base'} computed no numbers for these prompts")
        joint = self.log_weights + told[:, token].double()
        before = len(self.lead.token_ids)
        self.lead.accept(int(token))
        if len(self.lead.token_ids) > before:  # it was not the end of sequence
            self._take(int(token), joint)

    def completion(self) -> MixtureCompletion:
        """The answer, once it has ended."""
        answer = self.lead.future.result()
        weights = tuple(self.log_weights.exp().tolist())
        return MixtureCompletion(
            answer.text, answer.finish_reason, answer.completion_tokens, answer.adapter, self.log_probability, weights
        )

    def _take(self, token: int, joint: Tensor) -> None:
        """``joint`` [prompts]: log w_z p(token | prompt_z, answer before it)."""
        gained = joint.logsumexp(dim=0)
        self.log_probability += float(gained)
        if self.request.mode == "sequence":
            self.log_weights = joint - gained
        for row in self.rows[1:]:
            row.token_ids.append(token)


def _read(base: LoadedBase, prompt: str, request: MixtureRequest) -> list[int]:
    ids, most = base.encode(prompt), base.info.context_tokens
    check_fits("prompts", num_tokens=len(ids), num_new=request.max_new_tokens, context_tokens=most)
    return ids


def generate_mixtures(passes: Passes, requests: Many[MixtureRequest]) -> list[MixtureCompletion]:
    """One answer a request, in order; several requests are decoded side by side."""
    mixtures = [Mixture(passes, request) for request in requests]
    ordered = sorted(mixtures, key=lambda mixture: (mixture.request.adapter or "", mixture.most_tokens))
    for adapter, of_adapter in groupby(ordered, key=lambda mixture: mixture.request.adapter):
        _Decoder(passes, adapter, list(of_adapter)).decode()
    return [mixture.completion() for mixture in mixtures]


class _Decoder:
    """The mixtures of one adapter: as many rows at once as may be, and others as these end."""

    def __init__(self, passes: Passes, adapter: str | None, waiting: list[Mixture]) -> None:
        self._passes, self._adapter, self._waiting = passes, adapter, waiting
        self._running: list[Mixture] = []
        self._band = Band(passes.layout, passes.base.info.context_tokens)

    def decode(self) -> None:
        while self._waiting or self._running:
            if admitted := self._admit():
                self._start(admitted)
            else:
                self._passes.run(self._adapter, self._step)

    def _admit(self) -> list[Mixture]:
        """Those that there is room for beside those that run."""
        admitted: list[Mixture] = []
        while self._waiting:
            together = [*self._running, *admitted, self._waiting[0]]
            num_rows, width = sum(len(each.rows) for each in together), max(each.most_tokens for each in together)
            if len(together) > 1 and not self._passes.holds(num_rows, width):
                break
            admitted.append(self._waiting.pop(0))
        return admitted

    def _start(self, admitted: list[Mixture]) -> None:
        """Compute their prompts and their first tokens."""
        rows = [row for mixture in admitted for row in mixture.rows]
        work, logits = self._passes.prefill(self._adapter, rows)

        def join(slot: int) -> None:
            self._accept(admitted, rows, logits)
            for number, row in enumerate(rows):
                self._band.join(row, work.rectangle, number, work.lengths[number])
            self._running += admitted
            self._end(slot)

        self._passes.run(self._adapter, join)

    def _step(self, slot: int) -> None:
        """One token more for each that runs."""
        rows = list(self._band.sequences)
        for row in rows:
            row.slot = slot
        self._accept(self._running, rows, self._passes.forward.decode(self._band))
        self._end(slot)

    def _accept(self, mixtures: list[Mixture], rows: list[Sequence], logits: Tensor) -> None:
        """logits [rows, vocabulary], in the order of ``rows``."""
        number_of = {row: number for number, row in enumerate(rows)}
        for mixture in mixtures:
            mixture.accept(logits[[number_of[row] for row in mixture.rows]])

    def _end(self, slot: int) -> None:
        """Those that have ended leave."""
        for mixture in [mixture for mixture in self._running if mixture.lead.finish_reason is not None]:
            self._running.remove(mixture)
            for row in mixture.rows:
                self._band.leave(row)
            mixture.lead.end(self._passes.adapter_in(slot))
