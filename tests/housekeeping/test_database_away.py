"""A database that goes away under the API and comes back: what can still be true is answered, the rest is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from app.bootstrap import build, migrate
from app.main import create_app
from app.settings import Settings
from tests.api.live import Service, serve
from tests.services_real.proxy import Proxy
from tests.storage.conftest import throw_away_postgres

pytestmark = pytest.mark.service

QUESTION = {"instruction": "Good or bad?", "input": "Profit"}


@pytest.fixture
def line() -> Iterator[tuple[str, Proxy]]:
    """A PostgreSQL database that is reached through a line that can be cut."""
    with throw_away_postgres() as url:
        server = make_url(url)
        with Proxy(server.host or "127.0.0.1", server.port or 5432) as proxy:
            through = server.set(host="127.0.0.1", port=proxy.port)
            yield through.render_as_string(hide_password=False), proxy


@pytest.fixture
def service(tmp_path: Path, line: tuple[str, Proxy]) -> Iterator[Service]:
    with serve(tmp_path / "var", database_url=line[0]) as running:
        yield running


def test_what_can_be_true_without_it_is_answered(service: Service, line: tuple[str, Proxy]) -> None:
    """A version never changes; what a domain serves may have changed this moment."""
    _, proxy = line
    adapter, http = service.add_expert(), service.http
    before = http.post("/generate?adapter=finance@v1", json=QUESTION).json()
    assert proxy.cut() > 0
    after = http.post("/generate?adapter=finance@v1", json=QUESTION).json()
    assert (after["text"], after["adapter"]) == (before["text"], adapter.id)
    chat = {"model": "finance@v1", "messages": [{"role": "user", "content": "Good?"}]}
    for path, body in {"/generate?adapter=finance@v2": QUESTION, "/generate?domain=finance": QUESTION}.items():
        refused = http.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert "Retry-After" in refused.headers
    assert http.post("/v1/chat/completions", json=chat).status_code == 200
    assert http.post("/generate", json=QUESTION).json()["adapter"] is None
    assert service.specialize(domain="law").status_code == 503
    ready = http.get("/ready")
    assert (ready.status_code, ready.json()["checks"]["database"]["ok"]) == (503, False)
    assert http.get("/health").status_code == 200
    proxy.mend()
    assert http.post("/generate?domain=finance", json=QUESTION).json()["adapter"] == adapter.id
    assert service.specialize(domain="law").status_code == 202
    assert http.get("/ready").status_code == 200


def test_the_api_starts_without_it_and_works_once_it_is_there(tmp_path: Path, line: tuple[str, Proxy]) -> None:
    url, proxy = line
    settings = Settings(data_dir=tmp_path, engine="fake", base="fake-base", database_url=url, warm_up=False)
    migrate(settings)
    proxy.cut()
    resources = build(settings, role="api")
    with closing(resources), TestClient(create_app(resources)) as client:
        assert client.post("/generate?domain=finance", json=QUESTION).status_code == 503
        proxy.mend()
        assert client.post("/generate?domain=finance", json=QUESTION).status_code == 404
        assert client.get("/ready").json()["checks"]["database"]["ok"]
