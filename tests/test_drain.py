"""A process that is told to end lets requests in flight finish, takes no new ones, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.bootstrap import build, migrate
from app.engine.fake import FakeEngine
from app.main import create_app
from app.server import DrainingServer
from app.settings import Settings

QUESTION = {"instruction": "What is it?", "max_new_tokens": 12}


class LiveServer(DrainingServer):
    """Says when it listens."""

    is_up: threading.Event

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@dataclass
class Running:
    """A served application, its engine, and the thread it ends with."""

    engine: FakeEngine
    server: LiveServer
    thread: threading.Thread
    client: httpx.Client

    def tell_to_end(self) -> None:
        """What SIGTERM does; returns when the process says that it is about to end."""
        self.server.should_exit = True
        while self.client.get("/ready").json()["checks"]["drain"]["ok"]:
            pass


@contextmanager
def running(folder: Path, *, drain_seconds: float) -> Iterator[Running]:
    settings = Settings(data_dir=folder, engine="fake", base="fake-base", warm_up=False)
    migrate(settings)
    resources = build(settings, role="api")
    app = create_app(resources)
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
    server = LiveServer(config, drain=app.state.drain, drain_seconds=drain_seconds)
    server.is_up = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert server.is_up.wait(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            assert isinstance(resources.engine, FakeEngine)
            yield Running(resources.engine, server, thread, client)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        resources.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running(tmp_path, **options))


def test_requests_in_flight_finish_and_new_ones_are_refused(serve: Callable[..., Running]) -> None:
    service = serve(drain_seconds=600)
    with ThreadPoolExecutor() as pool:
        with service.engine.hold():
            asked = pool.submit(service.client.post, "/generate", json=QUESTION)
            service.engine.wait_stats(waiting=1)
            service.tell_to_end()
            for path in ("/generate", "/v1/chat/completions"):
                refused = service.client.post(path, json=QUESTION)
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) > 0
                assert "shutting down" in refused.json()["error"]["message"]
            assert service.client.get("/health").status_code == 200
            assert service.client.get("/ready").status_code == 503
            assert "selfspec_waiting" in service.client.get("/metrics").text
            assert not asked.done()
        assert asked.result().status_code == 200
    service.thread.join(30)
    assert not service.thread.is_alive()


def test_what_does_not_finish_in_time_is_told(serve: Callable[..., Running]) -> None:
    service = serve(drain_seconds=0)
    with service.engine.hold(), ThreadPoolExecutor() as pool:
        asked = pool.submit(service.client.post, "/generate", json=QUESTION)
        service.engine.wait_stats(waiting=1)
        service.server.should_exit = True
        answer = asked.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert "retry-after" in answer.headers
    service.thread.join(30)
    assert not service.thread.is_alive()


def test_a_stream_that_does_not_finish_in_time_ends_with_an_error(serve: Callable[..., Running]) -> None:
    service = serve(drain_seconds=0)
    question = {**QUESTION, "stream": True}
    with service.engine.hold(after_pieces=1), service.client.stream("POST", "/generate", json=question) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        service.server.should_exit = True
        rest = [line for line in lines if line]
    assert first
    assert "not_ready" in "".join(rest)
    service.thread.join(30)
    assert not service.thread.is_alive()


def test_idle_connections_do_not_hold_the_exit(serve: Callable[..., Running]) -> None:
    service = serve(drain_seconds=600)
    assert service.client.get("/health").status_code == 200  # the client keeps its connection
    service.server.should_exit = True
    service.thread.join(30)
    assert not service.thread.is_alive()


def test_followers_of_a_job_do_not_hold_the_exit(serve: Callable[..., Running]) -> None:
    """Their streams end without `done`, so that they ask again elsewhere."""
    service = serve(drain_seconds=600)
    seeds = [{"task": "t", "instruction": "Say it.", "input": word, "output": word} for word in ("one", "two")]
    job = service.client.post("/specialize", json={"domain": "finance", "seeds": seeds}).json()["id"]
    with service.client.stream("GET", f"/jobs/{job}/events?stream=true") as answer:
        lines = answer.iter_lines()
        while next(lines) != "event: job_queued":
            pass
        service.server.should_exit = True
        assert "event: done" not in list(lines)
    service.thread.join(30)
    assert not service.thread.is_alive()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.service
def test_sigterm_drains_a_real_process(tmp_path: Path) -> None:
    """An upload that is half sent is in flight: it is accepted after the signal, and then the process ends."""
    port = free_port()
    environment = {
        **os.environ,
        "SELFSPEC_DATA_DIR": str(tmp_path),
        "SELFSPEC_ENGINE": "fake",
        "SELFSPEC_BASE": "fake-base",
        "SELFSPEC_PORT": str(port),
        "SELFSPEC_DRAIN_S": "600",
        "SELFSPEC_LOG_FORMAT": "json",
    }
    migrate(Settings(data_dir=tmp_path))
    with (
        subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, stderr=subprocess.PIPE) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client,
    ):
        try:
            lines = read_until(process, "uvicorn running")
            body = json.dumps({"domain": "finance", "seeds": []}).encode()
            with socket.create_connection(("127.0.0.1", port)) as upload:
                upload.sendall(head_of(body))
                assert upload.recv(100).startswith(b"HTTP/1.1 100")  # the application waits for the body
                process.send_signal(signal.SIGTERM)
                lines += read_until(process, "draining: 1 requests in flight")
                assert client.get("/domains").status_code == 503
                upload.sendall(body)
                assert upload.recv(100).startswith(b"HTTP/1.1 422")
            rest = process.stderr.read().decode() if process.stderr else ""
            lines += [json.loads(line) for line in rest.splitlines()]
            assert process.wait(30) == -signal.SIGTERM
        finally:
            process.kill()
    access = {line["request_id"]: line for line in lines if line["logger"] == "selfspec.access"}
    assert (access["slow"]["status"], access["slow"]["path"]) == (422, "/specialize")


def head_of(body: bytes) -> bytes:
    """The head of an upload that waits to be told to go on."""
    lines = ["POST /specialize HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "Expect: 100-continue", "X-Request-Id: slow", "", ""]).encode()


def read_until(process: subprocess.Popen[bytes], words: str) -> list[dict[str, Any]]:
    """Log lines up to the one that says this."""
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    for raw in process.stderr:
        lines.append(json.loads(raw))
        if words in lines[-1]["message"].lower():
            return lines
    raise AssertionError(f"the process ended before it said {words!r}: {lines}")
