"""The fake engine: the same ports as the real one, no torch, no weights, answers in microseconds.

Deterministic: an answer is a function of prompt, adapter and seed. It writes numbered items when a prompt asks for
them and short answers otherwise, "learns" an adapter as a real PEFT-shaped folder whose content depends on the rows,
and refuses what the real engine refuses. It judges nothing about quality.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from app.core.errors import AdapterRefused, InvalidInput, NotFound, NotReady, Problem
from app.core.recipe import Recipe
from app.core.records import (
    COUNTERS,
    Attachment,
    BaseInfo,
    Completion,
    EngineState,
    ExpertLoad,
    GenerationRequest,
    Piece,
    TrainingReport,
    TrainingRow,
    TrainingStep,
)
from app.engine.slot_table import SlotTable

_WORDS = [
    "margin",
    "revenue",
    "guidance",
    "quarter",
    "dividend",
    "forecast",
    "shares",
    "profit",
    "outlook",
    "cash",
    "debt",
    "growth",
    "board",
    "bond",
    "yield",
    "audit",
    "merger",
    "index",
    "fund",
    "loan",
    "credit",
    "asset",
    "tax",
    "lease",
    "capital",
    "order",
    "market",
    "price",
    "cost",
    "demand",
    "supply",
    "region",
    "product",
]


class FakeEngine:
    """Implements ``app.core.ports.Engine``."""

    def __init__(self, *, slots: int = 8, base_name: str = "fake-base", loaded: bool = True) -> None:
        self._slots, self._num_slots = SlotTable(slots), slots
        self._attached: dict[str, Attachment] = {}
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._base = BaseInfo(
            name=base_name,
            fingerprint=hashlib.sha256(base_name.encode()).hexdigest()[:16],
            quantization="none",
            dtype="float32",
            device="cpu",
            context_tokens=8192,
            num_parameters=1000,
        )
        self._loaded = loaded

    @property
    def base(self) -> BaseInfo | None:
        return self._base if self._loaded else None

    def wait_ready(self, timeout_seconds: float | None = None) -> BaseInfo:
        if not self._loaded:
            raise NotReady("the base is still loading")
        return self._base

    def count(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def clip(self, text: str, num_tokens: int) -> str:
        ends = [match.end() for match in re.finditer(r"\w+|[^\w\s]", text)]
        return text if len(ends) <= num_tokens else text[: ends[num_tokens - 1] if num_tokens > 0 else 0]

    def submit(
        self, request: GenerationRequest, *, on_piece: Callable[[Piece], None] | None = None
    ) -> Future[Completion]:
        future: Future[Completion] = Future()
        try:
            completion = self._answer(request)
            if on_piece is not None:
                for word in re.findall(r"\s*\S+\s*?", completion.text):
                    on_piece(Piece(word, 1))
            future.set_result(completion)
        except Exception as error:
            future.set_exception(error)
        return future

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        on_completion: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        answers = []
        for position, request in enumerate(requests):
            answers.append(self.submit(request).result())
            if on_completion is not None:
                on_completion(position, answers[-1])
        return answers

    def attach(self, adapter: str, folder: Path, *, pin: bool = False) -> Attachment:
        self.wait_ready()
        if adapter in self._attached:
            self._slots.use(adapter)
            return self._attached[adapter]
        config = _read_config(folder)
        if (made_on := config.get("base_model_name_or_path")) != self._base.name:
            raise AdapterRefused(f"adapter {adapter} was made on {made_on}", param="adapter")
        slot, evicted = self._slots.take(adapter)
        if evicted is not None:
            del self._attached[evicted]
            self._counts["evictions"] += 1
        self._attached[adapter] = Attachment(
            adapter=adapter, slot=slot, num_modules=1, rank=config.get("r", 8), num_bytes=64, probe_distance=0.5
        )
        self._counts["attachments"] += 1
        return self._attached[adapter]

    def detach(self, adapter: str) -> None:
        if self._attached.pop(adapter, None) is not None:
            self._slots.release(adapter)

    def attachments(self) -> list[Attachment]:
        return list(self._attached.values())

    def train(
        self,
        rows: Sequence[TrainingRow],
        *,
        recipe: Recipe,
        folder: Path,
        on_step: Callable[[TrainingStep], None],
    ) -> TrainingReport:
        num_steps = max(1, recipe.epochs * -(-len(rows) // recipe.batch_size))
        tokens = sum(self.count(row.prompt) + self.count(row.target) for row in rows) * recipe.epochs
        for step in range(1, num_steps + 1):
            share = step / num_steps
            on_step(
                TrainingStep(step, num_steps, recipe.epochs * share, 2.0 - share, recipe.learning_rate, tokens, 0.0)
            )
        seed = hashlib.sha256(repr((recipe.seed, [(row.prompt, row.target) for row in rows])).encode()).digest()
        write_fake_adapter(folder, base_name=self._base.name, rank=recipe.lora_rank, weights=seed)
        return TrainingReport(num_steps, len(rows), 0, tokens, 0.0, 2.0, 1.0, num_parameters=64, num_modules=1)

    def stats(self) -> Mapping[str, int | float]:
        return dict(self._counts)

    def state(self) -> EngineState:
        self.wait_ready()
        experts = tuple(ExpertLoad(a.adapter, a.slot, a.num_bytes, False, 0, 0) for a in self._attached.values())
        return EngineState(self._num_slots, 1, 0, 0, 64, 64 * len(experts), 0, 0, 0, 0, 0, experts)

    def close(self) -> None:
        self._loaded = False

    def _answer(self, request: GenerationRequest) -> Completion:
        if not self._loaded:
            raise NotReady("the base is still loading")
        if request.adapter is not None and self._slots.use(request.adapter) is None:
            raise NotFound(f"adapter {request.adapter} is not attached", param="adapter")
        if self.count(request.prompt) + request.max_new_tokens > self._base.context_tokens:
            reason = f"the prompt and {request.max_new_tokens} tokens more; the base reads {self._base.context_tokens}"
            raise InvalidInput([Problem("input", reason)])
        text, finish_reason = _write(request)
        self._counts["requests"] += 1
        self._counts["batches"] += 1
        self._counts["prompt_tokens"] += self.count(request.prompt)
        self._counts["generated_tokens"] += self.count(text)
        return Completion(text, finish_reason, self.count(request.prompt), self.count(text), request.adapter)


def write_fake_adapter(folder: Path, *, base_name: str, rank: int = 8, weights: bytes = b"\0" * 32) -> None:
    """A folder of PEFT's shape: adapter_config.json and a well-formed safetensors file of one small tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base_name, "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["linear"]}))
    entry = {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}
    header = json.dumps({"base_model.model.linear.lora_A.weight": entry}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "adapter_config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterRefused(f"{folder.name} is not a PEFT adapter folder: {error}", param="adapter") from error


def _write(request: GenerationRequest) -> tuple[str, str]:
    """An answer and its finish reason; ends at the first stop text like the real engine."""
    key = f"{request.prompt}|{request.adapter}|{request.seed if request.temperature > 0 else 0}"
    chance = random.Random(key)

    def phrase(length: int) -> str:
        return " ".join(chance.choice(_WORDS) for _ in range(length))

    item = re.search(r"(\d+)\. Instruction:\s*$", request.prompt)
    if item is None:
        text = phrase(chance.randint(3, 12))
    else:
        first = int(item.group(1))
        text = f" {phrase(8)}?\n{first}. Input: {phrase(14)}\n"
        for number in range(first + 1, first + 4):
            text += f"{number}. Instruction: {phrase(8)}?\n{number}. Input: {phrase(14)}\n"
    cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=len(text))
    words = text[:cut].split(" ")
    if len(words) > request.max_new_tokens:
        return " ".join(words[: request.max_new_tokens]), "length"
    return text[:cut], "stop"
