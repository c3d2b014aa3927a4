"""OpenAI's files with the unmodified ``openai`` client: taken in, checked by line, listed, handed back, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from app.core.states import JobStatus
from tests.api.live import SEEDS, Service, serve
from tests.api.openai_house import client_of
from tests.api.tuning_house import CHATS, chat_of, lines, upload, whole


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("files") / "var", max_seeds=20, max_upload_bytes=50_000) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service) as opened:
        yield opened


def test_a_file_comes_back_as_it_was_sent(client: openai.OpenAI) -> None:
    for data in (CHATS, lines(*SEEDS), lines(chat_of(SEEDS[0]), *SEEDS[1:])):
        file = upload(client, data, name="Größe.jsonl")
        assert (file.bytes, file.filename, file.purpose) == (len(data), "Größe.jsonl", "fine-tune")
        assert (file.status, file.expires_at) == ("processed", None)
        assert whole(client.files.retrieve(file.id)) == file
        assert client.files.content(file.id).read() == data


def test_a_deleted_file_is_off_the_disk(service: Service, client: openai.OpenAI) -> None:
    """Another file with the same content keeps it."""
    before = service.stored()
    first, second = upload(client), upload(client)
    with_both = service.stored()
    gone = whole(client.files.delete(first.id))
    assert len(before) < len(service.stored()) < len(with_both)
    assert (gone.id, gone.deleted) == (first.id, True)
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refusal:
            ask(first.id)
        assert (refusal.value.param, refusal.value.code) == ("file_id", "not_found")
    assert client.files.content(second.id).read() == CHATS
    client.files.delete(second.id)
    assert service.stored() == before


def test_lists(start: Callable[..., Service]) -> None:
    """Newest first unless asked otherwise; paging meets every file once."""
    with client_of(start()) as client:
        assert client.files.list().data == []
        sent = [upload(client).id for _ in range(5)]
        notes = client.files.create(file=("notes.txt", b"anything"), purpose="user_data")
        assert [file.id for file in client.files.list()] == [notes.id, *reversed(sent)]
        assert [file.id for file in client.files.list(order="asc", limit=2)] == [*sent, notes.id]
        assert [file.id for file in client.files.list(purpose="fine-tune", limit=2)] == [*reversed(sent)]
        page = client.files.list(limit=2, after=sent[3])
        assert ([file.id for file in page.data], page.has_more) == ([sent[2], sent[1]], True)
        assert all(whole(file) for file in page.data)
        with pytest.raises(openai.NotFoundError):
            client.files.list(after="file-none")


def test_a_lifetime(service: Service, client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("a.jsonl", CHATS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    assert client.files.retrieve(file.id) == file


@pytest.mark.parametrize("purpose", ["evals", "user_data"])
def test_other_files_are_kept_as_they_are(client: openai.OpenAI, purpose: Any) -> None:
    data = b"\xff\x00 whatever"
    file = client.files.create(file=("x.bin", data), purpose=purpose)
    assert (file.purpose, client.files.content(file.id).read()) == (purpose, data)


def test_purposes_of_our_own(client: openai.OpenAI) -> None:
    purposes: list[Any] = ["selfspec-seeds", "selfspec-evaluation"]
    for purpose in purposes:
        assert client.files.create(file=("s.jsonl", lines(*SEEDS)), purpose=purpose).purpose == purpose
        with pytest.raises(openai.BadRequestError):
            client.files.create(file=("s.jsonl", b"no examples"), purpose=purpose)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (lines(*SEEDS, chat_of({**SEEDS[0], "output": " "})), "file, line 5, messages.2.content: is empty"),
        (lines({"messages": [{"role": "user", "content": "Hi"}]}), "file, line 1, messages: must be a list of"),
        (lines(SEEDS[0], {"prompt": "Hi", "completion": "Hello"}), "file, line 2"),
        (lines(SEEDS[0], SEEDS[0]), "file, line 2, item: duplicate: the same as line 1"),
        (b'{"messages": [', "file, line 1, json: broken JSON"),
        (lines(*SEEDS) + b"\xe9", "file, line 5, file: not UTF-8"),
        (b"", "there is not one item in file"),
    ],
)
def test_wrong_lines_are_named(service: Service, client: openai.OpenAI, data: bytes, told: str) -> None:
    before = service.stored()
    with pytest.raises(openai.BadRequestError) as refusal:
        upload(client, data)
    assert (refusal.value.param, refusal.value.code) == ("file", "invalid_input")
    assert told in refusal.value.message
    assert service.stored() == before


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tuning"}, "purpose"),
        ({"purpose": "selfspec-corpus"}, "purpose"),
        ({"purpose": "user_data", "file": ("empty", b"")}, "file"),
        ({"file": ("x" * 256, CHATS)}, "file"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "last_active_at", "seconds": 3600}}, "expires_after.anchor"),
        ({"extra_body": {"note": "x"}}, "note"),
    ],
)
def test_forms_that_cannot_be_used(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.files.create(**{"file": ("a.jsonl", CHATS), "purpose": "fine-tune", **fields})
    assert refusal.value.param == param


def test_forms_that_are_none(service: Service) -> None:
    http = service.http
    assert http.post("/v1/files", json={"purpose": "fine-tune"}).status_code == 415
    assert http.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": ("", b"")}).status_code == 400
    for files in ({"purpose": ("purpose", b"fine-tune")}, {"file": ("a", b"x"), "purpose": ("purpose", b"x")}):
        answer = http.post("/v1/files", files=files)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    broken = http.post("/v1/files", content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"})
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")


def test_too_much(client: openai.OpenAI) -> None:
    many = lines(*({**SEEDS[0], "input": str(number)} for number in range(21)))
    for data in (many, b"x" * 60_000):
        with pytest.raises(openai.APIStatusError) as refusal:
            upload(client, data)
        assert (refusal.value.status_code, refusal.value.code) == (413, "too_large")


def test_a_file_that_is_needed_stays(start: Callable[..., Service]) -> None:
    service = start()
    with client_of(service) as client:
        file, other = upload(client), upload(client)
        order: dict[str, Any] = {"model": "fake-base", "training_file": file.id, "extra_body": {"recipe": {}}}
        job = client.fine_tuning.jobs.create(**order, suffix="finance")
        with pytest.raises(openai.ConflictError, match=job.id):
            client.files.delete(file.id)
        assert client.files.delete(other.id).deleted
        service.finish(job.id, JobStatus.FAILED)
        assert client.files.delete(file.id).deleted
        assert client.fine_tuning.jobs.retrieve(job.id).training_file == file.id


def test_files_of_jobs_that_came_by_another_door(service: Service, client: openai.OpenAI) -> None:
    job_id = service.specialize(domain="law").json()["id"]
    job = client.fine_tuning.jobs.retrieve(job_id)
    file = whole(client.files.retrieve(job.training_file))
    content = client.files.content(file.id).read()
    assert (file.purpose, file.filename, file.bytes) == ("fine-tune", "law-seeds.jsonl", len(content))
    assert content.count(b"\n") == len(SEEDS)
    assert client.files.retrieve(job.validation_file or "").filename == "law-evaluation.jsonl"
    with pytest.raises(openai.ConflictError, match="belongs to a job"):
        client.files.delete(file.id)
    for missing in ("file-set-0", f"file-{job_id}-dataset", "file-job-0-steps"):
        with pytest.raises(openai.NotFoundError, match=missing):
            client.files.content(missing)
