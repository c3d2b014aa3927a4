"""The import rule holds, and the tool that says so sees what it should."""

from __future__ import annotations

import ast

import pytest

from tests.import_rule import ROOMS, ROOT, imports, module_name, objection, source_files, violations


def test_every_import_goes_down() -> None:
    assert violations() == []


def test_every_room_has_a_rule() -> None:
    rooms = {module_name(path.relative_to(ROOT)).partition(".")[0] for path in source_files(ROOT)}
    assert {"core", "storage", "api", "engine"} <= rooms
    assert rooms - {""} <= set(ROOMS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.records", "import app.storage.jobs"),
        ("core.records", "from app import settings"),
        ("pipeline.rows", "import torch.nn"),
        ("services.specialize", "from app.engine import fake"),
        ("services.specialize", "def late():\n    from sqlalchemy import select"),
        ("storage.jobs", "from celery import Celery"),
        ("api.routes.jobs", "from app.storage.database import Database"),
        ("engine.base", "from fastapi import FastAPI"),
        ("pipeline.responses", "from app.pipeline.instructions import parse"),
        ("bootstrap", "from worker.app import celery"),
    ],
)
def test_forbidden_imports_are_seen(module: str, source: str) -> None:
    assert any(objection(module, imported) for _, imported in imports(ast.parse(source)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.records", "import json"),
        ("engine.base", "import torch"),
        ("storage.job_queue", "from celery import Celery"),
        ("main", "from app import __version__"),
        ("pipeline.responses", "from app.pipeline.prompts import response_prompt"),
        ("pipeline.stages", "from app.pipeline import responses"),
        ("worker.app", "from app.bootstrap import build"),
    ],
)
def test_allowed_imports_pass(module: str, source: str) -> None:
    assert not any(objection(module, imported) for _, imported in imports(ast.parse(source)))
