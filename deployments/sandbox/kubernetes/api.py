"""The API server's HTTP face: who asks for what, every verb on every resource, and watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from deployments.sandbox.kubernetes import responses
from deployments.sandbox.kubernetes.access import Attempt, User, attempt_on_path
from deployments.sandbox.kubernetes.kinds import REVIEWS, SERVED, discovery_documents
from deployments.sandbox.kubernetes.patches import decode_object, prepare_patch
from deployments.sandbox.kubernetes.responses import JSON, ApiError
from deployments.sandbox.kubernetes.store import Kind, ObjectStore

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams
    from starlette.requests import Request

LONGEST_WATCH_SECONDS = 1800
_ITEM_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request on a resource; `part` is "" or "status", the name is "" for the collection."""

    kind: Kind
    verb: str
    namespace: str
    name: str
    part: str
    query: QueryParams
    content_type: str
    body: bytes

    @property
    def is_dry_run(self) -> bool:
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):  # never do for real what was meant as a rehearsal
            raise ApiError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["{value}"]')
        return value == "All"

    def selector(self, which: str) -> dict[str, str]:
        """`a=b,c=d` of `labelSelector` or `fieldSelector` as a mapping."""
        terms = (term.replace("==", "=").partition("=") for term in self.query.get(which, "").split(",") if term)
        return {key: value for key, _, value in terms}

    def selects(self, thing: JSON) -> bool:
        labels, fields = self.selector("labelSelector").items(), self.selector("fieldSelector").items()
        if unknown := dict(fields).keys() - {"metadata.name"}:
            raise responses.bad_request(f"field label not supported: {', '.join(unknown)}")
        metadata = thing["metadata"]
        return labels <= metadata.get("labels", {}).items() and fields <= {"metadata.name": metadata["name"]}.items()

    @property
    def attempt(self) -> Attempt:
        resource = f"{self.kind.plural}/{self.part}" if self.part else self.kind.plural
        # a list or watch of one name counts as access to that name, as in the real server
        name = self.name or self.selector("fieldSelector").get("metadata.name", "")
        return Attempt(self.verb, self.kind.group, resource, self.namespace, name)


class KubernetesApi:
    """Builds the Starlette application over a store, for the given users."""

    def __init__(self, store: ObjectStore, users: Sequence[User]) -> None:
        self._store = store
        self._users = {user.token: user for user in users}
        self._documents = discovery_documents()
        self._handlers: dict[str, Callable[[Call], JSON]] = {
            "get": lambda call: store.read(call.kind, call.namespace, call.name),
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
        }

    def application(self) -> Starlette:
        routes = [Route(path, self._discover) for path in self._documents]
        routes.append(Route("/readyz", self._say_ok))
        routes.append(Route(f"/apis/{REVIEWS.api_version}/{REVIEWS.plural}", self._review, methods=["POST"]))
        for kind in SERVED:
            collection = f"/apis/{kind.api_version}/namespaces/{{namespace}}/{kind.plural}"
            routes += [
                self._route(f"/apis/{kind.api_version}/{kind.plural}", kind, ["GET"]),
                self._route(collection, kind, ["GET", "POST"]),
                self._route(f"{collection}/{{name}}", kind, list(_ITEM_VERBS)),
                self._route(f"{collection}/{{name}}/status", kind, list(_ITEM_VERBS), part="status"),
            ]
        return Starlette(
            routes=routes, exception_handlers={ApiError: _answer_error, 404: self._answer_unserved, 405: self._answer_unserved}
        )

    def _route(self, path: str, kind: Kind, methods: list[str], part: str = "") -> Route:
        async def endpoint(request: Request) -> Response:
            user, where = self._authenticate(request), request.path_params
            watch = request.query_params.get("watch") in ("true", "1")
            on_collection = {"GET": "watch" if watch else "list", "POST": "create"}
            call = Call(
                kind=kind,
                verb=(_ITEM_VERBS if "name" in where else on_collection)[request.method],
                namespace=where.get("namespace", ""),
                name=where.get("name", ""),
                part=part,
                query=request.query_params,
                content_type=request.headers.get("Content-Type", "").partition(";")[0].strip(),
                body=await request.body(),
            )
            user.require(call.attempt)
            if call.verb not in kind.verbs:
                raise ApiError(405, "MethodNotAllowed", f"the sandbox's {kind.plural} are made by its operator alone")
            if call.verb == "watch":
                return StreamingResponse(self._watch(call), media_type="application/json")
            answer = await run_in_threadpool(self._handlers[call.verb], call)
            return JSONResponse(answer, 201 if call.verb == "create" else 200)

        return Route(path, endpoint, methods=methods)

    def _authenticate(self, request: Request) -> User:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self._users.get(token) if scheme.lower() == "bearer" else None
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def _answer_unserved(self, request: Request, _error: Exception) -> Response:
        """As the real server: first whether one may, then that there is no such thing."""
        attempt = attempt_on_path(request.method, request.url.path)
        try:
            user = self._authenticate(request)
            if attempt is not None:
                user.require(attempt)
        except ApiError as error:
            return JSONResponse(error.as_status(), error.code)
        return PlainTextResponse("404 page not found\n", 404)

    def _discover(self, request: Request) -> Response:
        self._authenticate(request)
        return JSONResponse(self._documents[request.url.path])

    def _say_ok(self, request: Request) -> Response:
        self._authenticate(request)
        return PlainTextResponse("ok")

    async def _review(self, request: Request) -> Response:
        """May I? Every authenticated user may ask this."""
        user = self._authenticate(request)
        if "protobuf" in request.headers.get("Content-Type", ""):
            raise ApiError(415, "UnsupportedMediaType", "accepted media types include: application/json")
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(asked[part] for part in ("resource", "subresource") if asked.get(part))
        attempt = Attempt(asked["verb"], asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", ""))
        return JSONResponse({**review, "metadata": {}, "status": {"allowed": user.may(attempt)}}, 201)

    def _list(self, call: Call) -> JSON:
        items, revision = self._store.list(call.kind, call.namespace)
        header = {"apiVersion": call.kind.api_version, "kind": f"{call.kind.kind}List"}
        return {**header, "metadata": {"resourceVersion": str(revision)}, "items": [item for item in items if call.selects(item)]}

    def _create(self, call: Call) -> JSON:
        new = decode_object(call.body, call.kind)
        if new["metadata"].get("namespace", call.namespace) != call.namespace:
            raise responses.bad_request("the namespace of the provided object does not match the namespace sent on the request")
        return self._store.create(call.kind, call.namespace, new, dry_run=call.is_dry_run)

    def _update(self, call: Call) -> JSON:
        new = decode_object(call.body, call.kind)
        name = new["metadata"]["name"]
        if name != call.name:
            raise responses.bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")
        return self._change(call, lambda _: new)

    def _patch(self, call: Call) -> JSON:
        return self._change(call, prepare_patch(call.content_type, call.body, call.kind))

    def _change(self, call: Call, edit: Callable[[JSON], JSON]) -> JSON:
        return self._store.change(call.kind, call.namespace, call.name, edit, part=call.part, dry_run=call.is_dry_run)

    def _delete(self, call: Call) -> JSON:
        if b"preconditions" in call.body:
            raise responses.bad_request("the sandbox knows no preconditions of a deletion")
        gone = self._store.delete(call.kind, call.namespace, call.name, dry_run=call.is_dry_run)
        details = {"name": call.name, "group": call.kind.group, "kind": call.kind.plural, "uid": gone["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    async def _watch(self, call: Call) -> AsyncIterator[bytes]:
        """Lines of JSON until the time is over; a version that is too old is answered by an ERROR event with 410."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        stop_listening = self._store.listen(lambda: loop.call_soon_threadsafe(changed.set))
        deadline = loop.time() + float(call.query.get("timeoutSeconds", LONGEST_WATCH_SECONDS))
        try:
            revision = int(call.query.get("resourceVersion") or 0)
            if revision == 0:
                items, revision = self._store.list(call.kind, call.namespace)
                for item in filter(call.selects, items):
                    yield _line("ADDED", item)
            while True:
                changed.clear()
                for event in self._store.events_after(call.kind, revision):
                    revision = event.revision
                    if call.namespace in ("", event.thing["metadata"]["namespace"]) and call.selects(event.thing):
                        yield _line(event.type, event.thing)
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
        except TimeoutError:
            return
        except ApiError as error:
            yield _line("ERROR", error.as_status())
        finally:
            stop_listening()


def _line(kind: str, what: JSON) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def _answer_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.as_status(), error.code)
