"""The service with the fake engine, as a benchmark's target, and words for its prompts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from app.engine.fake import write_fake_adapter
from benchmarks.serving.engines.selfspec import completion
from benchmarks.serving.load import Address
from benchmarks.serving.target import HttpTarget
from benchmarks.serving.workload import MIXES, Words
from tests.api.live import serve

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")
KEY = "a-key-for-tests"
BASE = "fake-base"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base's folder with a tokenizer that knows six words."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {f"Ġ{word}": number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def words(model: Path) -> Words:
    return Words(model)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpTarget]:
    """The service, with four experts loaded."""
    roots = tmp_path_factory.mktemp("adapters")
    data = tmp_path_factory.mktemp("data")
    with serve(data, admin_key=KEY, adapter_roots=str(roots)) as service:
        for name in MIXES["mixed"]:
            write_fake_adapter(roots / name, base_name=BASE, weights=name.encode())
            load = {"lora_name": name, "lora_path": str(roots / name)}
            answer = service.http.post("/v1/load_lora_adapter", json=load, headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code == 200, answer.text
        url = httpx.URL(service.url)
        assert url.port is not None
        yield HttpTarget(
            "selfspec",
            psutil.Process(),
            Address(url.host, url.port),
            tuple(MIXES),
            partial(completion, base=BASE),
            is_asked_drawn=True,
        )
