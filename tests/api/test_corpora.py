"""/corpora over HTTP: every way to send one, what is refused, and that the documentation's examples are true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.api.corpora_examples import CORPUS, LINES, PASSAGE
from app.api.schemas.corpora import CorpusBody, PassageBody
from tests.api.live import Service

JSONL = {"content-type": "application/x-ndjson"}


@pytest.fixture
def small(start: Callable[..., Service]) -> Service:
    """A service that takes little."""
    return start(max_upload_bytes=2048, max_corpus_bytes=8192, max_field_chars=100)


def refusal(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return dict(response.json()["error"])


def test_the_examples_are_what_is_answered(service: Service) -> None:
    made = service.http.post("/corpora", params={"name": "filings"}, content=LINES, headers=JSONL)
    assert made.status_code == 201
    assert made.headers["location"] == f"/corpora/{made.json()['id']}"
    assert {**made.json(), "created_at": ""} == {**CORPUS, "created_at": ""}
    CorpusBody.model_validate(CORPUS)
    found = service.http.get(f"/corpora/{CORPUS['id']}/search", params={"q": "dividend"}).json()["data"]
    assert [{**passage, "score": round(passage["score"], 2)} for passage in found] == [PASSAGE]
    PassageBody.model_validate(PASSAGE)
    assert service.http.get("/corpora").json() == {"data": [made.json()]}
    assert service.http.get(f"/corpora/{CORPUS['id']}").json() == made.json()


def test_body_and_form_make_the_same_corpus(service: Service) -> None:
    """The name is the file's unless it is given; what is there already is not made again."""
    first = service.http.post("/corpora", files={"file": ("news.jsonl", LINES.encode())})
    assert (first.status_code, first.json()["name"]) == (201, "news")
    for headers in (JSONL, {"content-type": "application/octet-stream"}, {}):
        again = service.http.post("/corpora", params={"name": "other"}, content=LINES, headers=headers)
        assert (again.status_code, again.json()) == (200, first.json())
    text = service.http.post("/corpora", content="One.\n\nTwo.\none.\n", headers={"content-type": "text/plain"})
    assert (text.json()["num_passages"], text.json()["num_duplicates"], text.json()["name"]) == (2, 1, "corpus")


def test_a_corpus_may_be_larger_than_other_bodies_and_comes_in_pieces(small: Service) -> None:
    def pieces(number: int) -> Iterator[bytes]:
        """Lines of 50 bytes, each cut in two."""
        for n in range(number):
            yield f'{{"text": "Passage number {n:04}'.encode()
            yield b' of this file"}\n'

    made = small.http.post("/corpora", content=pieces(100), headers=JSONL)
    assert (made.status_code, made.json()["num_passages"]) == (201, 100)
    for body in (pieces(400), b"x" * 8193):  # without a declared length, and with one
        error = refusal(small.http.post("/corpora", content=body, headers=JSONL), 413)
        assert "8,192 bytes (SELFSPEC_MAX_CORPUS_BYTES)" in error["message"]
    error = refusal(small.http.post("/generate", json={"instruction": "x" * 4000}), 413)
    assert "2,048 bytes (SELFSPEC_MAX_UPLOAD_BYTES)" in error["message"]
    assert len(small.http.get("/corpora").json()["data"]) == 1


def test_bad_lines_are_named_and_nothing_is_stored(small: Service) -> None:
    long = f'{{"text": "{"x" * 101}"}}'
    body = '{"text": "Good."}\n{"text": 3}\n{"text": "open\n{"id": [], "text": "Good too."}\n' + long
    problems = refusal(small.http.post("/corpora", content=body, headers=JSONL), 422)["problems"]
    told = [(problem["line"], problem["field"], problem["source"]) for problem in problems]
    assert told == [(2, "text", "file"), (3, "json", "file"), (4, "id", "file"), (5, "text", "file")]
    assert small.stored() == []
    assert small.http.get("/corpora").json() == {"data": []}


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        ({"content": b"", "headers": JSONL}, 422, "not one passage"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 415, "application/x-ndjson"),
        ({"files": {"other": ("a.txt", b"One.")}}, 422, "curl -F file=@"),
        ({"data": {"file": "One."}, "files": {"more": ("", b"")}}, 422, "curl -F file=@"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"One.", "params": {"name": "x" * 501}}, 422, "name: is 501 characters long"),
    ],
)
def test_other_refusals(service: Service, sent: dict[str, Any], status: int, message: str) -> None:
    assert message in refusal(service.http.post("/corpora", **sent), status)["message"]
    assert service.stored() == []


def test_unknown_corpora_and_queries(service: Service) -> None:
    for path in ("/corpora/0000000000000000", "/corpora/../x", "/corpora/0000000000000000/search?q=a"):
        refusal(service.http.get(path), 404)
    made = service.http.post("/corpora", content=LINES).json()["id"]
    for query in ("", "?q=", "?q=a&k=0", "?q=a&k=51"):
        refusal(service.http.get(f"/corpora/{made}/search{query}"), 422)
    assert service.http.get(f"/corpora/{made}/search?q=zebra").json() == {"data": []}


def test_a_recipe_names_a_corpus_that_is_there(service: Service) -> None:
    made = service.http.post("/corpora", content=LINES).json()["id"]
    retrieval = {"preset": "quick", "retrieval": "token"}
    error = refusal(service.specialize(recipe={**retrieval, "corpus": "nowhere"}), 422)
    assert [problem["field"] for problem in error["problems"]] == ["recipe.corpus"]
    assert made in error["message"]
    assert service.num_jobs() == 0
    assert service.specialize(recipe={**retrieval, "corpus": made}).status_code == 202
