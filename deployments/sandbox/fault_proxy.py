"""What stands between the product and an outside system and lets requests go wrong on demand, as networks and servers do.

A proxy asks `choose` about every request, by its first line, and either forwards it or lets it meet a fault. The server behind
it never knows of that: so a lost reply is lost after the true effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from deployments.sandbox.http_server import Startable

SILENT_SECONDS = 10.0
START_SECONDS = 10.0
CHUNK_BYTES = 1 << 16
HEAD_END = b"\r\n\r\n"


class Mishap(StrEnum):
    """What happens to a request."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    SERVER_ERROR = "500"
    TOO_MANY_REQUESTS = "429"
    CONFLICT = "409"
    REPLY_LOST = "reply lost"


ANSWERS = {
    Mishap.SERVER_ERROR: b"HTTP/1.1 500 Internal Server Error\r\n",
    Mishap.TOO_MANY_REQUESTS: b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
    Mishap.CONFLICT: b"HTTP/1.1 409 Conflict\r\n",
}
REST_OF_ANSWER = b"Content-Type: text/plain\r\nContent-Length: 15\r\nConnection: close\r\n\r\na planned fault"

Choose = Callable[[str], Mishap | None]


class _Proxy(Startable):
    """A listener on a free port of the loopback with an event loop of its own."""

    def __init__(self, choose: Choose, *, silent_seconds: float = SILENT_SECONDS) -> None:
        self._choose = choose
        self._silent_seconds = silent_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._server: asyncio.Server
        self.port = 0

    def start(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop)
        self._server = listening.result(START_SECONDS)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)
        self._loop.close()

    async def _close(self) -> None:
        """No longer listen, and end the connections that are open."""
        self._server.close()
        talking = asyncio.all_tasks() - {asyncio.current_task()}
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            writer.close()

    @abstractmethod
    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection."""

    async def _stay_silent(self, reader: StreamReader) -> None:
        """Until the client gives up, or at last the network does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._silent_seconds):
                while await reader.read(CHUNK_BYTES):
                    pass


class HttpFaultProxy(_Proxy):
    """In front of an HTTP server; one request a connection.

    Args:
        upstream: the server's `http://host:port`.
        choose: what happens to a request, by its method and path (`GET /health?x=1`).
        silent_seconds: how long a timeout lasts where the client has none.
    """

    def __init__(self, upstream: str, choose: Choose, *, silent_seconds: float = SILENT_SECONDS) -> None:
        super().__init__(choose, silent_seconds=silent_seconds)
        address = urlsplit(upstream)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        head, body = await _read_request(reader, writer)
        mishap = self._choose(head.partition(b" HTTP/")[0].decode("latin-1"))
        match mishap:
            case Mishap.REFUSED:
                writer.transport.abort()
            case Mishap.TIMEOUT:
                await self._stay_silent(reader)
            case Mishap.SERVER_ERROR | Mishap.TOO_MANY_REQUESTS | Mishap.CONFLICT:
                writer.write(ANSWERS[mishap] + REST_OF_ANSWER)
                await writer.drain()
            case Mishap.REPLY_LOST | None:
                answer = await self._forward(head, body)
                if mishap is None:
                    writer.write(answer)
                    await writer.drain()
                else:
                    writer.transport.abort()

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(_for_one_request(head) + body)
            await writer.drain()
            return await reader.read(-1)
        finally:
            writer.close()


async def _read_request(reader: StreamReader, writer: StreamWriter) -> tuple[bytes, bytes]:
    head = await reader.readuntil(HEAD_END)
    if _header(head, b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if _header(head, b"transfer-encoding") == b"chunked":
        return head, await _read_chunks(reader)
    return head, await reader.readexactly(int(_header(head, b"content-length") or 0))


async def _read_chunks(reader: StreamReader) -> bytes:
    """The body as it is on the wire, with the chunks' sizes."""
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        body += line
        if size := int(line.partition(b";")[0], 16):
            body += await reader.readexactly(size + 2)
            continue
        while line not in (b"\r\n", b""):
            line = await reader.readline()
            body += line
        return body


def _header(head: bytes, name: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return next((value.strip() for key, _, value in lines if key.lower() == name), b"")


def _for_one_request(head: bytes) -> bytes:
    """The head as the server gets it: it closes the connection afterwards, and nobody waits for a 100."""
    lines = head.removesuffix(HEAD_END).split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].lower() not in (b"connection", b"expect")]
    return b"\r\n".join([*kept, b"Connection: close"]) + HEAD_END


class PostgresFaultProxy(_Proxy):
    """In front of a PostgreSQL on a Unix socket, without TLS.

    Args:
        folder: where the server's socket is.
        choose: what happens to what a client sends: `COMMIT` of a transaction that has written, or `query`. Of the faults there
            are a connection that is cut, one that falls silent, and a lost reply.
        silent_seconds: how long a connection is silent before it is cut.
    """

    def __init__(self, folder: Path, choose: Choose, *, silent_seconds: float = SILENT_SECONDS) -> None:
        super().__init__(choose, silent_seconds=silent_seconds)
        self._socket = str(folder / ".s.PGSQL.5432")

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        is_lost = asyncio.Event()
        answering = asyncio.create_task(_answer(from_server, writer, is_lost))
        try:
            await self._ask(reader, to_server, is_lost)
        finally:
            if not is_lost.is_set():
                answering.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await answering
            writer.transport.abort()
            to_server.close()

    async def _ask(self, reader: StreamReader, to_server: StreamWriter, is_lost: asyncio.Event) -> None:
        has_written = False
        while data := await reader.read(CHUNK_BYTES):
            has_written |= any(word in data for word in (b"INSERT", b"UPDATE", b"DELETE"))
            is_commit = b"COMMIT" in data
            mishap = self._choose("COMMIT" if is_commit and has_written else "query")
            if mishap is Mishap.TIMEOUT:
                await self._stay_silent(reader)
            if mishap in (Mishap.TIMEOUT, Mishap.REFUSED):
                return
            if mishap is Mishap.REPLY_LOST:
                is_lost.set()
            to_server.write(data)
            await to_server.drain()
            if is_lost.is_set():
                return
            has_written &= not is_commit


async def _answer(reader: StreamReader, writer: StreamWriter, is_lost: asyncio.Event) -> None:
    """Forward what the server says, until a reply is to be lost: that one is read, so that it has taken effect, and dropped."""
    while data := await reader.read(CHUNK_BYTES):
        if is_lost.is_set():
            return
        writer.write(data)
        await writer.drain()
