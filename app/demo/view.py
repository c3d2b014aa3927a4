"""What the demo shows: one bar a stage while a job runs, plain lines where there is no terminal, and the tables.

Knows nothing of HTTP or processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from app.demo.client import Job, Metric, Stage

LINE_SECONDS = 10.0  # without a terminal: how often a running stage gets a line


class StageView(Protocol):
    """Shows a job as it goes on; a context."""

    def __enter__(self) -> Self: ...

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None: ...

    def show(self, job: Job) -> None:
        """The job as it is now."""


def stage_view(console: Console) -> StageView:
    """Bars on a terminal, lines elsewhere."""
    return Bars(console) if console.is_terminal else Lines(console)


class Bars:
    """One live bar a stage."""

    def __init__(self, console: Console) -> None:
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=40),
            TextColumn("{task.fields[count]:>11}"),
            TextColumn("{task.fields[clock]}"),
            console=console,
            refresh_per_second=4,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        for stage in job.stages:
            bar = self._bars.get(stage.name)
            if bar is None:
                bar = self._bars[stage.name] = self._progress.add_task(stage.name, start=False, count="", clock="")
            if stage.status != "pending":
                self._progress.start_task(bar)
            done, total = _extent(stage)
            self._progress.update(bar, completed=done, total=total, count=_count(stage), clock=_clock(stage))


class Lines:
    """A line when a stage begins or ends, and every few seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, str] = {}
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        return None

    def show(self, job: Job) -> None:
        for stage in job.stages:
            is_new = self._shown.get(stage.name, "pending") != stage.status
            is_due = stage.status == "running" and time.monotonic() - self._last_line > LINE_SECONDS
            if is_new or is_due:
                self._shown[stage.name] = stage.status
                self._last_line = time.monotonic()
                text = f"{stage.name:<13} {stage.status:<9} {_count(stage):>11} {_clock(stage)}"
                self._console.print(text.rstrip())


def _extent(stage: Stage) -> tuple[float, float | None]:
    """Done and total for a bar: empty before, full after, whatever was counted; without a total it only moves."""
    if stage.status in ("pending", "succeeded"):
        return float(stage.status == "succeeded"), 1.0
    return float(stage.done), float(stage.total) if stage.total else None


def _count(stage: Stage) -> str:
    if stage.status == "pending" or (not stage.total and not stage.done):
        return ""
    return f"{stage.done}/{stage.total}" if stage.total else str(stage.done)


def _clock(stage: Stage) -> str:
    if stage.status == "running" and stage.seconds_remaining is not None:
        return f"{stage.seconds_remaining:.0f} s left"
    if stage.status not in ("running", "pending") and stage.seconds is not None:
        return f"{stage.seconds:.1f} s"
    return ""


def metrics_table(metrics: Sequence[Metric], *, title: str) -> Table:
    """One metric: a row a task and one of the means, each with the difference and its 95 % interval."""
    table = Table(title=f"{title} on held-out items, 0 to 100", title_justify="left")
    table.add_column("task")
    for column in ("n", "base", "expert", "difference", "95 % interval"):
        table.add_column(column, justify="right")
    for metric in metrics:
        is_mean = metric.task == "mean"
        if is_mean:
            table.add_section()
        scores = [f"{metric.score:.1f}", f"{metric.expert:.1f}", f"{metric.difference:+.1f}"]
        interval = f"{metric.low:+.1f} … {metric.high:+.1f}"
        table.add_row(metric.task, str(metric.n), *scores, interval, style="bold" if is_mean else None)
    return table


LINES = {
    "base": "base, without the template",
    "base_template": "base",
    "seeds_same_epochs": "learned the seeds alone, as many epochs",
    "seeds_same_steps": "learned the seeds alone, as many steps",
    "supervised": "learned labelled rows",
    "champion": "served until now",
}


def lines_table(means: Sequence[Metric]) -> Table:
    """The expert beside everybody else who answered the same items: mean token F1, a row each."""
    table = Table(title="Expert against, mean token F1", title_justify="left")
    table.add_column("who")
    for column in ("score", "expert", "difference", "95 % interval"):
        table.add_column(column, justify="right")
    for mean in means:
        shown = f", {mean.shots} shown" if mean.shots else ""
        interval = f"{mean.low:+.1f} … {mean.high:+.1f}"
        figures = (f"{mean.score:.1f}", f"{mean.expert:.1f}", f"{mean.difference:+.1f}", interval)
        table.add_row(LINES.get(mean.against, mean.against) + shown, *figures)
    return table


def seconds_table(seconds: Mapping[str, float]) -> Table:
    """How long each step took."""
    table = Table(title="Seconds by step", title_justify="left")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.1f}", style="bold" if name == "total" else None)
    return table
