"""Webhooks: what is told, how it is signed, how often it is tried, and where it may not go. The receiver is real."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent

from app.core.event_types import EventType
from app.models import WebhookDelivery
from app.services.lease import Held
from app.services.webhook_options import WebhookOptions, key_of
from app.services.webhooks import RETRY_SECONDS, WebhookSender
from tests.receiver import Receiver, receiving
from tests.services.house import EVALUATION, House, MortalEngine

SECRET = "whsec_c2VsZnNwZWMgc2lnbnMgd2l0aCB0aGlzIGtleSE="
OPEN = WebhookOptions((key_of(SECRET),), allow_private=True)
SMALL: dict[str, Any] = {"num_examples": 20, "controls": [], "evaluation_shots": [0], "min_yield": 0}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as listening:
        yield listening


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without rows, to copy."""
    folder = tmp_path_factory.mktemp("tables")
    House(folder).database.dispose()
    return folder / "selfspec.db"


@pytest.fixture
def house(tables: Path, tmp_path: Path) -> House:
    shutil.copy(tables, tmp_path)
    return House(tmp_path)


def order(house: House, url: str | None, **recipe: object) -> str:
    job_id = house.order(evaluation=EVALUATION[:5], **{**SMALL, **recipe})
    with house.database.session() as uow:
        uow.jobs.get(job_id).webhook_url = url
        uow.commit()
    return job_id


def tell(house: House, url: str, type: EventType = "job_succeeded", **data: object) -> str:
    """A job that was told to have ended."""
    job_id = order(house, url)
    with house.database.session() as uow:
        uow.events.add(job_id, type, "finance@v1 is served", now=house.now, data=data)
        uow.commit()
    return job_id


def send(house: House, options: WebhookOptions = OPEN, **given: Any) -> int:
    return asyncio.run(WebhookSender(house.database, options, clock=house.clock, **given).send_due())


def deliveries(house: House, job_id: str) -> list[WebhookDelivery]:
    with house.database.session(read_only=True) as uow:
        return list(uow.webhooks.list(job_id))


def delivery(house: House, job_id: str) -> WebhookDelivery:
    (one,) = deliveries(house, job_id)
    return one


def test_every_end_and_every_wait_for_people_is_told(house: House, receiver: Receiver) -> None:
    """Whoever ends or holds the job: its own process, its worker or a caller."""
    url, mover = receiver.url(), house.services.mover

    def fail() -> None:
        raise RuntimeError("the card fell off")

    reviewed, broken, dropped = order(house, url, review=True), order(house, url), order(house, url)
    with suppress(Held):
        house.run(reviewed)
    mover.resume(reviewed)
    lease = house.take(reviewed)
    mover.pause(reviewed)
    with suppress(Held):
        house.run(reviewed, lease=lease)
    mover.resume(reviewed)
    house.run(reviewed)
    house.run(broken, engine=MortalEngine(fail))
    mover.pause(dropped)
    mover.resume(dropped)
    lease = house.take(dropped)
    mover.cancel(dropped)
    house.leases.end_cancelled(lease)
    mover.retry(dropped)
    mover.cancel(dropped)
    told = {job: [one.type.rpartition(".")[2] for one in deliveries(house, job)] for job in (reviewed, broken, dropped)}
    assert told == {
        reviewed: ["review_wanted", "paused", "succeeded"],
        broken: ["failed"],
        dropped: ["paused", "cancelled", "cancelled"],
    }


def test_a_job_without_a_webhook_tells_nobody(house: House) -> None:
    job_id = order(house, None)
    house.services.mover.cancel(job_id)
    assert deliveries(house, job_id) == []


def test_openais_client_believes_what_is_sent(house: House, receiver: Receiver) -> None:
    """The unmodified package checks the signature and parses the body; a changed body is refused."""
    house.now = datetime.now(UTC)  # it also checks the time
    job_id = tell(house, receiver.url(), adapter="5f0c9b7e2a4d1836")
    assert send(house) == 1
    (got,) = receiver.received
    client = openai.OpenAI(api_key="any", webhook_secret=SECRET)
    event = client.webhooks.unwrap(got.body, got.headers)
    assert isinstance(event, FineTuningJobSucceededWebhookEvent)
    assert (event.object, event.data.id, event.id) == ("event", job_id, got.headers["webhook-id"])
    assert event.created_at == int(house.now.timestamp())
    data = json.loads(got.body)["data"]
    assert (data["domain"], data["detail"]) == ("finance", {"adapter": "5f0c9b7e2a4d1836"})
    assert data["event"] == house.events(job_id, "job_succeeded")[0].id
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(got.body.replace(b"succeeded", b"failed"), got.headers)
    assert got.path == "/hook?of=job"
    assert delivery(house, job_id).delivered_at == house.now
    assert send(house) == 0


def test_a_secret_that_is_plain_text_signs_with_its_own_bytes(house: House, receiver: Receiver) -> None:
    house.now = datetime.now(UTC)
    tell(house, receiver.url())
    send(house, WebhookOptions((key_of("correct horse battery"),), allow_private=True))
    (got,) = receiver.received
    openai.OpenAI(api_key="any").webhooks.verify_signature(got.body, got.headers, secret="correct horse battery")


def test_while_a_secret_is_changed_receivers_may_know_either(house: House, receiver: Receiver) -> None:
    house.now = datetime.now(UTC)
    tell(house, receiver.url())
    send(house, WebhookOptions((key_of("the new secret of ours"), key_of(SECRET)), allow_private=True))
    (got,) = receiver.received
    for secret in ("the new secret of ours", SECRET):
        openai.OpenAI(api_key="any", webhook_secret=secret).webhooks.unwrap(got.body, got.headers)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        openai.OpenAI(api_key="any", webhook_secret="a third secret").webhooks.unwrap(got.body, got.headers)


def test_tried_for_a_day_then_given_up(house: House, receiver: Receiver) -> None:
    """Eight tries of the same id, each signed anew, ever further apart; the job's story says that it was in vain."""
    receiver.status = 500
    job_id = tell(house, receiver.url())
    began, waits = house.now, []
    while (due_at := delivery(house, job_id).due_at) is not None:
        house.now = due_at - timedelta(seconds=1)
        assert due_at == began or send(house) == 0
        house.now = due_at
        assert send(house, draw=lambda: 0.5) == 1
        waits.append(due_at)
    assert len(receiver.received) == len(RETRY_SECONDS) + 1 == 8
    gaps = [(later - sooner).total_seconds() for sooner, later in pairwise(waits)]
    assert gaps == pytest.approx([1.1 * seconds for seconds in RETRY_SECONDS])
    assert gaps == sorted(gaps)
    assert timedelta(hours=20) < house.now - began < timedelta(hours=30)
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.received}) == 8
    (event,) = house.events(job_id, "webhook_given_up")
    assert (event.level, event.data["tries"], event.data["error"]) == ("warning", 8, "answered 500")


def test_what_failed_once_is_delivered_later(house: House, receiver: Receiver) -> None:
    receiver.status = 503
    job_id = tell(house, receiver.url())
    send(house)
    assert delivery(house, job_id).last_error == "answered 503"
    receiver.status = 204
    house.now += timedelta(seconds=RETRY_SECONDS[0] * 2)
    send(house)
    one = delivery(house, job_id)
    assert (one.tries, one.delivered_at, one.last_error, one.due_at) == (2, house.now, None, None)
    assert house.events(job_id, "webhook_given_up") == []


def test_a_receiver_that_is_gone_is_not_asked_again(house: House, receiver: Receiver) -> None:
    receiver.status = 410
    job_id = tell(house, receiver.url())
    send(house)
    assert delivery(house, job_id).due_at is None
    assert house.events(job_id, "webhook_given_up")[0].data["tries"] == 1


def test_redirects_are_not_followed(house: House, receiver: Receiver) -> None:
    """Or a receiver on the internet could send us into the private network."""
    receiver.status, receiver.location = 307, receiver.url("127.0.0.1").replace("hook", "inside")
    job_id = tell(house, receiver.url())
    send(house)
    assert [got.path for got in receiver.received] == ["/hook?of=job"]
    assert delivery(house, job_id).last_error == "answered 307"


def test_one_slow_receiver_is_given_up_and_holds_up_nobody(house: House, receiver: Receiver) -> None:
    receiver.may_answer.clear()
    slow = tell(house, receiver.url())
    with receiving() as other:
        quick = tell(house, other.url())
        assert send(house, timeout_seconds=0.2) == 2
    assert delivery(house, slow).last_error == "no answer in 0.2 s"
    assert delivery(house, quick).delivered_at is not None


def test_nobody_there_is_an_error_like_another(house: House) -> None:
    with receiving() as closed:
        url = closed.url()
    job_id = tell(house, url)
    send(house)
    assert "ConnectError" in str(delivery(house, job_id).last_error)


def test_a_try_that_was_cut_short_is_made_again(house: House, receiver: Receiver) -> None:
    """The process that claimed it was killed: nobody else sends it for a minute, then somebody does."""
    job_id = tell(house, receiver.url())
    with house.database.session() as uow:
        assert uow.webhooks.claim(now=house.now, until=house.now + timedelta(seconds=60), limit=20)
        uow.commit()
    house.now += timedelta(seconds=59)
    assert send(house) == 0
    house.now += timedelta(seconds=1)
    assert send(house) == 1
    assert delivery(house, job_id).tries == 2


def test_the_address_that_was_checked_is_the_one_that_is_called(house: House, receiver: Receiver) -> None:
    """The name goes along as Host; an address that does not answer is followed by the next."""
    options = WebhookOptions(OPEN.keys, allow_private=True, resolve=lambda *_: ["127.0.0.9", "127.0.0.1"])
    tell(house, receiver.url("hooks.example"))
    send(house, options)
    (got,) = receiver.received
    assert got.headers["host"] == f"hooks.example:{receiver.port}"


def test_a_name_that_turns_to_a_private_address_is_not_called(house: House, receiver: Receiver) -> None:
    """It was public when the job was accepted (DNS rebinding)."""
    answers = iter([["93.184.215.14"], ["93.184.215.14", "127.0.0.1"]])
    options = WebhookOptions(OPEN.keys, resolve=lambda *_: next(answers))
    url = receiver.url("rebind.example")
    assert options.problem(url) is None
    job_id = tell(house, url)
    send(house, options)
    assert receiver.received == []
    assert "is at 127.0.0.1" in str(delivery(house, job_id).last_error)


def test_without_a_secret_nothing_is_sent(house: House, receiver: Receiver) -> None:
    """A service that was started again without it; what is put out waits until it is back."""
    tell(house, receiver.url())
    assert send(house, WebhookOptions(allow_private=True)) == 0
    assert send(house) == 1


@pytest.fixture
def certified(tmp_path: Path) -> Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """Makes a certificate for a host: the server's side of it, and a caller's who believes no other."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs the openssl command")

    def certify(host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        subject = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command = [openssl, "req", *kind, *subject, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        return server, ssl.create_default_context(cafile=str(certificate))

    return certify


def test_a_certificate_must_be_the_names_though_the_address_is_called(
    house: House, certified: Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]
) -> None:
    server, believed = certified("hooks.example")
    options = WebhookOptions(OPEN.keys, allow_private=True, resolve=lambda *_: ["127.0.0.1"])
    with receiving(tls=server) as receiver:
        right, wrong = (tell(house, receiver.url(host, scheme="https")) for host in ("hooks.example", "other.example"))
        send(house, options, tls=believed)
    assert delivery(house, right).delivered_at is not None
    assert "CERTIFICATE_VERIFY_FAILED" in str(delivery(house, wrong).last_error)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.com/x", "must be a URL such as"),
        ("example.com/hook", "must be a URL such as"),
        ("https:///hook", "must be a URL such as"),
        ("https://me:pw@example.com/", "must not hold a user"),
        ("https://example.com:99999/", "there are 1 to 65535"),
        ("https://[::1/", "is no URL"),
        ("https://example.com/" + "x" * 2000, "at most 2,000"),
        ("https://example.com/\ud800", "surrogate"),
        (7, "must be a text"),
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://[::1]/", "::1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://10.1.2.3/", "10.1.2.3"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://100.64.0.1/", "100.64.0.1"),
        ("http://224.0.0.1/", "224.0.0.1"),
        ("http://0.0.0.0/", "0.0.0.0"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1"),
        ("http://[64:ff9b::a00:1]/", "64:ff9b::a00:1"),
        ("http://[2002:7f00:1::]/", "2002:7f00:1::"),
        ("http://[fe80::1]/", "fe80::1"),
        ("http://[fc00::1]/", "fc00::1"),
        ("http://[fec0::1]/", "fec0::1"),
        ("http://[ff02::1]/", "ff02::1"),
        ("http://localhost/", "which is not on the public internet"),
    ],
)
def test_where_no_webhook_may_go(url: object, words: str) -> None:
    assert words in str(WebhookOptions(OPEN.keys).problem(url))


@pytest.mark.parametrize(
    "url", ["http://93.184.215.14/", "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8443/a?b=c"]
)
def test_where_a_webhook_may_go(url: str) -> None:
    assert WebhookOptions(OPEN.keys).problem(url) is None


def test_a_host_that_nobody_knows_is_refused() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    assert "cannot be found" in str(WebhookOptions(OPEN.keys, resolve=unknown).problem("https://nowhere.example/"))
