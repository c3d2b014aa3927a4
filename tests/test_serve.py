"""What stands in the way of the service is told before it starts, in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import SetupError
from app.serve import check_port, check_space, child_environment, local_url, what_is_missing
from app.settings import Settings


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port someone listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_told_with_the_remedy(taken_port: int) -> None:
    with pytest.raises(SetupError, match=rf"port {taken_port} on 127.0.0.1 is in use: .*SELFSPEC_PORT="):
        check_port("127.0.0.1", taken_port)


def test_a_free_port_passes(taken_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert free != taken_port
    check_port("127.0.0.1", free)


def test_a_full_disk_is_told_before_anything_starts(tmp_path: Path) -> None:
    check_space(tmp_path, num_bytes=1)
    with pytest.raises(SetupError, match=r"the disk of .* is full: \d+ MB free, 1000000 MB needed"):
        check_space(tmp_path, num_bytes=10**12)


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(SetupError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_url_is_one_this_machine_can_reach(host: str, url: str) -> None:
    assert local_url(Settings(host=host, port=8000)) == url


def test_nobody_there_counts_as_starting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert what_is_missing(f"http://127.0.0.1:{port}") == "the API is starting"


def test_children_get_bounded_threads_and_the_same_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # what a person says wins
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.chdir(tmp_path)
    environment = child_environment(Settings(data_dir=Path("here"), threads=3))
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["MKL_NUM_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 0 < int(environment["GOMP_SPINCOUNT"]) < 1_000_000
    assert environment["SELFSPEC_DATA_DIR"] == str(tmp_path / "here")
