"""The figures of docs/reliability.md are written by the program, between two marks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.chaos.plan import Act
from tests.chaos.report import ACTS, BEGIN, END, PAGE, write_page
from tests.chaos.run import Outcome


def test_figures_take_the_place_of_the_last_ones_and_all_else_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    acts = Counter({Act.KILL_CHILD.value: 7, "woken_without_lease": 3})
    write_page([Outcome("sqlite", jobs=Counter(succeeded=5, cancelled=1), acts=acts)], seed=9, page=page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}| ")
    assert text.endswith(f"{END}after\n")
    assert "old" not in text
    assert "| jobs | 6 |" in text
    assert "| `kill -9` of a job's process | 7 |" in text
    assert "Seed 9" in text


def test_the_page_has_its_place_for_figures_and_a_line_for_each_trouble() -> None:
    assert PAGE.read_text().count(BEGIN) == PAGE.read_text().count(END) == 1
    assert set(ACTS) == set(Act)
