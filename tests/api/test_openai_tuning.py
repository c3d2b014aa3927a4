"""OpenAI's fine-tuning with the unmodified ``openai`` client: the whole way from a file of chats to an answer."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

from app.core.states import JobStatus
from tests.api.live import SEEDS, Service, serve
from tests.api.openai_house import MESSAGES, client_of
from tests.api.test_walk import work
from tests.api.tuning_house import CHATS, EVALUATION_CHATS, RECIPE, chat_of, lines, upload, whole
from tests.import_rule import ROOT

BASE = "fake-base"
METHOD: Any = {
    "type": "supervised",
    "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for orders that nobody works on."""
    with serve(tmp_path_factory.mktemp("tuning") / "var") as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with client_of(service) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(client: openai.OpenAI) -> FileObject:
    return upload(client)


def order(client: openai.OpenAI, training_file: str, **options: Any) -> FineTuningJob:
    """A small job; ``recipe`` and the like go beside what the client knows."""
    extra = {"recipe": RECIPE, **options.pop("extra_body", {})}
    given = {"model": BASE, "training_file": training_file, "extra_body": extra, **options}
    return whole(client.fine_tuning.jobs.create(**given))


def own(job: FineTuningJob) -> dict[str, Any]:
    """What we tell beside OpenAI's fields."""
    told: Any = job.to_dict()["selfspec"]
    return dict(told)


def test_the_whole_way(start: Callable[..., Service]) -> None:
    service = start()
    with client_of(service) as client:
        training, validation = upload(client), upload(client, EVALUATION_CHATS, name="valid.jsonl")
        extra = {"recipe": {**RECIPE, "promotion": "manual"}, "description": "Company news"}
        job = order(
            client,
            training.id,
            validation_file=validation.id,
            suffix="finance",
            seed=7,
            method=METHOD,
            metadata={"team": "research"},
            extra_body=extra,
        )
        assert (job.status, job.model, job.organization_id) == ("queued", BASE, "selfspec")
        assert (job.training_file, job.validation_file) == (training.id, validation.id)
        assert (job.seed, job.metadata, job.integrations) == (7, {"team": "research"}, [])
        assert (job.error, job.fine_tuned_model, job.finished_at, job.result_files) == (None, None, None, [])
        assert (own(job)["domain"], own(job)["waits_for"], own(job)["num_evaluation"]) == ("finance", None, 1)
        assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []

        work(service, job.id)
        job = whole(client.fine_tuning.jobs.retrieve(job.id))
        assert (job.status, job.fine_tuned_model) == ("succeeded", "finance@v1")
        assert job.finished_at is not None and job.finished_at >= job.created_at
        assert job.trained_tokens is not None and job.trained_tokens > 0
        check_events(client, job.id)
        check_checkpoint(client, job)
        check_results(client, job)
        with pytest.raises(openai.NotFoundError):  # the gate did not promote it …
            client.chat.completions.create(model="finance", messages=MESSAGES)
        answer = client.chat.completions.create(model=job.fine_tuned_model or "", messages=MESSAGES)
        assert answer.model == "finance@v1"  # … and it can be asked by its own name


def check_events(client: openai.OpenAI, job_id: str) -> None:
    """Newest first, every one once, however they are paged."""
    events = [whole(event) for event in client.fine_tuning.jobs.list_events(job_id, limit=7)]
    numbers = [int(event.id.removeprefix("ftevent-")) for event in events]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [event.id for event in client.fine_tuning.jobs.list_events(job_id, limit=100)] == [e.id for e in events]
    assert ("finance@v1" in events[0].message, events[0].type) == (True, "message")
    assert {event.level for event in events} <= {"info", "warn"}
    steps: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert steps and all(step["step"] <= step["total_steps"] and step["train_loss"] > 0 for step in steps)


def check_checkpoint(client: openai.OpenAI, job: FineTuningJob) -> None:
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    whole(whole(checkpoint).metrics)
    assert (checkpoint.fine_tuning_job_id, checkpoint.fine_tuned_model_checkpoint) == (job.id, job.fine_tuned_model)
    assert checkpoint.step_number == checkpoint.metrics.step == own(job)["progress"][3]["total"]
    assert client.chat.completions.create(model=checkpoint.fine_tuned_model_checkpoint, messages=MESSAGES).choices
    assert client.fine_tuning.jobs.checkpoints.list(job.id, after=checkpoint.id).data == []
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.checkpoints.list(job.id, after="ftckpt-0")


def check_results(client: openai.OpenAI, job: FineTuningJob) -> None:
    """Losses, training rows, figures."""
    files = [whole(client.files.retrieve(file_id)) for file_id in job.result_files]
    assert {file.purpose for file in files} == {"fine-tune-results"}
    contents = [client.files.content(file.id).read() for file in files]
    assert [file.bytes for file in files] == [len(content) for content in contents]
    steps = list(csv.DictReader(contents[0].decode().splitlines()))
    assert [int(step["step"]) for step in steps] == list(range(1, len(steps) + 1))
    assert all(float(step["train_loss"]) > 0 for step in steps)
    rows, figures = ([json.loads(line) for line in content.splitlines()] for content in contents[1:])
    assert [row["input"] for row in rows if row["origin"] == "seed"] == [seed["input"] for seed in SEEDS]
    assert {figure["task"] for figure in figures} >= {"mean", "chat"}


def test_a_job_by_another_door_looks_the_same(start: Callable[..., Service]) -> None:
    """Its seeds are its training file, and can be learned again."""
    service = start()
    with client_of(service) as client:
        job_id = service.specialize(recipe=RECIPE, evaluation=None).json()["id"]
        work(service, job_id)
        [job] = client.fine_tuning.jobs.list()
        assert (whole(job).id, job.status, job.fine_tuned_model) == (job_id, "succeeded", "finance@v1")
        assert (job.metadata, job.validation_file, job.model) == (None, None, BASE)
        assert job.hyperparameters.learning_rate_multiplier == 1.0
        again = order(client, job.training_file, suffix="finance")
        assert own(again)["num_seeds"] == len(SEEDS)
        work(service, again.id)
        assert client.fine_tuning.jobs.retrieve(again.id).fine_tuned_model == "finance@v1"  # the same weights


def test_hyperparameters_are_knobs(client: openai.OpenAI, file: FileObject) -> None:
    plain = order(client, file.id, suffix="plain")
    recipe = own(plain)["recipe"]
    knobs = plain.hyperparameters
    assert (knobs.batch_size, knobs.n_epochs) == (recipe["batch_size"], recipe["epochs"])
    assert (knobs.learning_rate_multiplier, plain.seed) == (1.0, recipe["seed"])
    older: Any = {"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 0.5}
    for given in ({"hyperparameters": older}, {"method": METHOD, "hyperparameters": {"batch_size": 3}}):
        job = order(client, file.id, suffix="changed", **given)
        changed = own(job)["recipe"]
        assert (changed["epochs"], changed["batch_size"]) == (2, 3)
        assert changed["learning_rate"] == recipe["learning_rate"] / 2
        assert job.hyperparameters.to_dict() == older
        assert job.to_dict()["method"] == {"type": "supervised", "supervised": {"hyperparameters": older}}
    slower = order(client, file.id, extra_body={"recipe": {"learning_rate": 1e-4}}, method=METHOD)
    assert (own(slower)["recipe"]["learning_rate"], slower.hyperparameters.learning_rate_multiplier) == (5e-5, 0.5)


def test_a_suffix_names_the_domain(client: openai.OpenAI, file: FileObject) -> None:
    """Without one the file does, so that a second training of it is the next version."""
    assert own(order(client, file.id, suffix="my-domain_2"))["domain"] == "my-domain_2"
    first, second = order(client, file.id), order(client, file.id)
    assert own(first)["domain"] == own(second)["domain"]
    assert own(first)["domain"].startswith("ft-")
    assert (first.to_dict()["user_provided_suffix"], first.id != second.id) == (None, True)
    assert own(order(client, upload(client).id))["domain"] != own(first)["domain"]


def test_pause_resume_cancel(client: openai.OpenAI, file: FileObject) -> None:
    job = order(client, file.id)
    paused = whole(client.fine_tuning.jobs.pause(job.id))
    assert (paused.status, own(paused)["waits_for"]) == ("queued", "resume")
    resumed = whole(client.fine_tuning.jobs.resume(job.id))
    assert (resumed.status, own(resumed)["waits_for"]) == ("queued", None)
    with pytest.raises(openai.ConflictError, match="was not paused"):
        client.fine_tuning.jobs.resume(job.id)
    cancelled = whole(client.fine_tuning.jobs.cancel(job.id))
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert client.fine_tuning.jobs.cancel(job.id) == cancelled
    with pytest.raises(openai.ConflictError, match="nothing to pause"):
        client.fine_tuning.jobs.pause(job.id)


def test_a_job_that_failed_says_why(start: Callable[..., Service]) -> None:
    service = start()
    with client_of(service) as client:
        job = order(client, upload(client).id)
        shutil.rmtree(service.resources.settings.artifacts_dir / "seeds")
        work(service, job.id)
        failed = whole(client.fine_tuning.jobs.retrieve(job.id))
        assert (failed.status, failed.fine_tuned_model, failed.result_files) == ("failed", None, [])
        assert failed.error is not None
        assert (whole(failed.error).code, "there is no artifact" in failed.error.message) == ("not_found", True)
        [event] = client.fine_tuning.jobs.list_events(job.id, limit=1).data
        assert (event.level, event.message) == ("error", failed.error.message)


def test_lists(start: Callable[..., Service]) -> None:
    """Newest first, jobs of both doors, by metadata, in pages."""
    service = start()
    with client_of(service) as client:
        native = service.specialize().json()["id"]
        file = upload(client).id
        labels: list[dict[str, str]] = [{"team": "a"}, {"team": "b", 'k"\\[é': ""}, {"team": "a", "run": "2"}]
        a, b, c = (order(client, file, suffix="x", metadata=metadata).id for metadata in labels)
        assert [whole(job).id for job in client.fine_tuning.jobs.list(limit=2)] == [c, b, a, native]
        page = client.fine_tuning.jobs.list(limit=2, after=c)
        assert ([job.id for job in page.data], page.has_more) == ([b, a], True)
        wanted: list[tuple[dict[str, str], list[str]]] = [
            ({"team": "a"}, [c, a]),
            ({"team": "a", "run": "2"}, [c]),
            ({'k"\\[é': ""}, [b]),
            ({"team": ""}, []),
            ({}, [c, b, a, native]),
        ]
        for metadata, ids in wanted:
            assert [job.id for job in client.fine_tuning.jobs.list(metadata=metadata, limit=1)] == ids
        assert [job.id for job in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [native]
        with pytest.raises(openai.BadRequestError):
            client.fine_tuning.jobs.list(extra_query={"metadata": "a"})
        with pytest.raises(openai.NotFoundError):
            client.fine_tuning.jobs.list(after="job-0")


def test_the_same_order_again(service: Service, client: openai.OpenAI, file: FileObject) -> None:
    """A client that lost the answer asks again with its key, and gets the job there is."""
    key = {"Idempotency-Key": "order-1"}
    first, second = (order(client, file.id, suffix="once", extra_headers=key) for _ in range(2))
    assert first.id == second.id
    with pytest.raises(openai.ConflictError, match=first.id):
        order(client, file.id, suffix="other", extra_headers=key)


@pytest.mark.parametrize(
    ("changes", "param", "told"),
    [
        ({"model": "gpt-4o-mini"}, "model", "name that"),
        ({"model": "finance@v1"}, "model", "'fake-base'"),
        ({"training_file": "file-none"}, "training_file", "there is no file 'file-none'"),
        ({"training_file": "file-\x00"}, "training_file", "U+0000"),  # which PostgreSQL cannot look up
        ({"validation_file": "file-set-0"}, "validation_file", "there is no file 'file-set-0'"),
        ({"suffix": "My Domain"}, "suffix", "cannot be part of a domain's name"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method", "the one method is supervised"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo", "not supported"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater than or equal to 1"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", 'a number or "auto"'),
        ({"hyperparameters": {"learning_rate_multiplier": 1e6}}, "hyperparameters.learning_rate_multiplier", "100"),
        ({"hyperparameters": {"n_epochs": 101}}, "recipe.epochs", "100"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations", "not supported"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "at most 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "at most 512"),
        ({"extra_body": {"recipe": {"epoch": 3}}}, "recipe.epoch", "did you mean 'epochs'?"),
        ({"extra_body": {"recipe": {"preset": ["quick"]}}}, "recipe.preset", "must be a text"),
        ({"extra_body": {"recipe": {"epochs": 3}}, "hyperparameters": {"n_epochs": 2}}, "recipe.epochs", "twice"),
        ({"extra_body": {"descriptoin": "x"}}, "descriptoin", "did you mean description?"),
        ({"extra_body": {"webhook_url": "https://example.org"}}, "webhook_url", "SELFSPEC_WEBHOOK_SECRET"),
    ],
)
def test_orders_that_cannot_be_carried_out(
    service: Service, client: openai.OpenAI, file: FileObject, changes: dict[str, Any], param: str, told: str
) -> None:
    before = service.num_jobs()
    with pytest.raises(openai.BadRequestError) as refusal:
        order(client, **{"training_file": file.id, **changes})
    error = refusal.value
    assert (error.param or "").startswith(param)
    assert (error.code, error.type, told in error.message) == ("invalid_input", "invalid_request_error", True)
    assert service.num_jobs() == before


def test_files_are_read_again_when_they_are_ordered(service: Service, client: openai.OpenAI, file: FileObject) -> None:
    """Files for other purposes were not checked, and two files may not go together."""
    notes = client.files.create(file=("notes.jsonl", lines(chat_of(SEEDS[0]), {"a": 1})), purpose="user_data").id
    with pytest.raises(openai.BadRequestError) as refusal:
        order(client, notes)
    assert (refusal.value.param, "training_file, line 2" in refusal.value.message) == ("training_file", True)
    with pytest.raises(openai.BadRequestError) as refusal:
        order(client, file.id, validation_file=file.id)
    assert refusal.value.param == "validation_file"
    assert "validation_file, line 1, item: leakage" in refusal.value.message


def test_a_webhook(start: Callable[..., Service]) -> None:
    service = start(webhook_secret="correct-horse-battery", webhook_allow_private=True)
    with client_of(service) as client:
        url = "http://127.0.0.1:9/hook"
        job = order(client, upload(client).id, extra_body={"webhook_url": url})
        assert service.job(job.id).webhook_url == url


def test_the_example_of_the_docs(start: Callable[..., Service], capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, but for the base's name and the address; what it waits for is done in place of waiting."""
    page = (ROOT / "docs" / "openai.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    service = start()
    with client_of(service) as client:
        lines_there = {
            'client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="any")\n': "",
            '"smollm2-135m-instruct"': repr(BASE),
            "examples/finance/seeds.jsonl": str(ROOT / "examples" / "finance" / "seeds.jsonl"),
            "time.sleep(5)": "work(service, job.id)",
            '{"preset": "quick"}': repr(RECIPE),
        }
        for there, here in lines_there.items():
            assert there in code
            code = code.replace(there, here)
        told: dict[str, Any] = {"client": client, "service": service, "work": work}
        exec(compile(code, "docs/openai.md", "exec"), told)
        assert told["answer"].model == "finance@v1"
        assert "finance@v1" in capsys.readouterr().out


def test_jobs_that_are_not_there(client: openai.OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError) as refusal:
            ask("job-none")
        assert (refusal.value.param, refusal.value.code) == ("fine_tuning_job_id", "not_found")


def test_pages_that_cannot_be(service: Service, client: openai.OpenAI, file: FileObject) -> None:
    job_id = order(client, file.id).id
    for ask in (
        lambda: client.fine_tuning.jobs.list(limit=0),
        lambda: client.fine_tuning.jobs.list_events(job_id, after="17"),
        lambda: client.fine_tuning.jobs.list_events(job_id, after="ftevent-x"),
        lambda: client.files.list(limit=10_001),
    ):
        with pytest.raises(openai.BadRequestError):
            ask()


def test_the_async_client(service: Service) -> None:
    async def walk() -> tuple[str, str | None, int]:
        http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False)
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", http_client=http) as client:
            file = await client.files.create(file=("train.jsonl", CHATS), purpose="fine-tune")
            jobs = client.fine_tuning.jobs
            job = await jobs.create(model=BASE, training_file=file.id, extra_body={"recipe": RECIPE})
            await asyncio.to_thread(work, service, job.id)
            job = await jobs.retrieve(job.id)
            events = [event async for event in jobs.list_events(job.id, limit=5)]
            return job.status, job.fine_tuned_model, len(events)

    status, model, num_events = asyncio.run(walk())
    assert status == JobStatus.SUCCEEDED
    assert model is not None and model.endswith("@v1")
    assert num_events > 5
