"""Loading adapters by name: who may, from where, under which names, and what answers then."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.records import GenerationRequest
from app.engine.fake import FakeEngine, write_fake_adapter
from app.pipeline.template import ALPACA, PLAIN
from tests.api.live import Service

KEY = "correct-horse"
ADMIN = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder adapters may be loaded from, with one in it."""
    folder = tmp_path / "adapters"
    write_fake_adapter(folder / "press", base_name="fake-base", weights=b"\5" * 32)
    return folder


@pytest.fixture
def service(start: Callable[..., Service], root: Path, tmp_path: Path) -> Service:
    roots = os.pathsep.join([str(tmp_path / "other"), str(root)])
    return start(engine=FakeEngine(), admin_key=KEY, adapter_roots=roots)


def load(service: Service, path: object, name: str = "press", **more: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path), **more}
    return service.http.post("/v1/load_lora_adapter", json=body, headers=ADMIN)


def unload(service: Service, name: str = "press") -> httpx.Response:
    return service.http.post("/v1/unload_lora_adapter", json={"lora_name": name}, headers=ADMIN)


def ask(service: Service, model: str = "press") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}
    return service.http.post("/v1/chat/completions", json=body)


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """vLLM's error, which is the same flat and under ``error``."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body.pop("object") == "error"
    assert body.pop("error") == body
    assert body["code"] == status
    return dict(body)


def test_load_ask_unload(service: Service, root: Path) -> None:
    loaded = load(service, root / "press")
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'press' added successfully.")
    assert loaded.headers["content-type"].startswith("text/plain")
    model = service.http.get("/v1/models/press").json()
    assert (model["parent"], model["root"]) == ("fake-base", str(root / "press"))
    answer = ask(service)
    engine_id = answer.headers["x-selfspec-adapter-id"]
    assert answer.json()["model"] == "press"
    request = GenerationRequest(ALPACA.render("Why?"), engine_id)
    assert answer.json()["choices"][0]["message"]["content"] == service.resources.engine.generate([request])[0].text
    removed = unload(service)
    assert (removed.status_code, removed.text) == (200, "Success: LoRA adapter 'press' removed successfully.")
    assert ask(service).json()["error"]["code"] == "model_not_found"
    assert service.resources.engine.attachments() == []
    assert refusal(unload(service), 404)["type"] == "NotFoundError"


def test_a_downloaded_adapter_keeps_its_template(service: Service, root: Path) -> None:
    (root / "press" / "template.json").write_text(json.dumps(PLAIN.to_dict()) + "\n")
    load(service, root / "press")
    request = GenerationRequest(PLAIN.render("Why?"), ask(service).headers["x-selfspec-adapter-id"])
    expected = service.resources.engine.generate([request])[0].text
    assert ask(service).json()["choices"][0]["message"]["content"] == expected


def test_only_operators(service: Service, root: Path) -> None:
    body = {"lora_name": "press", "lora_path": str(root / "press")}
    for headers in ({}, {"Authorization": "Bearer wrong-horse"}, {"Authorization": f"Basic {KEY}"}):
        for path in ("load", "unload"):
            response = service.http.post(f"/v1/{path}_lora_adapter", json=body, headers=headers)
            assert refusal(response, 401)["type"] == "AuthenticationError"
            assert response.headers["www-authenticate"] == "Bearer"
    assert ask(service).status_code == 404


def test_switched_off_unless_a_key_is_set(start: Callable[..., Service], root: Path) -> None:
    service = start(adapter_roots=str(root))
    for path in ("load", "unload"):
        body = {"lora_name": "press", "lora_path": str(root / "press")}
        response = service.http.post(f"/v1/{path}_lora_adapter", json=body, headers=ADMIN)
        assert "SELFSPEC_ADMIN_KEY" in refusal(response, 403)["message"]


def test_only_below_the_roots(service: Service, root: Path, tmp_path: Path) -> None:
    """By whatever way a path gets out: plainly, upwards, or through a link in a folder or in place of a file."""
    outside = tmp_path / "outside"
    write_fake_adapter(outside, base_name="fake-base")
    (root / "link").symlink_to(outside)
    (root / "half").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (root / "half" / name).symlink_to(outside / name)
    write_fake_adapter(tmp_path / "adapters-too", base_name="fake-base")
    paths = [outside, root / ".." / "outside", root / "link", root / "half", tmp_path / "adapters-too", "/etc", "."]
    for path in paths:
        error = refusal(load(service, path), 403)
        assert "SELFSPEC_ADAPTER_ROOTS" in error["message"]
        assert error["param"] == "lora_path"
    (root / "inner").symlink_to(root / "press")
    assert load(service, root / "inner").status_code == 200


def test_no_roots_no_adapters(start: Callable[..., Service], root: Path) -> None:
    service = start(admin_key=KEY)
    assert "SELFSPEC_ADAPTER_ROOTS: none" in refusal(load(service, root / "press"), 403)["message"]


def test_names_that_belong_to_others(service: Service, root: Path) -> None:
    expert = service.add_expert()
    service.specialize(domain="empty")
    for name in ("fake-base", "finance", "finance@v1", expert.id, "empty"):
        error = refusal(load(service, root / "press", name=name), 400)
        assert (error["type"], error["param"]) == ("InvalidUserInput", "lora_name")


def test_a_domain_made_later_keeps_its_own_name(service: Service, root: Path) -> None:
    load(service, root / "press", name="finance")
    assert ask(service, "finance").json()["model"] == "finance"
    expert = service.add_expert("finance")
    assert ask(service, "finance").headers["x-selfspec-adapter-id"] == expert.id


def test_loading_twice(service: Service, root: Path) -> None:
    """Another content under a name is another adapter to the engine, and has to be asked for."""
    load(service, root / "press")
    first = ask(service).headers["x-selfspec-adapter-id"]
    error = refusal(load(service, root / "press"), 400)
    assert "is loaded already" in error["message"]
    write_fake_adapter(root / "new", base_name="fake-base", weights=b"\6" * 32)
    assert load(service, root / "new", load_inplace=True).status_code == 200
    second = ask(service).headers["x-selfspec-adapter-id"]
    assert first != second
    assert [attachment.adapter for attachment in service.resources.engine.attachments()] == [second]


def test_two_names_of_one_adapter(service: Service, root: Path) -> None:
    load(service, root / "press")
    load(service, root / "press", name="news")
    assert ask(service).headers["x-selfspec-adapter-id"] == ask(service, "news").headers["x-selfspec-adapter-id"]
    unload(service)
    assert ask(service, "news").status_code == 200


def test_files_that_changed_are_not_served(service: Service, root: Path) -> None:
    """The engine may have to read them again, and would answer with other weights under the same id."""
    load(service, root / "press")
    write_fake_adapter(root / "press", base_name="fake-base", weights=b"\7" * 40)
    assert "changed after it was loaded" in ask(service).json()["error"]["message"]
    assert load(service, root / "press", load_inplace=True).status_code == 200
    assert ask(service).status_code == 200


def test_what_cannot_be_loaded(service: Service, root: Path) -> None:
    assert refusal(load(service, root / "nothing"), 404)["type"] == "NotFoundError"
    write_fake_adapter(root / "foreign", base_name="other-base")
    assert refusal(load(service, root / "foreign"), 400)["type"] == "BadRequestError"
    write_fake_adapter(root / "broken", base_name="fake-base")
    (root / "broken" / "template.json").write_text("{}")
    assert refusal(load(service, root / "broken"), 400)["type"] == "BadRequestError"
    (root / "circle").symlink_to(root / "circle")
    for path in (root / "circle", root / ("x" * 300)):
        assert load(service, path).status_code in (400, 403)
    for body in ({"lora_name": "press"}, {"lora_path": "x"}, {"lora_name": "é", "lora_path": "x"}, {}):
        response = service.http.post("/v1/load_lora_adapter", json=body, headers=ADMIN)
        assert refusal(response, 400)["type"] == "InvalidUserInput"
    assert len(service.http.get("/v1/models").json()["data"]) == 1
