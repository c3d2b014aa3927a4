"""A TCP proxy that stands before a server of a test: it can be cut, as if the server went, and it can stall."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)  # closing tells the other side at once, and nothing lingers


class Proxy:
    """A context; ``port`` on the loopback leads to ``host:port`` while it is whole, and is refused while it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._holder = _bound(0)  # keeps the port ours while nothing listens there
        self.port: int = self._holder.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener: socket.socket | None = None

    def cut(self) -> int:
        """Break every connection, refuse new ones; returns how many there were."""
        if self._listener is not None:
            _close(self._listener)
            self._listener = None
        broken, self._pairs = self._pairs, []
        for pair in broken:
            for end in pair:
                _close(end)
        return len(broken)

    def mend(self) -> None:
        """Let connections through again; also ends a stall."""
        self._flows.set()
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stall(self) -> None:
        """Take whatever is sent and pass nothing on, until it is mended: a server that hangs."""
        self._flows.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _close(caller)
                continue
            self._pairs.append((caller, server))
            for here, there in ((caller, server), (server, caller)):
                threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()
            if listener is not self._listener:  # cut meanwhile
                _close(caller)
                _close(server)

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                self._flows.wait()
                there.sendall(data)
        _close(there)

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.cut()
        self._flows.set()
        self._holder.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def _close(end: socket.socket) -> None:
    """Wakes whoever reads from it, too."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
