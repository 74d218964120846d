"""The Slack stand-in as a server: the Web API, Socket Mode, response URLs, files and the page, and what tests do with it."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

from deployments.sandbox.faults import Fault, FaultGate
from deployments.sandbox.http_server import Startable, ThreadedServer
from deployments.sandbox.slack.delivery import Deliveries, SocketMode
from deployments.sandbox.slack.interactions import Interactions, NothingThere
from deployments.sandbox.slack.people import DEFAULT_USERS, SandboxUser
from deployments.sandbox.slack.web_api import WebApi
from deployments.sandbox.slack.workspace import Message, SlackRefusal, Workspace

if TYPE_CHECKING:
    from deployments.sandbox.slack.block_kit import Json

ACK_SECONDS = 3.0
SHOWN_MESSAGES = 300
PAGE_FOLDER = Path(__file__).parent / "page"
PAGE_POLICY = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; frame-ancestors 'none'"
ACTS = ("press", "slash", "submit", "close_modal", "open_home")
SHOWN_AS_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
REFUSALS = {
    Fault.TOO_MANY_REQUESTS: JSONResponse({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": "1"}),
    Fault.SERVER_ERROR: JSONResponse({"ok": False, "error": "internal_error"}, 500),
}

Seen = TypeVar("Seen")


class SandboxSlack(Startable):
    """A Slack workspace with one app, on the loopback; see the package for its parts.

    Point `slack_sdk.WebClient(base_url=…)` or SLACK_API_URL at `api_url`; open `url` in a browser to be one of the people.
    Deliveries go over Socket Mode until `request_url` is set. `act` is what the people do; the same calls are under `/ui/`.
    `faults` lets the next requests go wrong.
    """

    def __init__(
        self,
        *,
        users: Sequence[SandboxUser] = DEFAULT_USERS,
        ack_seconds: float = ACK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bot_token = f"xoxb-sandbox-{secrets.token_hex(8)}"
        self.app_token = f"xapp-sandbox-{secrets.token_hex(8)}"
        self.signing_secret = secrets.token_hex(16)
        self.workspace = Workspace(users, clock=clock)
        self.sockets = SocketMode(ack_seconds=ack_seconds)
        self._deliveries = Deliveries(self.sockets, signing_secret=self.signing_secret, ack_seconds=ack_seconds)
        self.act = Interactions(self.workspace, self._deliveries, verification_token=secrets.token_hex(8))
        self.press, self.slash, self.submit = self.act.press, self.act.slash, self.act.submit
        self.close_modal, self.open_home = self.act.close_modal, self.act.open_home
        self.web_api = WebApi(
            self.workspace, bot_token=self.bot_token, app_token=self.app_token, open_connection=self._connection_url
        )
        self.faults = FaultGate(_Routes(self).application(), REFUSALS)
        self._server = ThreadedServer(self.faults, name="sandbox-slack")
        self.url = self.workspace.url = self._server.url
        self.api_url = f"{self.url}/api/"

    def start(self) -> Self:
        self._server.start()
        return self

    def stop(self) -> None:
        self._server.stop()

    @property
    def request_url(self) -> str | None:
        """Where signed deliveries go; None means Socket Mode."""
        return self._deliveries.request_url

    @request_url.setter
    def request_url(self, url: str | None) -> None:
        self._deliveries.request_url = url

    def _connection_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/link/?ticket={self.sockets.ticket()}"

    # what a test looks at; each returns messages as the Web API shows them

    def messages(self, channel: str) -> list[Json]:
        """The channel's messages, oldest first, with metadata; replies only if they were also sent to the channel."""
        return self._shown(lambda: self.workspace.in_channel(channel))

    def thread(self, ts: str) -> list[Json]:
        """The replies under a message, oldest first."""
        return self._shown(lambda: self.workspace.replies(ts))

    def ephemerals(self, user: str) -> list[Json]:
        """What only this person sees, oldest first."""
        return self._shown(lambda: [m for m in self.workspace.messages.values() if m.visible_to == user])

    def _shown(self, find: Callable[[], list[Message]]) -> list[Json]:
        with self.workspace.lock:
            return [self.workspace.as_slack(message, with_metadata=True) for message in find()]

    def open_view(self, user: str) -> Json | None:
        """The person's modal."""
        return self.workspace.modals.get(user)

    def home(self, user: str) -> Json | None:
        """The person's published App Home."""
        return self.workspace.homes.get(user)

    def wait_for(self, look: Callable[[], Seen], *, seconds: float = 10.0) -> Seen:
        """Look again whenever the workspace changes until something is there; AssertionError after `seconds`."""
        with self.workspace.changed:
            if not self.workspace.changed.wait_for(look, timeout=seconds):
                raise AssertionError(f"Slack did not show what was waited for within {seconds} s")
            return look()

    def state(self, user: str) -> Json:
        """Everything the page shows to one person."""
        space = self.workspace
        with space.lock:
            person = space.people[user]
            seen = [m for m in space.messages.values() if m.visible_to in (None, user)]
            seen = [m for m in seen if not m.channel.startswith("D") or m.channel == person.direct_channel]
            shown = [
                {**space.as_slack(m), "channel": m.channel, "is_ephemeral": bool(m.visible_to)} for m in seen[-SHOWN_MESSAGES:]
            ]
            files = [upload.about for upload in space.uploads.values() if upload.about]
            return {
                "revision": space.revision,
                "me": dataclasses.asdict(person),
                "users": [dataclasses.asdict(one) for one in space.people.values()],
                "groups": [dataclasses.asdict(group) for group in space.groups.values()],
                "channels": [
                    dataclasses.asdict(c) for c in space.channels.values() if c.id[0] == "C" or c.id == person.direct_channel
                ],
                "messages": shown,
                "files": files,
                "view": self.open_view(user),
                "home": self.home(user),
                "app_reachable": bool(self.request_url) or self.sockets.count > 0,
            }


class _Routes:
    """The HTTP face of the stand-in. Web API calls are short and stay on the event loop; a person's acts wait in threads."""

    def __init__(self, slack: SandboxSlack) -> None:
        self._slack = slack

    def application(self) -> Starlette:
        routes = [
            Route("/", self._asset),
            Route("/page/{name}", self._asset),
            Route("/archives/{channel}/{message}", self._asset),
            Route("/api/{method}", self._api, methods=["GET", "POST"]),
            WebSocketRoute("/link/", self._slack.sockets.serve),
            Route("/actions/{team}/{name}", self._respond, methods=["POST"]),
            Route("/upload/v1/{file}", self._upload, methods=["POST"]),
            Route("/files/{file}/{name}", self._file),
            Route("/ui/state", self._state),
            Route("/ui/{act}", self._act, methods=["POST"]),
        ]
        only_here = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
        return Starlette(routes=routes, middleware=[only_here])

    async def _asset(self, request: Request) -> Response:
        name = request.path_params.get("name", "page.html")
        if name not in ("page.html", "page.css", "page.js", "block_kit.js"):
            return PlainTextResponse("not found", 404)
        return FileResponse(PAGE_FOLDER / name, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"})

    async def _api(self, request: Request) -> Response:
        method = request.path_params["method"]
        args = await _arguments(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return JSONResponse(self._slack.web_api.call(method, token if scheme == "Bearer" else args.pop("token", None), args))

    async def _respond(self, request: Request) -> Response:
        try:
            self._slack.workspace.respond(request.path_params["name"], await _arguments(request))
        except SlackRefusal as refusal:
            gone = str(refusal) in ("used_url", "expired_url")
            return JSONResponse(refusal.body, 404) if gone else PlainTextResponse(str(refusal), 400)
        return PlainTextResponse("ok")

    async def _upload(self, request: Request) -> Response:
        upload = self._slack.workspace.uploads.get(request.path_params["file"])
        if upload is None:
            return PlainTextResponse("no such upload", 404)
        upload.content = await request.body()
        return PlainTextResponse(f"OK - {len(upload.content)}")

    async def _file(self, request: Request) -> Response:
        upload = self._slack.workspace.uploads.get(request.path_params["file"])
        if upload is None or not upload.about:
            return PlainTextResponse("no such file", 404)
        kind = upload.about["mimetype"]
        headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
        if kind not in SHOWN_AS_IMAGES:  # never run what was uploaded
            kind, headers["Content-Disposition"] = "application/octet-stream", "attachment"
        return Response(upload.content, media_type=kind, headers=headers)

    async def _state(self, request: Request) -> Response:
        user = request.query_params.get("user") or next(iter(self._slack.workspace.people))
        if user not in self._slack.workspace.people:
            return JSONResponse({"error": f"no person {user}"}, 404)
        return JSONResponse(self._slack.state(user), headers={"Cache-Control": "no-store"})

    async def _act(self, request: Request) -> Response:
        """What a person does, its arguments as JSON."""
        name = request.path_params["act"]
        if name not in ACTS:
            return JSONResponse({"error": f"there are {', '.join(ACTS)}"}, 404)
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"error": "send JSON"}, 415)  # a form of another site cannot
        try:
            done = await run_in_threadpool(getattr(self._slack.act, name), **await request.json())
        except (NothingThere, SlackRefusal) as error:
            return JSONResponse({"error": str(error)}, 404)
        except (TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(dataclasses.asdict(done) if done else {})


async def _arguments(request: Request) -> Json:
    """The arguments of a call: JSON, or a form and the query."""
    body = await request.body()
    query = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/json"):
        given = json.loads(body or b"{}")
        return {**query, **given} if isinstance(given, dict) else query
    return {**query, **dict(parse_qsl(body.decode(), keep_blank_values=True))}
