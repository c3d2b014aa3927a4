"""/generate: who can be named, how answers are drawn, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.core.records import GenerationRequest
from app.engine.fake import FakeEngine
from app.pipeline.template import ALPACA
from tests.api.live import SEEDS, Service, serve

QUESTION: dict[str, Any] = {"instruction": "What is it?", "input": "A thing.", "temperature": 0.5, "seed": 3}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all that only ask: finance has two versions and serves the second, law has one."""
    with serve(tmp_path_factory.mktemp("generate") / "var") as running:
        for domain, weights in (("finance", b"\1"), ("finance", b"\2"), ("law", b"\3")):
            running.add_expert(domain, weights=weights * 32)
        yield running


def ask(service: Service, query: str = "", **changes: object) -> dict[str, Any]:
    """The answer to the question but for ``changes``."""
    response = service.http.post(f"/generate{query}", json={**QUESTION, **changes})
    assert response.status_code == 200, response.text
    return dict(response.json())


def refusal(service: Service, status: int, query: str = "", **changes: object) -> dict[str, Any]:
    response = service.http.post(f"/generate{query}", json={**QUESTION, **changes})
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def id_of(service: Service, name: str) -> str:
    return str(service.http.get(f"/adapters/{name}").json()["id"])


def lorax(service: Service, inputs: object = "Say: ", query: str = "", **parameters: object) -> Any:
    return service.http.post(f"/generate{query}", json={"inputs": inputs, "parameters": parameters})


def same(answer: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal but for what it took."""
    return {**answer, "timings": None, "usage": None} == {**other, "timings": None, "usage": None}


def test_several_experts_answer_side_by_side(service: Service) -> None:
    response = service.http.post("/generate?domain=law&domain=finance", json={**QUESTION, "n": 2})
    answers = response.json()["answers"]
    assert [answer["adapter_name"] for answer in answers] == ["law@v1"] * 2 + ["finance@v2"] * 2
    assert response.headers["x-selfspec-adapter"] == "law@v1, finance@v2"
    for answer in (answers[0], answers[2]):
        assert same(answer, ask(service, f"?domain={answer['domain']}"))
    assert refusal(service, 404, "?domain=law&domain=other")["domains"] == ["finance", "law"]


def test_one_failure_gives_up_the_others(start: Callable[..., Service]) -> None:
    """A second expert that is refused leaves nothing of the first behind in the engine."""
    engine = FakeEngine()
    service = start(engine=engine)
    service.add_expert("finance")
    service.add_expert("law", base="another-base")
    with engine.hold():
        assert refusal(service, 409, "?domain=finance&domain=law")["code"] == "adapter_refused"
        engine.wait_stats(cancelled=1)
        assert engine.state().waiting == 0


def test_answers_of_one_question_have_seeds_of_their_own(service: Service) -> None:
    answers = ask(service, n=3)["answers"]
    assert [answer["text"] for answer in answers] == [ask(service, seed=seed)["text"] for seed in (3, 4, 5)]
    assert len({answer["text"] for answer in answers}) == 3
    greedy = ask(service, n=2, temperature=0)["answers"]
    assert greedy[0]["text"] == greedy[1]["text"]
    assert ask(service, n=2, seed=2**63 - 1)["answers"][1]["text"] == ask(service, seed=0)["text"]


def test_too_many_answers(service: Service) -> None:
    assert refusal(service, 422, n=65)["param"] == "n"
    assert "asks for 80 answers; at most 64" in refusal(service, 422, "?domain=a&domain=b", n=40)["message"]


def test_a_version_can_be_named(service: Service) -> None:
    """An old version still answers when it is named, by name and by id, whatever its domain serves now."""
    first, second = (id_of(service, f"finance@v{version}") for version in (1, 2))
    assert ask(service, "?domain=finance")["adapter"] == second
    named = [ask(service, f"?adapter={name}") for name in ("finance@v1", first)]
    named += [ask(service, adapter_id="finance@v1"), ask(service, "?adapter=finance@v1", adapter_id="finance@v1")]
    assert {(answer["adapter"], answer["domain"]) for answer in named} == {(first, "finance")}
    assert len({answer["text"] for answer in named}) == 1
    both = ask(service, "?adapter=finance@v1&adapter=finance@v2")["answers"]
    assert [answer["adapter"] for answer in both] == [first, second]


@pytest.mark.parametrize(
    ("query", "changes", "status", "param"),
    [
        ("?adapter=finance@v9", {}, 404, "adapter"),
        ("?adapter=0123456789abcdef", {}, 404, "domain"),
        ("?adapter=", {}, 422, "adapter.0"),
        ("", {"adapter_id": "nobody"}, 404, "domain"),
        ("?adapter=finance@v1", {"adapter_id": "finance@v2"}, 422, "adapter_id"),
        ("?adapter=finance@v1&adapter=finance@v2", {"adapter_id": "finance@v2"}, 422, "adapter_id"),
        ("?domain=finance&adapter=finance@v1", {}, 422, "adapter"),
        ("?domain=finance", {"adapter_id": "finance@v1"}, 422, "adapter"),
        ("?domain=fake-base", {}, 404, "domain"),
    ],
)
def test_who_cannot_be_named(service: Service, query: str, changes: dict[str, Any], status: int, param: str) -> None:
    assert refusal(service, status, query, **changes)["param"] == param


def test_questions_under_way_end_on_their_version(start: Callable[..., Service]) -> None:
    """A new champion answers from the next question on; the question before it ends as it began."""
    engine = FakeEngine()
    service = start(engine=engine)
    first = service.add_expert()
    with ThreadPoolExecutor() as pool:
        with engine.hold():
            before = pool.submit(ask, service, "?domain=finance")
            engine.wait_stats(waiting=1)
            second = service.add_expert(weights=b"\2" * 32)
            after = pool.submit(ask, service, "?domain=finance")
            engine.wait_stats(waiting=2)
        assert [before.result()["adapter"], after.result()["adapter"]] == [first.id, second.id]


def test_shots_stand_before_the_question(service: Service) -> None:
    """Seeds of the expert's own job with their answers, rendered by its template."""
    answer = ask(service, "?domain=law", shots=2, temperature=0)
    shown = [ALPACA.render(seed["instruction"], seed["input"]) + seed["output"] + "\n\n" for seed in SEEDS]
    question, law = ALPACA.render("What is it?", "A thing."), id_of(service, "law@v1")
    prompts = [one + other + question for one in shown for other in shown if one != other]
    texts = [service.resources.engine.generate([GenerationRequest(prompt, law)])[0].text for prompt in prompts]
    assert answer["text"] in texts
    assert answer["usage"]["shots"] == 2


def test_the_next_question_reuses_the_shots(service: Service) -> None:
    first, second = (ask(service, "?domain=law", shots=4, input=text)["usage"] for text in ("One.", "Two."))
    assert second["prompt_tokens"] == first["prompt_tokens"]
    assert second["cached_tokens"] > 0.8 * first["prompt_tokens"]


def test_no_more_shots_than_seeds(service: Service) -> None:
    assert ask(service, "?adapter=finance@v1", shots=32)["usage"]["shots"] == len(SEEDS)


def test_shots_that_are_not_there(service: Service) -> None:
    assert "name a domain or an adapter" in refusal(service, 422, shots=1)["message"]
    assert refusal(service, 422, "?domain=finance", shots=33)["param"] == "shots"


def test_seeds_that_are_gone(start: Callable[..., Service]) -> None:
    service = start()
    adapter = service.add_expert()
    for folder in (service.resources.artifacts.root / "seeds").iterdir():
        (folder / "manifest.json").unlink()
    error = refusal(service, 422, "?domain=finance", shots=1)
    assert error["param"] == "shots"
    assert adapter.job_id in error["message"]


def test_what_does_not_fit_is_refused_or_cut(start: Callable[..., Service]) -> None:
    """1,000 tokens of context, of which the answer takes all but 100."""
    service = start(engine=FakeEngine(context_tokens=1000))
    service.add_expert()
    short: dict[str, Any] = {"max_new_tokens": 900}
    long = {**short, "input": "word " * 200}
    error = refusal(service, 422, **long)
    assert "tokens of prompt and 900 new ones do not fit the base, which reads 1,000" in error["message"]
    cut = ask(service, truncate=True, **long)["usage"]
    assert cut["prompt_tokens"] == 100
    assert 100 < cut["cut_tokens"] < 200
    assert ask(service, truncate=True, **short)["usage"]["cut_tokens"] == 0
    instruction = "word " * 200
    assert "900 new ones" in refusal(service, 422, instruction=instruction, truncate=True, **short)["message"]
    assert refusal(service, 422, instruction=instruction * 9, truncate=True, **short)["param"] == "instruction"
    assert "900 new ones" in refusal(service, 422, "?domain=finance", shots=4, **short)["message"]
    fewer = ask(service, "?domain=finance", shots=4, truncate=True, **short)["usage"]
    assert (fewer["shots"], fewer["cut_tokens"]) == (1, 0)


def test_an_answer_may_be_as_long_as_fits(start: Callable[..., Service]) -> None:
    service = start(engine=FakeEngine(context_tokens=1000))
    unbounded: dict[str, Any] = {"max_new_tokens": None, "ignore_eos": True}
    assert ask(service, **unbounded)["usage"]["total_tokens"] == 1000
    usage = ask(service, input="word " * 2000, truncate=True, **unbounded)["usage"]
    assert (usage["total_tokens"], usage["completion_tokens"]) == (1000, 256)


def test_log_probabilities(service: Service) -> None:
    assert ask(service)["logprobs"] is None
    assert {len(token["top"]) for token in ask(service, logprobs=0)["logprobs"]} == {0}
    answer = ask(service, logprobs=3)
    assert "".join(token["token"] for token in answer["logprobs"]) == answer["text"]
    for token in answer["logprobs"]:
        likely = [other["logprob"] for other in token["top"]]
        assert len(likely) == 3
        assert sorted(likely, reverse=True) == likely
        assert token["logprob"] <= 0
    assert refusal(service, 422, logprobs=21)["param"] == "logprobs"


def test_answers_that_keep_a_schema(service: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "firms": {"type": "array", "items": {"type": "string"}}},
        "required": ["mood", "firms"],
    }
    answer = json.loads(ask(service, json_schema=schema)["text"])
    assert answer["mood"] in ("good", "bad")
    assert all(isinstance(firm, str) for firm in answer["firms"])
    assert refusal(service, 422, json_schema={"type": "mood"})["param"] == "schema"
    assert refusal(service, 422, json_schema="{}")["param"] == "json_schema"


def test_deadlines(service: Service) -> None:
    assert refusal(service, 504, timeout_s=1e-9)["code"] == "deadline_exceeded"
    assert refusal(service, 422, timeout_s=0)["param"] == "timeout_s"
    assert ask(service, timeout_s=600)["finish_reason"] == "stop"


def test_writing_past_the_end(service: Service) -> None:
    answer = ask(service, ignore_eos=True, max_new_tokens=50)
    assert (answer["usage"]["completion_tokens"], answer["finish_reason"]) == (50, "length")


def test_too_many_questions(start: Callable[..., Service]) -> None:
    response = start(engine=FakeEngine(max_waiting=0)).http.post("/generate", json=QUESTION)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    assert int(response.headers["retry-after"]) > 0


def test_lorax(service: Service) -> None:
    """Its prompt is asked as it stands, and its answer has its shape."""
    adapter = id_of(service, "finance@v1")
    response = lorax(service, "Say: ", adapter_id="finance@v1", max_new_tokens=2, details=True, seed=None)
    [completion] = service.resources.engine.generate([GenerationRequest("Say: ", adapter, max_new_tokens=2)])
    assert response.json() == {
        "generated_text": completion.text,
        "details": {
            "finish_reason": "length",
            "prompt_tokens": 2,
            "generated_tokens": 2,
            "skipped_tokens": 0,
            "prefill": [],
            "tokens": [],
        },
    }
    assert response.headers["x-selfspec-adapter"] == "finance@v1"
    assert response.headers["x-selfspec-adapter-id"] == adapter
    assert lorax(service, adapter_id="law").headers["x-selfspec-adapter"] == "law@v1"
    assert lorax(service, query="?domain=law").headers["x-selfspec-adapter"] == "law@v1"
    assert lorax(service).headers["x-selfspec-adapter"] == "none"


def test_lorax_parameters(service: Service) -> None:
    plain = lorax(service, max_new_tokens=9).json()
    assert plain.keys() == {"generated_text"}
    neutral: dict[str, Any] = {
        "watermark": False,
        "best_of": 1,
        "typical_p": 1.0,
        "merged_adapters": None,
        "repetition_penalty": 1.0,
    }
    assert lorax(service, max_new_tokens=9, **neutral).json() == plain
    assert lorax(service, max_new_tokens=9, return_full_text=True).json() == {
        "generated_text": f"Say: {plain['generated_text']}"
    }
    drawn = lorax(service, do_sample=True, seed=4, details=True).json()
    assert drawn["details"]["seed"] == 4
    assert drawn["generated_text"] != lorax(service, temperature=0.5, seed=5).json()["generated_text"]
    schemas: list[dict[str, Any]] = [
        {"schema": {"type": "object"}},
        {"schema": '{"type": "object"}'},
        {"response_format": {}},
    ]
    for given in schemas:
        assert lorax(service, **given).json()["generated_text"] == "{}"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"watermark": True}, "parameters.watermark"),
        ({"merged_adapters": {"ids": ["a"], "weights": [1]}}, "parameters.merged_adapters"),
        ({"typical_p": 0.5}, "parameters.typical_p"),
        ({"best_of": 2}, "parameters.best_of"),
        ({"truncate": 10}, "parameters.truncate"),
        ({"max_new_token": 10}, "parameters.max_new_token"),
        ({"schema": "{"}, "parameters.schema"),
    ],
)
def test_lorax_parameters_that_are_refused(service: Service, parameters: dict[str, Any], param: str) -> None:
    response = lorax(service, **parameters)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


def test_lorax_requests_that_are_refused(service: Service) -> None:
    for body, param in (
        ({"inputs": ""}, "inputs"),
        ({"inputs": "a", "stream": True}, "stream"),
        ({"inputs": "a", "instruction": "b"}, "instruction"),
    ):
        response = service.http.post("/generate", json=body)
        assert (response.status_code, response.json()["error"]["param"]) == (422, param)
    assert lorax(service, query="?domain=a&domain=b").json()["error"]["param"] == "domain"
    error = lorax(service, "word " * 9000).json()["error"]
    assert (error["param"], "9,000 tokens of prompt" in error["message"]) == ("prompt", True)
