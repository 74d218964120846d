"""The methods of Slack's Web API that a decision bot uses, with Slack's errors."""

from __future__ import annotations

import json
import mimetypes
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deployments.sandbox.slack import people
from deployments.sandbox.slack.workspace import Message, SlackRefusal, Upload, Workspace, is_true, refuse_problems

if TYPE_CHECKING:
    from deployments.sandbox.slack.block_kit import Json

PAGE_SIZE = 100


class WebApi:
    """Answers one call at a time; `bot_token` may call everything, `app_token` only opens connections.

    `lacking`: beginnings of methods that it does not know, as other Slack-compatible servers lack some.
    """

    def __init__(self, workspace: Workspace, *, bot_token: str, app_token: str, open_connection: Callable[[], str]) -> None:
        self._space = workspace
        self._tokens = {bot_token: "bot", app_token: "app"}
        self._open_connection = open_connection
        self.lacking: tuple[str, ...] = ()
        self._methods: dict[str, Callable[[Json], Json]] = {
            "auth.test": self._auth_test,
            "apps.connections.open": lambda _: {"url": self._open_connection()},
            "chat.postMessage": self._post_message,
            "chat.update": self._update_message,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.getPermalink": self._permalink,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
            "views.open": self._open_modal,
            "views.update": self._update_view,
            "views.publish": self._publish_home,
            "users.info": self._user_info,
            "usergroups.users.list": self._group_users,
            "files.getUploadURLExternal": self._upload_url,
            "files.completeUploadExternal": self._complete_upload,
        }

    def call(self, method: str, token: str | None, args: Json) -> Json:
        """The body of Slack's answer; Slack says 200 also when it refuses."""
        with self._space.lock:
            try:
                self._authenticate(method, token)
                return {"ok": True, **self._methods[method](_parsed(args))}
            except SlackRefusal as refusal:
                return refusal.body

    def _authenticate(self, method: str, token: str | None) -> None:
        if method not in self._methods or method.startswith(self.lacking):
            raise SlackRefusal("unknown_method", req_method=method)
        if not token:
            raise SlackRefusal("not_authed")
        kind = self._tokens.get(token)
        if kind is None:
            raise SlackRefusal("invalid_auth")
        if kind != ("app" if method.startswith("apps.") else "bot"):
            raise SlackRefusal("not_allowed_token_type")

    def _auth_test(self, _: Json) -> Json:
        who = {"user": "fraud_ab", "user_id": people.BOT_USER_ID, "bot_id": people.BOT_ID}
        team = {"url": f"{self._space.url}/", "team": people.TEAM_DOMAIN, "team_id": people.TEAM_ID}
        return {**team, **who, "is_enterprise_install": False}

    # messages

    def _post_message(self, args: Json) -> Json:
        message = self._space.post(args)
        shown = self._space.as_slack(message, with_metadata=True)
        return {"channel": message.channel, "ts": message.ts, "message": shown}

    def _update_message(self, args: Json) -> Json:
        message = self._space.message(args.get("channel") or "", args.get("ts") or "")
        text, blocks = self._space.checked_content(args)  # text without blocks drops the blocks, as Slack does
        if args.get("metadata") is not None:  # left out, the metadata stays
            message.metadata = self._space.checked_metadata(args["metadata"])
        message.text, message.blocks, message.edited = text, blocks, self._space.new_ts()
        self._space.touch()
        shown = self._space.as_slack(message, with_metadata=True)
        return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": shown}

    def _post_ephemeral(self, args: Json) -> Json:
        if args.get("user") not in self._space.people:
            raise SlackRefusal("user_not_in_channel")
        return {"message_ts": self._space.post({**args, "metadata": None}, visible_to=args["user"]).ts}

    def _permalink(self, args: Json) -> Json:
        message = self._space.message(args.get("channel") or "", args.get("message_ts") or "")
        return {
            "channel": message.channel,
            "permalink": f"{self._space.url}/archives/{message.channel}/p{message.ts.replace('.', '')}",
        }

    def _page(self, messages: list[Message], args: Json) -> Json:
        """The messages of one page within `oldest` and `latest`, and where the next page begins."""
        oldest, latest = float(args.get("oldest") or 0), float(args.get("latest") or "inf")
        ends = (args.get("oldest"), args.get("latest")) if is_true(args.get("inclusive")) else ()
        within = [message for message in messages if oldest < float(message.ts) < latest or message.ts in ends]
        start, size = int(args.get("cursor") or 0), int(args.get("limit") or PAGE_SIZE)
        more = len(within) > start + size
        with_metadata = is_true(args.get("include_all_metadata"))
        shown = [self._space.as_slack(message, with_metadata=with_metadata) for message in within[start : start + size]]
        return {"messages": shown, "has_more": more, "response_metadata": {"next_cursor": str(start + size) if more else ""}}

    def _history(self, args: Json) -> Json:
        channel = self._space.channel_id(args.get("channel") or "")
        return self._page(self._space.in_channel(channel)[::-1], args)

    def _replies(self, args: Json) -> Json:
        asked = self._space.message(args.get("channel") or "", args.get("ts") or "", missing="thread_not_found")
        return self._page([asked, *self._space.replies(asked.ts)], args)

    # people

    def _user_info(self, args: Json) -> Json:
        user = self._space.people.get(args.get("user") or "")
        if user is None:
            raise SlackRefusal("user_not_found")
        return {"user": asdict(user)}

    def _group_users(self, args: Json) -> Json:
        group = self._space.groups.get(args.get("usergroup") or "")
        if group is None:
            raise SlackRefusal("no_such_subteam")
        return {"users": list(group.members)}

    # views

    def _open_modal(self, args: Json) -> Json:
        return {"view": self._space.keep_view(_view(args, "modal"), self._space.spend_trigger(args.get("trigger_id")))}

    def _update_view(self, args: Json) -> Json:
        shown = [*self._space.modals.items(), *self._space.homes.items()]
        found = [(user, view) for user, view in shown if view["id"] == args.get("view_id")]
        if not found:
            raise SlackRefusal("not_found")
        user, before = found[0]
        return self._replace(args, _view(args, before["type"]), user, before)

    def _publish_home(self, args: Json) -> Json:
        user, view = args.get("user_id") or "", _view(args, "home")
        if user not in self._space.people:
            raise SlackRefusal("user_not_found")
        return self._replace(args, view, user, self._space.homes.get(user))

    def _replace(self, args: Json, view: Json, user: str, before: Json | None) -> Json:
        if args.get("hash") and before and args["hash"] != before["hash"]:
            raise SlackRefusal("hash_conflict")
        return {"view": self._space.keep_view(view, user, instead_of=before)}

    # files

    def _upload_url(self, args: Json) -> Json:
        if not args.get("filename") or int(args.get("length") or 0) <= 0:
            raise SlackRefusal("invalid_arguments")
        upload = Upload(f"F{secrets.token_hex(5).upper()}", str(args["filename"]), str(args.get("alt_txt") or ""))
        self._space.uploads[upload.id] = upload
        return {"upload_url": f"{self._space.url}/upload/v1/{upload.id}", "file_id": upload.id}

    def _complete_upload(self, args: Json) -> Json:
        done = [self._described(item) for item in args.get("files") or []]
        if not done:
            raise SlackRefusal("invalid_arguments")
        if args.get("channel_id"):
            text = args.get("initial_comment") or " "  # a file may come without a word
            message = self._space.post({"channel": args["channel_id"], "text": text, "thread_ts": args.get("thread_ts")})
            message.text, message.files = text.strip(), done
        self._space.touch()
        return {"files": done}

    def _described(self, item: Json) -> Json:
        upload = self._space.uploads.get(item.get("id") or "")
        if upload is None or not upload.content:
            raise SlackRefusal("file_not_found")
        address = f"{self._space.url}/files/{upload.id}/{upload.name}"
        upload.about = {
            "id": upload.id,
            "name": upload.name,
            "title": item.get("title") or upload.name,
            "mimetype": mimetypes.guess_type(upload.name)[0] or "application/octet-stream",
            "size": len(upload.content),
            "alt_txt": upload.alt_text,
            "url_private": address,
            "permalink": address,
        }
        return upload.about


def _view(args: Json, kind: str) -> Json:
    view = args.get("view")
    if not isinstance(view, dict) or view.get("type") != kind:
        refuse_problems("invalid_arguments", [f"must be a {kind} [json-pointer:/view/type]"])
    return view or {}


def _parsed(args: Json) -> Json:
    """Forms carry structures as JSON text: read them."""
    parsed: Json = dict(args)
    errors = {"blocks": "invalid_blocks_format", "metadata": "invalid_metadata_format"}
    for name in ("blocks", "view", "metadata", "files"):
        value: Any = parsed.get(name)
        if isinstance(value, str) and value:
            try:
                parsed[name] = json.loads(value)
            except ValueError:
                raise SlackRefusal(errors.get(name, "invalid_arguments")) from None
    return parsed
