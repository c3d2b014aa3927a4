"""Requests that cannot be used: every kind is refused with line, field and reason, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.api.live import EVALUATION, SEEDS, Service, serve

GOOD = SEEDS[0]
MANY = [{**GOOD, "input": f"text {number}"} for number in range(21)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all: none of these requests may change it."""
    with serve(tmp_path_factory.mktemp("refusals") / "var", max_seeds=20, max_field_chars=500) as running:
        yield running
        assert running.stored() == []


def refusal(response: httpx.Response, status: int = 422) -> dict[str, Any]:
    """The error's body, after what holds for every refusal."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["code"]
    assert error["message"]
    assert "Traceback" not in response.text
    return dict(error)


def upload(service: Service, seeds: bytes, *, name: str = "seeds.jsonl", **fields: Any) -> httpx.Response:
    files = {"seeds": (name, seeds), **{key: value for key, value in fields.items() if isinstance(value, tuple)}}
    data = {key: value for key, value in fields.items() if not isinstance(value, tuple)}
    return service.http.post("/specialize", data={"domain": "finance", **data}, files=files)


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def test_all_problems_at_once(service: Service) -> None:
    """Domain, recipe, seeds and evaluation are all wrong, and all are named."""
    bad = [{**GOOD, "output": "  "}, {"task": "x", "instruction": 3, "input": "", "output": "y"}, "text", dict(GOOD)]
    response = service.specialize(
        domain="Fin/ance",
        seeds=bad,
        evaluation=[{**EVALUATION[0], "extra": 1}],
        recipe={"preset": "quick", "epoch": 3, "lora_rank": 0},
        surprise=1,
    )
    problems = refusal(response)["problems"]
    told = {(problem["source"], problem["line"], problem["field"]) for problem in problems}
    assert told == {
        ("body", None, "surprise"),
        (None, None, "domain"),
        (None, None, "recipe.epoch"),
        (None, None, "recipe.lora_rank"),
        ("seeds", 1, "output"),
        ("seeds", 2, "instruction"),
        ("seeds", 3, "item"),
        ("evaluation", 1, "extra"),
    }


@pytest.mark.parametrize(
    ("seeds", "line", "field", "reason"),
    [
        (lines(*[{**GOOD, "input": str(n)} for n in range(16)], b'{"task": "x" "y"}'), 17, "json", "broken JSON"),
        (lines(GOOD, b'{"task": "caf\xe9"}'), 2, "file", "not UTF-8: byte 0xe9 at offset"),
        (json.dumps(GOOD).encode("utf-16"), 1, "file", "looks like UTF-16"),
        (lines(GOOD, {key: GOOD[key] for key in ("task", "instruction", "input")}), 2, "output", "is missing"),
        (lines({**GOOD, "output": ""}), 1, "output", "is empty"),
        (lines({**GOOD, "instruction": None}), 1, "instruction", "must be a text, and is null"),
        (lines({**GOOD, "input": 5}), 1, "input", "must be a text, and is a number"),
        (lines({**GOOD, "label": "x"}), 1, "label", "unknown key"),
        (lines({**GOOD, "references": 3}), 1, "references", "must be a list of texts"),
        (lines({**GOOD, "references": ["a", " "]}), 1, "references", "text 2 is empty"),
        (lines({**GOOD, "references": ["a"] * 101}), 1, "references", "holds 101 texts; at most 100"),
        (lines(GOOD, {**GOOD, "input": "other"}, GOOD), 3, "item", "duplicate: the same as line 1"),
        (lines({**GOOD, "input": "x" * 501}), 1, "input", "501 characters"),
        (lines(["a", "list"]), 1, "item", "must be an object"),
        (lines({**GOOD, "input": "a\x00b"}), 1, "input", "U+0000"),
        (b'{"task": "a", "task": "b", "instruction": "c", "output": "d"}', 1, "json", "'task' is given twice"),
        (b'{"task": NaN}', 1, "json", "NaN is not JSON"),
        (b"[" * 100_000, None, "json", "nested too deeply"),
        (b'{"task": ' + b"9" * 5000 + b"}", 1, "json", "too many digits"),
        (rb'{"task": "a", "instruction": "b", "output": "\ud83d"}', 1, "output", "surrogate"),
        (b"", None, "seeds", "not one item"),
        (b"[]", None, "seeds", "not one item"),
        (b"\xef\xbb\xbf \n", None, "seeds", "not one item"),
    ],
)
def test_json_files(service: Service, seeds: bytes, line: int | None, field: str, reason: str) -> None:
    problem = refusal(upload(service, seeds))["problems"][0]
    assert (problem["line"], problem["field"]) == (line, field)
    assert reason in problem["reason"]
    assert problem["source"] == "seeds"


@pytest.mark.parametrize(
    ("seeds", "line", "reason"),
    [
        ("task,instruction,input\na,b,c\n", 1, "no column 'output'"),
        ("task,instruction,input,output,label\na,b,c,d,e\n", 1, "unknown column 'label'"),
        ("task,task,instruction,output\na,b,c,d\n", 1, "column 'task' is given twice"),
        ('task,instruction,output\na,"b\nb",c\nd,e,f,g\n', 4, "4 values for 3 columns"),
        ("task,instruction,output\na,b,c\nd,e\n", 3, "is missing"),
        ("task,instruction,output,references\na,b,c,d\n", 2, 'in CSV as JSON: ["one", "two"]'),
        ('task,instruction,output\na,"b,c\n', 2, "broken CSV"),
        ("hello world\n", 1, "no column 'task'"),
    ],
)
def test_csv_files(service: Service, seeds: str, line: int, reason: str) -> None:
    problem = refusal(upload(service, seeds.encode(), name="seeds.csv"))["problems"][0]
    assert problem["line"] == line
    assert reason in problem["reason"]


def test_too_many_seeds(service: Service) -> None:
    for response in (service.specialize(seeds=MANY), upload(service, lines(*MANY))):
        error = refusal(response, 413)
        assert error["code"] == "too_large"
        assert "21 items; at most 20" in error["message"]


def test_very_many_problems_are_counted(start: Callable[..., Service]) -> None:
    service = start(max_seeds=5000)
    problems = refusal(service.specialize(seeds=[{}] * 1000))["problems"]
    assert len(problems) == 1001
    assert problems[-1]["reason"] == "and 2,000 more problems like these"
    assert service.stored() == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/b", "'/' cannot be part"),
        ("Finance", "'F' cannot be part"),
        ("", "is empty"),
        ("-a", "this cannot be"),
        ("a" * 64, "this cannot be"),
        ("..", "'.' cannot be part"),
        ("finance\n", "cannot be part"),
        ("финансы", "cannot be part"),
        (7, "must be a text"),
        (None, "is missing"),
    ],
)
def test_domain_names(service: Service, name: object, reason: str) -> None:
    error = refusal(service.specialize(domain=name))
    assert error["param"] == "domain"
    assert reason in error["problems"][0]["reason"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"recipe": {"preset": "huge"}}, "recipe.preset"),
        ({"recipe": {"preset": ["quick"]}}, "recipe.preset"),
        ({"recipe": {"unknown_knob": 1}}, "recipe.unknown_knob"),
        ({"recipe": {"epochs": "many"}}, "recipe.epochs"),
        ({"recipe": []}, "recipe"),
        ({"recipe": {"lora_rank": 128}}, "recipe.lora_rank"),
        ({"recipe": {"max_length": 100_000}}, "recipe.max_length"),
        ({"description": 5}, "description"),
        ({"description": "x" * 2001}, "description"),
        ({"seeds": None}, "seeds"),
        ({"seeds": "text"}, "seeds"),
        ({"seeds": {}}, "seeds"),
        ({"evaluation": []}, "evaluation"),
        ({"labelled": "text"}, "labelled"),
        ({"domains": ["a", "b"]}, "seeds"),
        ({"domains": ["a"], "seeds": None}, "domains"),
        ({"recipe": {"retrieval": "sequence", "corpus": "0" * 16}}, "recipe.corpus"),
        ({"base": 5}, "base"),
    ],
)
def test_other_fields(service: Service, changes: dict[str, object], field: str) -> None:
    assert refusal(service.specialize(**changes))["param"] == field


def test_text_too_long_for_the_recipe(service: Service) -> None:
    long = {**GOOD, "input": "word " * 99}
    problem = refusal(service.specialize(seeds=[GOOD, long], recipe={"max_length": 100}))["problems"][0]
    assert (problem["source"], problem["line"], problem["field"]) == ("seeds", 2, "item")
    assert "the recipe's max_length is 100" in problem["reason"]


def test_leakage_is_refused(service: Service) -> None:
    """An evaluation item that differs from a seed only in case, spacing and answer still asks what was learned."""
    copy = {**GOOD, "input": f" {GOOD['input'].upper()} ", "output": "bad"}
    problem = refusal(service.specialize(evaluation=[*EVALUATION, copy]))["problems"][0]
    assert (problem["source"], problem["line"]) == ("evaluation", 2)
    assert "leakage: the same instruction and input as line 1 of seeds" in problem["reason"]


def test_labelled_rows_may_be_seeds_but_not_evaluation(service: Service) -> None:
    """An adapter that learned what it is judged by would look like more than supervision can reach."""
    problem = refusal(service.specialize(labelled=[GOOD, EVALUATION[0], GOOD]))["problems"]
    assert [(each["source"], each["line"]) for each in problem] == [("evaluation", 1), ("labelled", 3)]
    assert "line 2 of labelled" in problem[0]["reason"]
    assert "duplicate: the same as line 1" in problem[1]["reason"]


def test_nothing_to_choose_by(service: Service) -> None:
    """Several rounds are chosen from by held-out seeds, whatever the evaluation set."""
    seeds = [{**GOOD, "task": str(number)} for number in range(3)]
    refused = refusal(service.specialize(seeds=seeds, recipe={"preset": "quick", "iterations": 2}))
    assert "one iteration" in refused["problems"][0]["reason"]


def test_nothing_to_hold_out(service: Service) -> None:
    """One seed a task and no evaluation: after hours of work there would be nothing to judge by."""
    seeds = [{**GOOD, "task": str(number)} for number in range(3)]
    assert "held out" in refusal(service.specialize(seeds=seeds, evaluation=None))["problems"][0]["reason"]


def test_another_base(service: Service) -> None:
    error = refusal(service.specialize(base="llama"), 409)
    assert (error["code"], error["param"]) == ("conflict", "base")


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"{", "application/json", 422, "broken JSON"),
        (b"\xff", "application/json", 422, "not UTF-8"),
        (b"[]", "application/json", 422, "must be an object"),
        (b'{"a":' * 50_000, "application/json", 422, "nested too deeply"),
        (b"domain=finance", "application/x-www-form-urlencoded", 415, "send application/json or multipart/form-data"),
        (b"domain=finance", "text/plain", 415, "not text/plain"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x", "multipart/form-data; boundary=b", 400, "multipart"),
    ],
)
def test_bodies_that_cannot_be_parsed(service: Service, body: bytes, kind: str, status: int, reason: str) -> None:
    response = service.http.post("/specialize", content=body, headers={"content-type": kind})
    assert reason in refusal(response, status)["message"]


def test_form_fields(service: Service) -> None:
    """The faults of the form itself come together with those of its content."""
    response = upload(
        service, lines({**GOOD, "output": ""}), recipe="{", surprise="x", evaluation="not a file", description="fine"
    )
    told = {(problem["field"], problem["source"]) for problem in refusal(response)["problems"]}
    assert told == {("recipe", None), ("surprise", "form"), ("evaluation", "form"), ("output", "seeds")}


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_idempotency_keys(service: Service, key: str) -> None:
    response = service.http.post("/specialize", json={"domain": "x", "seeds": SEEDS}, headers={"Idempotency-Key": key})
    assert refusal(response)["param"] == "Idempotency-Key"


def test_body_too_large(start: Callable[..., Service]) -> None:
    """Refused by its declared length, and when it declares none."""
    service = start(max_upload_bytes=2000)
    big = b'{"domain": "' + b"x" * 5000 + b'"}'
    declared = service.http.post("/specialize", content=big)
    streamed = service.http.post("/specialize", content=iter([big[:1500], big[1500:]]))
    for response in (declared, streamed):
        error = refusal(response, 413)
        assert "larger than 2,000 bytes" in error["message"]
    assert service.stored() == []


def test_unknown_paths_and_methods(service: Service) -> None:
    assert refusal(service.http.get("/nowhere"), 404)["code"] == "not_found"
    response = service.http.delete("/jobs")
    assert refusal(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=many", "limit"),
        ("/jobs?status=asleep", "status"),
        ("/jobs/x/events?after=-1", "after"),
        ("/domains/Finance", "domain"),
        ("/jobs/a%00b", "url"),
        ("/jobs?domain=%00", "url"),
    ],
)
def test_queries(service: Service, path: str, field: str) -> None:
    assert refusal(service.http.get(path))["param"] == field


@pytest.mark.parametrize("path", ["/jobs/job-0", "/jobs/job-0/events", "/jobs/job-0/dataset", "/jobs/job-0/metrics"])
def test_unknown_jobs(service: Service, path: str) -> None:
    assert refusal(service.http.get(path), 404)["param"] == "job_id"


@pytest.mark.parametrize("path", ["/adapters/0", "/adapters/finance@v1", "/adapters/..%2F..%2Fetc/download"])
def test_unknown_adapters(service: Service, path: str) -> None:
    assert refusal(service.http.get(path), 404)["code"] == "not_found"
