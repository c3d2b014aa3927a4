"""Figures of a run → the table of docs/reliability.md. Nothing between its two marks is written by hand."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.plan import Act
from tests.chaos.run import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->\n", "<!-- chaos: end -->\n"
ACTS = {
    Act.KILL_CHILD: "`kill -9` of a job's process",
    Act.KILL_WORKER: "`kill -9` of a worker",
    Act.KILL_API: "`kill -9` of the API",
    Act.FLUSH: "broker emptied",
    Act.CUT: "all database connections cut",
    Act.DOUBLE: "bursts of doubled messages",
    Act.FREEZE: "worker stopped for longer than its lease",
}


def write_page(outcomes: Sequence[Outcome], *, seed: int, page: Path = PAGE) -> None:
    """Put the figures into the page; what stands around them stays."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + table(outcomes, seed=seed) + END + after, encoding="utf-8")


def table(outcomes: Sequence[Outcome], *, seed: int) -> str:
    """A column a stack."""
    rows: list[tuple[str, Sequence[object]]] = [
        ("", [outcome.stack for outcome in outcomes]),
        ("---", ["---:"] * len(outcomes)),
        ("jobs", [sum(outcome.jobs.values()) for outcome in outcomes]),
        *((f"… {status}", [o.jobs[status] for o in outcomes]) for status in ("succeeded", "cancelled", "failed")),
        *((told, [outcome.acts[act] for outcome in outcomes]) for act, told in ACTS.items()),
        ("stopped workers that woke without their lease", [o.acts["woken_without_lease"] for o in outcomes]),
        ("lost leases taken over", [outcome.takeovers for outcome in outcomes]),
        ("most attempts of one job", [outcome.attempts for outcome in outcomes]),
        ("rows compared with an undisturbed run", [outcome.rows for outcome in outcomes]),
        ("adapters that answered", [outcome.adapters for outcome in outcomes]),
        ("faults", [len(outcome.faults) for outcome in outcomes]),
        ("seconds", [round(outcome.seconds) for outcome in outcomes]),
    ]
    machine = f"Seed {seed}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}."
    return "\n".join([*(_row(name, cells) for name, cells in rows), "", machine]) + "\n"


def _row(name: str, cells: Iterable[object]) -> str:
    return f"| {name} | {' | '.join(str(cell) for cell in cells)} |"
