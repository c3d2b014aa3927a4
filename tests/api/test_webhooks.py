"""``webhook_url`` of a job, from the request to the receiver; the sender runs in the API's process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import openai
import pytest

from tests.api.live import SEEDS, Service
from tests.receiver import Receiver, receiving

SECRET = "correct horse battery staple"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as listening:
        yield listening


def test_the_receiver_is_told_of_the_end(start: Callable[..., Service], receiver: Receiver) -> None:
    """As JSON and as a form; a repeated request that names another receiver is another request."""
    service = start(webhook_secret=SECRET, webhook_allow_private=True)
    key = {"Idempotency-Key": "once"}
    body = {"domain": "finance", "seeds": SEEDS, "webhook_url": receiver.url()}
    posted = service.http.post("/specialize", json=body, headers=key)
    assert posted.status_code == 202, posted.text
    other = service.http.post("/specialize", json={**body, "webhook_url": receiver.url("localhost")}, headers=key)
    assert other.status_code == 409
    file = {"seeds": ("seeds.jsonl", "\n".join(map(json.dumps, SEEDS)).encode())}
    sent = service.http.post("/specialize", data={"domain": "law", "webhook_url": receiver.url()}, files=file)
    assert sent.status_code == 202, sent.text
    jobs = {posted.json()["id"], sent.json()["id"]}
    for job_id in jobs:
        service.http.post(f"/jobs/{job_id}/cancel")
    client, told = openai.OpenAI(api_key="any", webhook_secret=SECRET), set()
    for _ in jobs:
        got = receiver.arrivals.get(timeout=30)
        event = client.webhooks.unwrap(got.body, got.headers)
        assert event.type == "fine_tuning.job.cancelled"
        told.add(event.data.id)
    assert told == jobs


def test_refused_without_a_secret(service: Service) -> None:
    before = service.stored()
    refusal = service.specialize(webhook_url="https://example.com/hook")
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (422, "webhook_url")
    assert "SELFSPEC_WEBHOOK_SECRET" in refusal.json()["error"]["message"]
    assert service.stored() == before


def test_refused_where_it_may_not_go(start: Callable[..., Service], receiver: Receiver) -> None:
    """All faults of a request at once, this one among them."""
    service = start(webhook_secret=SECRET)
    refusal = service.specialize(webhook_url=receiver.url(), recipe={"epoch": 1}).json()["error"]
    assert [problem["field"] for problem in refusal["problems"]] == ["webhook_url", "recipe.epoch"]
    assert "SELFSPEC_WEBHOOK_ALLOW_PRIVATE" in refusal["message"]


@pytest.mark.parametrize("secret", ["short", "whsec_no base64 at all!"])
@pytest.mark.parametrize("name", ["webhook_secret", "webhook_previous_secret"])
def test_a_secret_that_signs_nothing_stops_the_start(start: Callable[..., Service], name: str, secret: str) -> None:
    with pytest.raises(ValueError, match=name):
        start(**{"webhook_secret": SECRET, name: secret})


def test_a_previous_secret_signs_beside_the_new_one_only(start: Callable[..., Service]) -> None:
    with pytest.raises(ValueError, match="SELFSPEC_WEBHOOK_SECRET"):
        start(webhook_previous_secret=SECRET)
