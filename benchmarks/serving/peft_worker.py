"""The process behind ``engines/peft.py``: a base with its adapters, asked over a local port one JSON at a time.

GET: ready. POST ``{"rows": [[adapter or null, prompt, new tokens], …], "size": rows a batch}``: when each token came.
Size 1 switches with ``set_adapter``; more makes static batches with ``adapter_names``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, StoppingCriteria, StoppingCriteriaList

Row = tuple[str | None, str, int]


class Clock(StoppingCriteria):
    """Notes when each token came; stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Worker:
    """The model; the adapters are called by their folders' names."""

    def __init__(self, model: Path, adapters: Sequence[Path], *, dtype: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self._model = PeftModel.from_pretrained(base, adapters[0], adapter_name=adapters[0].name)
        for folder in adapters[1:]:
            self._model.load_adapter(folder, adapter_name=folder.name)
        self._model.eval()
        base.generation_config.eos_token_id = None  # what a call leaves out is taken from here: it would end early

    def answer(self, rows: Sequence[Row], *, size: int) -> list[dict[str, Any]]:
        """All rows, ``size`` at once, in their order."""
        batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        return [found for batch in batches for found in (self._batch(batch) if size > 1 else self._one(*batch[0]))]

    def _one(self, adapter: str | None, prompt: str, num_new: int) -> list[dict[str, Any]]:
        started = time.perf_counter()
        if adapter is None:
            with self._model.disable_adapter():
                return self._generate([(None, prompt, num_new)], started=started)
        self._model.set_adapter(adapter)
        return self._generate([(adapter, prompt, num_new)], started=started)

    def _batch(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        names = [adapter or "__base__" for adapter, _, _ in rows]
        return self._generate(rows, started=time.perf_counter(), adapter_names=names)

    @torch.inference_mode()
    def _generate(self, rows: Sequence[Row], *, started: float, **more: Any) -> list[dict[str, Any]]:
        """A row's answer ends where it asked for; the batch goes on until the longest has."""
        prompts = self._tokenizer([prompt for _, prompt, _ in rows], return_tensors="pt", padding=True)
        num_new = max(wanted for _, _, wanted in rows)
        clock = Clock()
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=num_new, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        stops = StoppingCriteriaList([clock])
        out = self._model.generate(  # type: ignore[no-untyped-call]
            **prompts, generation_config=config, stopping_criteria=stops, **more
        )
        new = out[:, prompts.input_ids.shape[1] :]
        return [
            {
                "started": started,
                "times": clock.times[:wanted],
                "text": self._tokenizer.decode(tokens[:wanted], skip_special_tokens=True),
                "prompt_tokens": int(mask.sum()),
            }
            for (_, _, wanted), tokens, mask in zip(rows, new, prompts.attention_mask, strict=True)
        ]


def serve(worker: Worker, *, port: int) -> None:
    """Until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send([])

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(worker.answer(asked["rows"], size=asked["size"]))

        def _send(self, answer: Any) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def main(port: str, dtype: str, threads: str, model: str, *adapters: str) -> None:
    """As ``engines/peft.py`` calls it."""
    torch.set_num_threads(int(threads))
    serve(Worker(Path(model), [Path(folder) for folder in adapters], dtype=dtype), port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
