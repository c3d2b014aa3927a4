"""A small chaos run: a few jobs, every kind of trouble, no fault."""

from __future__ import annotations

import json

import pytest

from tests.chaos.__main__ import main
from tests.chaos.plan import Act

pytestmark = pytest.mark.chaos


def test_a_few_jobs_survive_every_kind_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--jobs", "8", "--stacks", "sqlite", "--minutes", "5"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["chaos"]
    assert (code, told["faults"]) == (0, [])
    assert set(told["runs"]["sqlite"]["acts"]) >= {act.value for act in Act} - {Act.CUT}
