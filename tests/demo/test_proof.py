"""The demo believes no answer whose adapter is not the job's own, attached and acting."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from rich.console import Console

from app.api.examples import JOB_ID, QUEUED_JOB
from app.core.errors import SelfspecError
from app.demo.client import Answer, Client, Job
from app.demo.walk import check_proof, follow
from app.processes import Processes

Serve = Callable[[int, dict[str, Any]], Client]
GOOD = {"name": "finance@v1", "attached": True, "num_modules": 210, "probe_distance": 0.3}
JOB = Job("job-1", "succeeded", (), "a1", None, 1)
BASE, EXPERT = Answer("…", None), Answer("…", "a1")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A service that answers everything with one status and body."""
    servers: list[ThreadingHTTPServer] = []
    clients: list[Client] = []

    def start(status: int, body: dict[str, Any]) -> Client:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        clients.append(Client(f"http://127.0.0.1:{server.server_address[1]}"))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.shutdown()
        server.server_close()


def check(client: Client, *, job: Job = JOB, base: Answer = BASE, expert: Answer = EXPERT) -> str:
    """The demo's last step, quietly."""
    return check_proof(client, job, base=base, expert=expert, console=Console(quiet=True))


def test_an_attached_adapter_of_this_job_passes(serve: Serve) -> None:
    assert check(serve(200, GOOD)) == "a1"


@pytest.mark.parametrize("flaw", [{"attached": False}, {"num_modules": 0}, {"probe_distance": 0.0}])
def test_an_adapter_that_does_not_act_is_refused(serve: Serve, flaw: dict[str, Any]) -> None:
    with pytest.raises(SelfspecError, match="adapter a1 is not attached as it should be"):
        check(serve(200, {**GOOD, **flaw}))


def test_another_adapters_answer_is_refused(serve: Serve) -> None:
    with pytest.raises(SelfspecError, match="came from adapter b2, the job's is a1"):
        check(serve(200, GOOD), expert=Answer("…", "b2"))


def test_the_bases_answer_in_the_experts_name_is_refused(serve: Serve) -> None:
    with pytest.raises(SelfspecError, match="came from adapter None, the job's is a1"):
        check(serve(200, GOOD), expert=Answer("…", None))


def test_an_experts_answer_in_the_bases_name_is_refused(serve: Serve) -> None:
    with pytest.raises(SelfspecError, match="the base's answer came from adapter a1"):
        check(serve(200, GOOD), base=EXPERT)


def test_a_refusal_is_told_in_the_services_words(serve: Serve) -> None:
    refusal = {"error": {"code": "not_found", "message": "there is no adapter 'a1'", "param": None}}
    with pytest.raises(SelfspecError, match=r"GET /adapters/a1 answered 404: there is no adapter 'a1'"):
        check(serve(404, refusal))


def test_no_service_is_told_in_one_line() -> None:
    with (
        closing(Client("http://127.0.0.1:9")) as client,
        pytest.raises(SelfspecError, match="GET /adapters/a1: no answer"),
    ):
        check(client)


@pytest.mark.parametrize("waits_for", ["resume", "review"])
def test_a_job_that_somebody_holds_is_not_waited_for(serve: Serve, waits_for: str) -> None:
    """A bug: the demo would have shown its bars for ever."""
    client = serve(200, {**QUEUED_JOB, "waits_for": waits_for})
    told = f"job {JOB_ID} waits for {waits_for}: POST /jobs/{JOB_ID}/resume"
    with Processes((), environment={}) as processes, pytest.raises(SelfspecError, match=told):
        follow(client, client.job(JOB_ID), processes=processes, console=Console(quiet=True))
