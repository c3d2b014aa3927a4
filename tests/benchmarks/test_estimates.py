"""The benchmark of estimates: what it tells follows from what was told before and what came."""

from __future__ import annotations

import pytest

from benchmarks.estimates import Timed, Trial, summary


def timed(name: str, estimated: float, actual: float) -> Timed:
    return Timed(name, estimated, estimated / 2, estimated * 2, actual, num_jobs=1)


def trial(*, estimated: float, actual: float) -> Trial:
    stages = (timed("adapter", estimated, actual), timed("gate", 0.5, 0.01))
    return Trial(8, "measured", timed("job", estimated, actual), stages)


def test_too_long_and_too_short_are_off_alike() -> None:
    assert timed("job", 10.0, 20.0).off == timed("job", 20.0, 10.0).off == 2.0
    assert timed("job", 10.0, 0.0).off == float("inf")


def test_the_first_job_is_told_by_itself_and_short_stages_not_at_all() -> None:
    found = summary([trial(estimated=10, actual=40), trial(estimated=10, actual=30), trial(estimated=20, actual=10)])
    assert found["first_job_off"] == 4.0
    assert found["jobs"] == {"n": 2, "median_off": 2.5, "worst_off": 3.0, "within_range": 0.5}
    assert found["by_stage"] == {"adapter": found["jobs"]}
    assert [row["stages"]["gate"]["ratio"] for row in found["trials"]] == pytest.approx([0.02] * 3)


def test_one_job_alone_tells_of_no_others() -> None:
    assert summary([trial(estimated=10, actual=40)])["jobs"]["median_off"] is None
