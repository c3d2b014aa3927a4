"""Swagger: every operation is explained, with worked examples that are true, and the page needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.api import examples
from app.api.schemas.domains import AdapterBody, DomainBody, PromoteRequest, PromotionBody
from app.api.schemas.generate import GenerateBody, GenerateRequest
from app.api.schemas.health import ReadyBody
from app.api.schemas.jobs import EventBody, JobBody, MetricsBody
from app.api.schemas.specialize import SpecializeRequest
from app.core.presets import make_recipe
from app.pipeline.stages import walk
from tests.api.live import Service, serve


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("docs") / "var") as running:
        yield running


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    return dict(service.http.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def has_example(media: dict[str, Any]) -> bool:
    return bool(media.get("example") or media.get("examples"))


def test_every_route_is_there(document: dict[str, Any]) -> None:
    assert set(operations(document)) == {
        "POST /specialize",
        "POST /specialize/estimate",
        "POST /seeds/doctor",
        "GET /seeds/{seed_id}/rows",
        "GET /jobs",
        "GET /jobs/{job_id}",
        "GET /jobs/{job_id}/events",
        "GET /jobs/{job_id}/dataset",
        "GET /jobs/{job_id}/dataset/{row}",
        "GET /jobs/{job_id}/metrics",
        "POST /jobs/{job_id}/cancel",
        "POST /jobs/{job_id}/pause",
        "POST /jobs/{job_id}/resume",
        "POST /jobs/{job_id}/retry",
        "GET /jobs/{job_id}/rows",
        "GET /jobs/{job_id}/rows/{index}",
        "PATCH /jobs/{job_id}/rows/{index}",
        "DELETE /jobs/{job_id}/rows/{index}",
        "POST /jobs/{job_id}/rows/{index}/restore",
        "POST /corpora",
        "GET /corpora",
        "GET /corpora/{corpus}",
        "GET /corpora/{corpus}/search",
        "GET /domains",
        "GET /domains/{name}",
        "POST /domains/{name}/promote",
        "POST /domains/{name}/rollback",
        "GET /domains/{name}/promotions",
        "GET /adapters/{adapter}",
        "GET /adapters/{adapter}/download",
        "POST /generate",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/files",
        "GET /v1/files",
        "GET /v1/files/{file_id}",
        "GET /v1/files/{file_id}/content",
        "DELETE /v1/files/{file_id}",
        "POST /v1/fine_tuning/jobs",
        "GET /v1/fine_tuning/jobs",
        "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}",
        "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
        "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause",
        "POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume",
        "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
        "GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "POST /v1/load_lora_adapter",
        "POST /v1/unload_lora_adapter",
        "GET /engine",
        "GET /metrics",
        "GET /health",
        "GET /ready",
    }


def test_every_operation_is_explained(document: dict[str, Any]) -> None:
    """Summary, description, parameters with examples, examples of the body and of every answer, our error shape."""
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert len(operation["description"]) > 20, name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["schema"].get("description"), (name, parameter)
            shown = parameter["schema"].get("items") or parameter["schema"]  # Swagger UI offers one item at a time
            assert shown.get("examples") or parameter.get("examples"), (name, parameter["name"])
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            fields = media["schema"].get("properties", {}).values()
            assert has_example(media) or any("example" in field for field in fields), (name, kind)
        assert min(operation["responses"]) < "300", name
        for status, response in operation["responses"].items():
            assert response["content"], (name, status)
            for media in response["content"].values():
                assert has_example(media), (name, status)
            if status >= "400" and (name, status) != ("GET /ready", "503"):
                shape = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert shape == _error_shape(name), (name, status)


def _error_shape(operation: str) -> str:
    if "_lora_adapter" in operation:
        return "VllmErrorBody"
    return "OpenAIErrorBody" if " /v1/" in operation else "ErrorBody"


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"'\$ref': '([^']+)'", str(document)))
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    assert "HTTPValidationError" not in schemas


def test_specialize_takes_both_bodies(document: dict[str, Any]) -> None:
    content = document["paths"]["/specialize"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    properties = content["multipart/form-data"]["schema"]["properties"]
    assert set(properties) == set(SpecializeRequest.model_fields) - {"domains"}  # JSON only
    assert properties["seeds"]["format"] == "binary"


def test_examples_are_true() -> None:
    for job in (examples.JOB, examples.QUEUED_JOB, examples.CANCELLED_JOB):
        stages = [stage["stage"] for stage in JobBody.model_validate(job).model_dump()["progress"]]
        assert stages == [stage.name for stage in walk(make_recipe(job["recipe"]))]
    SpecializeRequest.model_validate(examples.SPECIALIZE)
    make_recipe(examples.SPECIALIZE["recipe"])
    GenerateRequest.model_validate(examples.QUESTION)
    pairs: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (GenerateBody, examples.ANSWER),
        (GenerateBody, examples.BASE_ANSWER),
        (EventBody, examples.EVENT),
        (MetricsBody, examples.METRICS),
        (AdapterBody, examples.ADAPTER),
        (DomainBody, examples.DOMAIN),
        (PromoteRequest, examples.PROMOTE),
        (PromotionBody, examples.PROMOTION),
        (ReadyBody, examples.READY),
        (ReadyBody, examples.NOT_READY),
    ]
    for model, example in pairs:
        assert model.model_validate(example).model_dump(mode="json", exclude_unset=True).keys() == example.keys()


def test_examples_can_be_sent(service: Service) -> None:
    """What Swagger UI fills in for a newcomer works as it stands."""
    assert service.http.post("/specialize", json=examples.SPECIALIZE).status_code == 202
    assert service.http.post("/generate", json=examples.QUESTION).status_code == 200


def test_page_needs_no_network(service: Service) -> None:
    page = service.http.get("/docs")
    assert page.status_code == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        assert asset.startswith("/docs/assets/")
        response = service.http.get(asset)
        assert response.status_code == 200
        assert response.content
    assert "url: '/openapi.json'" in page.text


def test_the_form_as_swagger_fills_it_is_accepted(service: Service, document: dict[str, Any]) -> None:
    """A bug: Swagger UI fills a field without an example with "string", and no base is called that."""
    body = operations(document)["POST /specialize"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = {name: field for name, field in body["properties"].items() if field.get("format") != "binary"}
    filled = {name: field.get("example", "string") for name, field in fields.items()}
    rows = "".join(
        f'{{"task": "t", "instruction": "Say it.", "input": "{word}", "output": "{word}"}}\n' for word in ("one", "two")
    )
    answer = service.http.post("/specialize", data=filled, files={"seeds": ("seeds.jsonl", rows.encode())})
    assert answer.status_code == 202, answer.text
