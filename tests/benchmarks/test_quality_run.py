"""The quality benchmark as a person runs it, on the fake engine: real processes, real HTTP, made-up data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.model  # starts real processes

PLAN = """
base = "fake-base"
items_per_task = 3
seeds_per_task = { finance = 4 }
is_published = true
settings = { engine = "fake", drain_s = "1" }
recipe = { preset = "quick", num_examples = 6, max_prompts = 64, min_yield = 0.0, evaluation_shots = [0, 1] }

[[runs]]
name = "first"
domain = "finance"

[[runs]]
name = "second"
domain = "finance"
recipe = { seed = 7 }
"""


@dataclass(frozen=True)
class Desk:
    """A folder with data, a plan, and room for what is made."""

    folder: Path

    def command(self, *more: str) -> list[str]:
        places = {"--config": "plan.toml", "--data": "data", "--folder": "made", "--docs": "docs"}
        chosen = [part for name, place in places.items() for part in (name, str(self.folder / place))]
        return [sys.executable, "-m", "benchmarks.quality", *chosen, *more]

    def call(self, *more: str) -> tuple[int, str, dict[str, Any]]:
        """Exit code, what was printed, and the last line."""
        done = subprocess.run(self.command(*more), capture_output=True, text=True, timeout=120)
        last = done.stdout.splitlines()[-1:]
        assert not done.returncode or last == [] or last[0].startswith("{"), done.stderr
        return done.returncode, done.stdout + done.stderr, json.loads(last[0]) if last else {}

    def results(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "made" / "fake-base-plan" / "results.json").read_text())
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    for task in ("tone", "sense"):
        for kind, number in (("train", 8), ("test", 5)):
            rows = [
                {"task": task, "instruction": f"Is the {task} good?", "input": f"{kind} firm {n}", "output": "good"}
                for n in range(number)
            ]
            path = tmp_path / "data" / "finance" / task / f"{kind}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "plan.toml").write_text(PLAN)
    return Desk(tmp_path)


def kill_at(desk: Desk, text: str) -> None:
    """Start a call and kill it without warning once it prints this; return when nothing of it is left."""
    with subprocess.Popen(desk.command(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(text in line for line in process.stdout)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive


def test_a_call_goes_on_where_the_last_one_was_ended(desk: Desk) -> None:
    code, shown, last = desk.call("--minutes", "0.0001")
    assert (code, last["left"]) == (0, ["first", "second"])
    assert "the minutes are over" in shown

    kill_at(desk, "first: job ")
    code, shown, last = desk.call()
    assert (code, last["left"], last["faults"]) == (0, [], []), shown
    assert {name: run["status"] for name, run in last["runs"].items()} == {"first": "succeeded", "second": "succeeded"}
    jobs = [row["job"] for row in desk.results()]
    assert len(set(jobs)) == 2
    assert json.loads((desk.folder / "docs" / "results" / "fake-base-plan.json").read_text()) == desk.results()

    page = (desk.folder / "docs" / "results.md").read_text()
    assert "| **mean** | **6** | **0** |" in page
    code, shown, last = desk.call("--runs", "second")
    assert (code, list(last["runs"])) == (0, ["second"])
    assert [row["job"] for row in desk.results()] == jobs
    assert (desk.folder / "docs" / "results.md").read_text() == page


def test_a_run_that_the_service_refuses_or_fails_is_told_and_the_next_is_made(desk: Desk) -> None:
    unservable = '[[runs]]\nrecipe = { lora_rank = 256 }\nname = "first"'
    (desk.folder / "plan.toml").write_text(PLAN.replace('[[runs]]\nname = "first"', unservable))
    code, _, last = desk.call()
    assert code == 1
    assert last["left"] == ["first"]
    assert "SELFSPEC_MAX_LORA_RANK" in last["faults"][0]
    assert last["runs"]["second"]["status"] == "succeeded"


def test_what_cannot_be_run_is_told_before_anything_starts(desk: Desk) -> None:
    code, shown, _ = desk.call("--runs", "third")
    assert (code, "there are: first, second" in shown) == (1, True)
    assert not (desk.folder / "made").exists()
