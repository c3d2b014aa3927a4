"""A tiny base that reads more than the others do, and random adapters of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app.engine.engine import TorchEngine
from tests.engine.conftest import one_thread
from tests.engine.tiny import make_model, write_adapter, write_base
from tests.limits.house import CONTEXT, open_engine

__all__ = ["one_thread"]

Start = Callable[..., TorchEngine]


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("limits"), max_position_embeddings=CONTEXT)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twelve that disagree, by name."""
    root, model = tmp_path_factory.mktemp("adapters"), make_model("llama")
    return {f"a{seed}": write_adapter(model, root / f"a{seed}", seed=seed, r=2, scale=0.4) for seed in range(1, 13)}


@pytest.fixture
def start(base_folder: Path) -> Iterator[Start]:
    """Starts engines on the base, and closes them."""
    with ExitStack() as stack:
        yield lambda **sizes: stack.enter_context(closing(open_engine(base_folder, **sizes)))
