"""Which generated rows are one too many of their answer."""

from __future__ import annotations

from dataclasses import replace

from app.core.records import Example, Origin, Seed
from app.pipeline.balance import Balance

TONE = [Seed("tone", "Good or bad?", f"Firm {n}", label) for n, label in enumerate(["good"] * 6 + ["bad"] * 3)]
NAMES = [Seed("names", "Names?", f"Text {n}", output) for n, output in enumerate(["Ann", "Bob", "None", "None"])]
ROW = Example("r", "Good or bad?", "Firm 9", "good", "tone", Origin.GENERATED, (), "base")


def kept(rows: list[Example], seeds: list[Seed]) -> list[str]:
    balance = Balance(seeds, rows)
    return [row.output for row in rows if not balance.refuses(row)]


def test_labels_keep_about_the_shares_they_have_among_the_seeds() -> None:
    rows = [replace(ROW, output="good")] * 90 + [replace(ROW, output="Bad")] * 6
    assert (kept(rows, TONE).count("good"), kept(rows, TONE).count("Bad")) == (22, 6)


def test_a_label_that_was_never_written_empties_nothing() -> None:
    assert len(kept([ROW] * 10, TONE)) == 10


def test_usual_answers_of_an_open_task_keep_their_share() -> None:
    rows = [replace(ROW, task="names", output=f"Name {n}") for n in range(8)]
    rows += [replace(ROW, task="names", output="none")] * 8
    assert kept(rows, NAMES).count("none") == 4


def test_an_answer_that_no_seed_repeats_is_not_learned_from_every_other_row() -> None:
    """Of 49 rows of entities 21 said "Cancer: cancer", which none of the five seeds did."""
    rows = [replace(ROW, task="names", output=f"Name {n}") for n in range(28)]
    rows += [replace(ROW, task="names", output="Ann")] * 21 + [replace(ROW, task="names", output="Eve")] * 21
    answers = kept(rows, NAMES)
    assert (len(answers), answers.count("Ann"), answers.count("Eve")) == (28 + 12 + 12, 12, 12)


def test_new_tasks_have_no_quota() -> None:
    assert len(kept([replace(ROW, task=None)] * 9, TONE)) == 9
