"""What a run showed, as figures only: no text of the data is in it. Kept as JSON, from which the report is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app import __version__
from app.core.cores import num_cores
from app.core.presets import make_recipe
from app.services.machine import processor


@dataclass(frozen=True, slots=True)
class Score:
    """The expert beside one other line; as GET /jobs/{id}/metrics tells it."""

    task: str
    metric: str
    n: int
    against: str
    shots: int
    score: float
    expert: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StageFigures:
    """One stage: its seconds, and the numbers it told."""

    stage: str
    status: str
    seconds: float | None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int | None:
        """Written by the model in it, or read by its training."""
        found = self.figures.get("tokens")
        return found if isinstance(found, int) else None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran."""

    processor: str
    cores: int
    accelerator: str | None
    torch: str


@dataclass(frozen=True, slots=True)
class Result:
    """One run that has ended. ``taken``: by task, what was drawn."""

    name: str
    plan: str
    domain: str
    base: str
    base_loaded: str
    job: str
    status: str
    error: str | None
    evaluation: str
    seed: int
    taken: dict[str, dict[str, int]]
    preset: str
    recipe: dict[str, Any]
    attempts: int
    stages: tuple[StageFigures, ...]
    scores: tuple[Score, ...]
    chosen: str | None  # the stage of the adapter that is the expert, where the job chose
    decision: str | None
    reason: str | None
    warnings: tuple[str, ...]
    machine: Machine
    version: str
    commit: str | None
    more: dict[str, Any] = field(default_factory=dict)  # what else the metrics endpoint told

    @property
    def tasks(self) -> list[str]:
        return list(self.taken)

    @property
    def shots(self) -> list[int]:
        return sorted({score.shots for score in self.scores})

    @property
    def changed(self) -> dict[str, Any]:
        """Knobs that differ from the preset as it is now, whatever it was then."""
        preset, knobs = make_recipe({"preset": self.preset}), {**make_recipe().model_dump(mode="json"), **self.recipe}
        now = preset.model_dump(mode="json")
        return {name: knobs[name] for name in now if knobs[name] != now[name] and name != "corpus"}

    def find(self, task: str, metric: str, against: str, shots: int) -> Score | None:
        """One comparison."""
        for score in self.scores:
            if (score.task, score.metric, score.against, score.shots) == (task, metric, against, shots):
                return score
        return None

    def value(self, task: str, metric: str, line: str, shots: int) -> float | None:
        """What a line scored, the expert among them."""
        if line != "expert":
            found = self.find(task, metric, line, shots)
            return None if found is None else found.score
        mine = [s.expert for s in self.scores if (s.task, s.metric, s.shots) == (task, metric, shots)]
        return mine[0] if mine else None


def save(results: Sequence[Result], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    rows = ",\n".join(json.dumps(asdict(result), ensure_ascii=False) for result in results)
    draft.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    draft.replace(path)


def load(paths: Iterable[Path]) -> list[Result]:
    """The results of several files, in their order."""
    return [_result(row) for path in paths if path.is_file() for row in json.loads(path.read_text(encoding="utf-8"))]


def merge(results: Sequence[Result], new: Result, *, order: Sequence[str]) -> list[Result]:
    """``new`` in place of an earlier result of the same run, in the order of the plan's runs."""
    kept = {**{result.name: result for result in results}, new.name: new}
    return sorted(kept.values(), key=lambda result: order.index(result.name) if result.name in order else len(order))


def this_machine() -> Machine:
    """The processor, the cores this process may use, the accelerator if there is one."""
    return Machine(processor(), num_cores(), _accelerator(), version("torch"))


def numbers_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers in what an event or a stage tells, one level deep: texts may quote the data."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, int | float):
            found[key] = value
        elif isinstance(value, dict) and value and all(isinstance(each, int | float) for each in value.values()):
            found[key] = dict(value)
    return found


def this_version() -> tuple[str, str | None]:
    """Of the program, and of its sources if they are under Git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True) if shutil.which("git") else None
    return __version__, (done.stdout.strip() or None) if done else None


def _accelerator() -> str | None:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or shutil.which("nvidia-smi") is None:
        return None
    done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return next(iter(done.stdout.splitlines()), None) if done.returncode == 0 else None


def _result(row: dict[str, Any]) -> Result:
    made = {
        "stages": tuple(StageFigures(**stage) for stage in row["stages"]),
        "scores": tuple(Score(**score) for score in row["scores"]),
        "machine": Machine(**row["machine"]),
        "warnings": tuple(row["warnings"]),
    }
    return Result(**{**row, **made})
