"""The proxy itself, on which the tests of servers that go rely. Needs no server but its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.services_real.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _echo(server: socket.socket) -> None:
    while True:
        try:
            caller, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_send_back, args=(caller,), daemon=True).start()


def _send_back(caller: socket.socket) -> None:
    with caller:
        try:
            while data := caller.recv(100):
                caller.sendall(data)
        except OSError:
            return


def test_it_passes_on_is_cut_and_mended(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as caller:
            caller.sendall(b"here")
            assert caller.recv(100) == b"here"
            assert proxy.cut() == 1
            with suppress(ConnectionResetError):
                assert caller.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port))
        proxy.mend()
        with socket.create_connection(("127.0.0.1", proxy.port)) as caller:
            caller.sendall(b"again")
            assert caller.recv(100) == b"again"


def test_a_stalled_server_answers_when_it_is_mended(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as caller:
        proxy.stall()
        caller.sendall(b"late")
        caller.settimeout(0.05)
        with pytest.raises(TimeoutError):
            caller.recv(100)
        proxy.mend()
        caller.settimeout(30)
        assert caller.recv(100) == b"late"
