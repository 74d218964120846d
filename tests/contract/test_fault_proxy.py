"""The fault proxies before a real HTTP server and a real PostgreSQL: what a client sees, and what the server has done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from deployments.sandbox.fault_proxy import HttpFaultProxy, Mishap, PostgresFaultProxy
from deployments.sandbox.http_server import ThreadedServer

SILENT_SECONDS = 0.3


class Planned:
    """What the next request that begins with `line` meets; the lines of all requests."""

    def __init__(self) -> None:
        self.mishap: Mishap | None = None
        self.line = ""
        self.lines: list[str] = []

    def __call__(self, line: str) -> Mishap | None:
        self.lines.append(line)
        return self.mishap if line.startswith(self.line) else None


@pytest.fixture
def planned() -> Planned:
    return Planned()


@pytest.fixture
def bodies() -> list[bytes]:
    """What has arrived at the server."""
    return []


@pytest.fixture
def url(planned: Planned, bodies: list[bytes]) -> Iterator[str]:
    async def keep(request: Request) -> PlainTextResponse:
        bodies.append(await request.body())
        return PlainTextResponse(f"kept {len(bodies[-1])} bytes of {request.url.path}", headers={"X-Kept": "yes"})

    app = Starlette(routes=[Route("/{path:path}", keep, methods=["GET", "PUT"])])
    server = ThreadedServer(app, name="upstream")
    with server, HttpFaultProxy(server.url, planned, silent_seconds=SILENT_SECONDS) as proxy:
        yield proxy.url


def test_without_a_fault_requests_and_answers_pass_unchanged(url: str, planned: Planned, bodies: list[bytes]) -> None:
    answer = httpx.put(f"{url}/a/b?c=d", content=b"x" * 100_000)
    assert (answer.status_code, answer.text, answer.headers["X-Kept"]) == (200, "kept 100000 bytes of /a/b", "yes")
    assert planned.lines == ["PUT /a/b?c=d"]
    assert bodies == [b"x" * 100_000]


def test_a_chunked_body_and_one_that_waits_for_a_go_ahead_arrive_whole(url: str, bodies: list[bytes]) -> None:
    assert httpx.put(url, content=iter([b"one", b"two" * 10_000, b"!"])).status_code == 200
    assert httpx.put(url, content=b"three", headers={"Expect": "100-continue"}).status_code == 200
    assert bodies == [b"one" + b"two" * 10_000 + b"!", b"three"]


@pytest.mark.parametrize(
    ("mishap", "status"), [(Mishap.SERVER_ERROR, 500), (Mishap.TOO_MANY_REQUESTS, 429), (Mishap.CONFLICT, 409)]
)
def test_an_error_is_answered_before_the_server_hears_of_it(
    url: str, planned: Planned, bodies: list[bytes], mishap: Mishap, status: int
) -> None:
    planned.mishap = mishap
    answer = httpx.put(url, content=b"x")
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert bodies == []


def test_a_lost_reply_is_lost_after_the_effect_and_a_refusal_comes_before_it(
    url: str, planned: Planned, bodies: list[bytes]
) -> None:
    planned.mishap = Mishap.REFUSED
    with pytest.raises(httpx.TransportError):
        httpx.put(url, content=b"x")
    assert bodies == []
    planned.mishap = Mishap.REPLY_LOST
    with pytest.raises(httpx.TransportError):
        httpx.put(url, content=b"x")
    assert bodies == [b"x"]


def test_a_timeout_is_silence_until_the_client_gives_up(url: str, planned: Planned, bodies: list[bytes]) -> None:
    planned.mishap = Mishap.TIMEOUT
    with pytest.raises(httpx.ReadTimeout):
        httpx.put(url, content=b"x", timeout=SILENT_SECONDS / 3)
    began = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.put(url, content=b"x", timeout=10)
    assert time.monotonic() - began >= SILENT_SECONDS
    assert bodies == []


@pytest.fixture
def database(postgresql: str, planned: Planned) -> Iterator[psycopg.Connection]:
    """A connection through the proxy, to a table with one row."""
    with psycopg.connect(postgresql, autocommit=True) as direct:
        direct.execute("DROP TABLE IF EXISTS counted")
        direct.execute("CREATE TABLE counted AS SELECT 1 AS number")
    folder = Path(str(make_url(postgresql).query["host"]))
    with PostgresFaultProxy(folder, planned, silent_seconds=SILENT_SECONDS) as proxy:
        connection = psycopg.connect(host="127.0.0.1", port=proxy.port, user="postgres", dbname="postgres", sslmode="disable")
        yield connection
        connection.close()


def counted(postgresql: str) -> int:
    with psycopg.connect(postgresql) as direct:
        found = direct.execute("SELECT number FROM counted").fetchone()
    assert found
    return int(found[0])


def test_only_the_commit_of_a_transaction_that_has_written_is_called_so(
    database: psycopg.Connection, planned: Planned, postgresql: str
) -> None:
    database.execute("SELECT number FROM counted")
    database.commit()
    assert set(planned.lines) == {"query"}
    database.execute("UPDATE counted SET number = number + 1")
    database.commit()
    assert planned.lines[-1] == "COMMIT"
    assert counted(postgresql) == 2


@pytest.mark.parametrize(("mishap", "number"), [(Mishap.REPLY_LOST, 2), (Mishap.REFUSED, 1), (Mishap.TIMEOUT, 1)])
def test_a_commit_is_lost_with_its_reply_alone_or_altogether(
    database: psycopg.Connection, planned: Planned, postgresql: str, mishap: Mishap, number: int
) -> None:
    database.execute("UPDATE counted SET number = number + 1")
    planned.mishap, planned.line = mishap, "COMMIT"
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        database.commit()
    assert (time.monotonic() - began >= SILENT_SECONDS) == (mishap is Mishap.TIMEOUT)
    assert counted(postgresql) == number
