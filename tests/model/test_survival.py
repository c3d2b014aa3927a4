"""The real engine in a job's real process, killed again and again: it ends as if nothing had happened, to the byte.

The kills are tied to what the job has written, never to the clock.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.bootstrap import Stores, build_stores, now
from app.core.states import JobStatus
from app.pipeline.answering import ANSWERS
from app.pipeline.instructions import REPLIES
from app.settings import Settings
from tests.services.house import House
from tests.worker.test_supervise import children, supervise

pytestmark = pytest.mark.model

RECIPE: dict[str, Any] = {
    "num_examples": 48,
    "max_prompts": 64,
    "instruction_max_new_tokens": 24,
    "response_max_new_tokens": 6,
    "evaluation_max_new_tokens": 4,
    "min_yield": 0,
    "min_words": 1,
    "novelty_threshold": 1.0,
    "batch_size": 4,
    "epochs": 1,
    "max_length": 256,
    "checkpoint_steps": 2,
    "controls": (),
    "off_domain_items": 0,
    "promotion": "always",
}


AFTER_RESPONSES = ("dataset", "adapter")  # the one wave may have gone by between two looks


@pytest.fixture
def environment(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], House]:
    """Makes a house of a name, and leads every child process there from then on."""
    values = {"ENGINE": "real", "BASE": base_folder.name, "DTYPE": "float32", "HEARTBEAT_SECONDS": "0.05"}

    def enter(name: str) -> House:
        folder = tmp_path / name
        (folder / "models").mkdir(parents=True)
        (folder / "models" / base_folder.name).symlink_to(base_folder.absolute(), target_is_directory=True)
        for key, value in {**values, "DATA_DIR": str(folder)}.items():
            monkeypatch.setenv(f"SELFSPEC_{key}", value)
        return House(folder, base=base_folder.name)

    return enter


@pytest.fixture
def stores() -> Iterator[Callable[[], Stores]]:
    """Opens what the environment names."""
    opened: list[Stores] = []

    def build() -> Stores:
        opened.append(build_stores(Settings()))
        return opened[-1]

    yield build
    for each in opened:
        with closing(each):
            pass


class Kills:
    """A clock that kills the job's process whenever the next of these things has come about."""

    def __init__(self, job_id: str, moments: list[Callable[[], bool]]) -> None:
        self._job_id, self._moments, self.num_done = job_id, moments, 0

    def __call__(self) -> datetime:
        if self.num_done < len(self._moments) and self._moments[self.num_done]():
            for child in children(self._job_id):
                os.kill(child.pid, signal.SIGKILL)
                self.num_done += 1
        return now()


def lines_in(house: House, job_id: str, stage: str, file: str) -> int:
    """Whole rows that a stage at work has written."""
    drafts = (house.artifacts.root / "tmp" / job_id).glob(f"attempt-*/{stage}/{file}")
    return sum(path.read_bytes().count(b"\n") for path in drafts)


def has_checkpoint(house: House, job_id: str, stage: str) -> bool:
    drafts = (house.artifacts.root / "tmp" / job_id).glob(f"attempt-*/{stage}.checkpoints/*")
    return any(path.is_file() for path in drafts)


def test_a_job_killed_in_every_stage_ends_as_one_that_ran_through(
    environment: Callable[[str], House], stores: Callable[[], Stores]
) -> None:
    calm = environment("calm")
    calm_id = calm.order(**RECIPE)
    supervise(stores(), calm_id)
    assert calm.job(calm_id).status is JobStatus.SUCCEEDED, calm.job(calm_id).error_message

    house = environment("killed")
    job_id = house.order(**RECIPE)
    kills = Kills(
        job_id,
        [
            lambda: lines_in(house, job_id, "instructions", REPLIES) >= 32,
            lambda: lines_in(house, job_id, "responses", ANSWERS) > 0 or house.job(job_id).stage in AFTER_RESPONSES,
            lambda: has_checkpoint(house, job_id, "adapter"),
            lambda: house.job(job_id).stage == "metrics",
        ],
    )
    opened = stores()
    for _ in range(8):
        if house.job(job_id).status.is_final:
            break
        supervise(opened, job_id, clock=kills)
    assert kills.num_done == 4
    assert house.job(job_id).status is JobStatus.SUCCEEDED, house.job(job_id).error_message
    assert house.digests(job_id) == calm.digests(calm_id)
    assert house.drafts(job_id) == []
