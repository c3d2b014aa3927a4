"""What the demo shows of a job's stages and figures."""

from __future__ import annotations

import io

from rich.console import Console

from app.demo.client import Job, Metric, Stage
from app.demo.view import Bars, Lines, metrics_table, stage_view


def console(*, is_terminal: bool = False) -> Console:
    """A console that keeps what is printed."""
    return Console(file=io.StringIO(), width=80, force_terminal=is_terminal)


def printed(shown: Console) -> str:
    """What it has kept."""
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def job(*stages: Stage) -> Job:
    """A running job."""
    return Job("job-1", "running", stages, None, None, 1)


PENDING = Stage("responses", "pending", 0, None, None, None)
RUNNING = Stage("responses", "running", 3, 10, 1.5, 3.5)
DONE = Stage("responses", "succeeded", 10, 10, 5.0, None)


def test_without_a_terminal_a_stage_gets_a_line_when_it_begins_and_when_it_ends() -> None:
    shown = console()
    with Lines(shown) as view:
        for stage in (PENDING, RUNNING, RUNNING, DONE, DONE):
            view.show(job(stage))
    lines = [" ".join(line.split()) for line in printed(shown).splitlines()]
    assert lines == ["responses running 3/10 4 s left", "responses succeeded 10/10 5.0 s"]


def test_on_a_terminal_every_stage_has_a_bar() -> None:
    shown = console(is_terminal=True)
    with Bars(shown) as view:
        view.show(job(RUNNING, Stage("dataset", "pending", 0, None, None, None)))
        view.show(job(DONE, Stage("dataset", "running", 0, None, 0.1, None)))
    last = printed(shown)[-400:]
    assert "responses" in last
    assert "10/10" in last
    assert "dataset" in last


def test_the_console_decides() -> None:
    assert isinstance(stage_view(console(is_terminal=True)), Bars)
    assert isinstance(stage_view(console()), Lines)


def test_the_table_fits_eighty_columns_and_ends_with_the_mean() -> None:
    rows = [
        Metric("conversational_table_qa", "f1", 12, "base_template", 0, 1.0, 43.25, 42.25, 30.0, 50.0),
        Metric("mean", "f1", 120, "base_template", 0, 5.0, 40.0, 35.0, 31.0, 39.5),
    ]
    shown = console()
    shown.print(metrics_table(rows, title="Token F1"))
    lines = printed(shown).splitlines()
    assert any("conversational_table_qa" in line and "+42.2" in line and "+30.0 … +50.0" in line for line in lines)
    assert "mean" in lines[-2]
