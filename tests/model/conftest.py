"""The default base, fetched once into the data folder (``SELFSPEC_DATA_DIR``, default ``./var``) and kept there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.bootstrap import pull_base
from app.core.cores import num_cores
from app.engine.base import BaseOptions
from app.engine.engine import EngineSizes, TorchEngine
from app.settings import Settings


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """Weights and tokenizer of the default base, whatever else is set."""
    usual = Settings.model_fields["base"].default
    return pull_base(Settings(base=usual))


@pytest.fixture(scope="package")
def engine(base_folder: Path) -> Iterator[TorchEngine]:
    """One engine for all tests, in float32: there a batch and a row alone agree to the last token that matters."""
    options = BaseOptions(
        name=base_folder.name,
        hub_id=base_folder.name,
        quantization="none",
        dtype="float32",
        device="cpu",
        threads=num_cores(),
    )
    engine = TorchEngine(options, lambda: base_folder, EngineSizes(num_slots=2, max_rank=8, max_batch=16))
    engine.wait_ready()
    yield engine
    engine.close()
