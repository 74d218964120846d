"""An outage of any server that speaks TCP, on demand: a gate before it refuses connections, or takes them and keeps silent."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import Self

CHUNK_BYTES = 65_536


class Outage(StrEnum):
    REFUSING = "refusing connections"
    SILENT = "accepting connections and never answering"


class Gate:
    """Forwards a port of its own to a server (host and port, or the path of a Unix socket) until it is shut."""

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self._outage: Outage | None = None
        self._connections: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut(Outage.REFUSING)

    def shut(self, outage: Outage) -> None:
        """From now on; a silent one also keeps silent on what is connected already."""
        self._outage = outage
        if outage is Outage.REFUSING:
            _close(self._listener)
            self._cut()

    def open(self) -> None:
        """Forward again; connections from before do not come back."""
        was, self._outage = self._outage, None
        self._cut()
        if was is Outage.REFUSING:
            self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._accept, args=(listener,), name="gate", daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = listener.accept()
                self._connections.add(connection)
                if self._outage is None:
                    self._join(connection)

    def _join(self, connection: socket.socket) -> None:
        try:
            server = self._connect()
        except OSError:
            _close(connection)
            return
        self._connections.add(server)
        for source, target in ((connection, server), (server, connection)):
            threading.Thread(target=self._forward, args=(source, target), name="gate", daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self._server, str):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            return server
        return socket.create_connection(self._server, timeout=None)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other direction has ended
            while data := source.recv(CHUNK_BYTES):
                if self._outage is Outage.SILENT:
                    return
                target.sendall(data)
        if self._outage is not Outage.SILENT:
            _close(source)
            _close(target)

    def _cut(self) -> None:
        connections, self._connections = self._connections, set()
        for connection in connections:
            _close(connection)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
    one.close()
