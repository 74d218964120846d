"""What a person does in the sandbox's Slack, and what the app is told about it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from deployments.sandbox.slack import people
from deployments.sandbox.slack.block_kit import Json, find_button, state_values, unfilled_inputs
from deployments.sandbox.slack.delivery import Deliveries, Outcome
from deployments.sandbox.slack.workspace import Message, SlackRefusal, Workspace

SAID_BY_SLACK = {
    "operation_timeout": "failed with the error “operation_timeout”: the app did not answer within three seconds.",
    "dispatch_failed": "failed with the error “dispatch_failed”: the app could not be reached.",
}


class NothingThere(LookupError):
    """The button, message or view that a person should act on is not there (for them)."""


class Interactions:
    """A person's hands. Each method waits for the app's acknowledgement (three seconds) and does what Slack does with it."""

    def __init__(self, workspace: Workspace, deliveries: Deliveries, *, verification_token: str) -> None:
        self._space = workspace
        self._deliveries = deliveries
        self._token = verification_token

    def press(
        self,
        user: str,
        action_id: str,
        *,
        message_ts: str | None = None,
        view_id: str | None = None,
        block_id: str | None = None,
    ) -> Outcome:
        """Press a button.

        Args:
            message_ts: the message; without it the newest one that this person sees with such a button.
            view_id: the App Home instead of a message.
        """
        with self._space.lock:
            if view_id:
                home = self._home(user, view_id)
                where, blocks = {"container": {"type": "view", "view_id": view_id}, "view": home}, home["blocks"]
            else:
                message = self._message(user, action_id, block_id, message_ts)
                where, blocks = self._in_message(message, user), message.blocks
            found = find_button(blocks, action_id, block_id)
            if found is None:
                raise NothingThere(f"no button {action_id} there; buttons vanish when a message is redrawn")
            payload = self._payload("block_actions", user) | {"actions": [self._action(*found)], **where}
        return self._deliveries.deliver("interactive", payload)

    def slash(self, user: str, line: str, *, channel: str = "C0FRAUD") -> Outcome:
        """Type a slash command; the acknowledgement's text is shown to the person, or to all if it says `in_channel`."""
        command, _, text = line.strip().partition(" ")
        with self._space.lock:
            person, place = self._person(user), self._space.channels[self._space.channel_id(channel)]
            form = {
                "token": self._token,
                "team_id": people.TEAM_ID,
                "team_domain": people.TEAM_DOMAIN,
                "channel_id": place.id,
                "channel_name": place.name,
                "user_id": person.id,
                "user_name": person.name,
                "command": command,
                "text": text.strip(),
                "api_app_id": people.APP_ID,
                "is_enterprise_install": "false",
                "response_url": self._space.new_response_url(user, place.id),
                "trigger_id": self._space.new_trigger(user),
            }
        outcome = self._deliveries.deliver("slash_commands", form)
        if outcome.error:
            self._space.post({"channel": place.id, "text": f"{command} {SAID_BY_SLACK[outcome.error]}"}, visible_to=user)
        elif isinstance(outcome.answer, dict) and (outcome.answer.get("text") or outcome.answer.get("blocks")):
            visible_to = None if outcome.answer.get("response_type") == "in_channel" else user
            self._space.post({**outcome.answer, "channel": place.id}, visible_to=visible_to)
        return outcome

    def submit(self, user: str, entered: Mapping[str, Any] | None = None) -> Outcome:
        """Fill and submit the person's open modal; the app may close it, show errors at fields, or change it."""
        return self._submit(user, entered or {}, taps=1)[0]

    def submit_twice(self, user: str, entered: Mapping[str, Any] | None = None) -> list[Outcome]:
        """A double tap: both go out before either is answered."""
        return self._submit(user, entered or {}, taps=2)

    def _submit(self, user: str, entered: Mapping[str, Any], *, taps: int) -> list[Outcome]:
        with self._space.lock:
            view = self._modal(user)
            values = state_values(view["blocks"], entered)
            missing = unfilled_inputs(view["blocks"], values)
            if missing:  # Slack's client does not even send it
                return [Outcome(False, 0.0, 0, "incomplete", field_errors=missing)]
            payload = self._payload("view_submission", user)
            payload |= {"view": {**view, "state": {"values": values}}, "response_urls": []}
        with ThreadPoolExecutor(taps) as pool:
            sent = [pool.submit(self._deliveries.deliver, "interactive", payload) for _ in range(taps)]
            outcomes = [one.result() for one in sent]
        return [self._follow(user, view, outcome) if outcome.acked else outcome for outcome in outcomes]

    def _follow(self, user: str, view: Json, outcome: Outcome) -> Outcome:
        answer = outcome.answer if isinstance(outcome.answer, dict) else {}
        try:
            match answer.get("response_action"):
                case "errors":
                    return replace(outcome, field_errors=answer["errors"])
                case "update":
                    self._space.keep_view(answer["view"], user, instead_of=view)
                case None:
                    self._space.close_modal(user)
                case other:
                    raise SlackRefusal(f"the sandbox knows no response_action {other}")
        except SlackRefusal as refusal:  # the person reads that it did not work; the app's answer was wrong
            return replace(outcome, error=f"{refusal}: {refusal.body.get('errors', '')}")
        return outcome

    def close_modal(self, user: str) -> None:
        """Cancel the person's open modal; the app hears nothing of it."""
        self._modal(user)
        self._space.close_modal(user)

    def open_home(self, user: str) -> Outcome:
        """Open the App Home tab; the app hears of it as an event."""
        with self._space.lock:
            person, now = self._person(user), self._space.new_ts()
            event: Json = {
                "type": "app_home_opened",
                "user": user,
                "channel": person.direct_channel,
                "tab": "home",
                "event_ts": now,
            }
            if user in self._space.homes:
                event["view"] = self._space.homes[user]
        payload = {
            "token": self._token,
            "team_id": people.TEAM_ID,
            "api_app_id": people.APP_ID,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{secrets.token_hex(5).upper()}",
            "event_time": int(float(now)),
        }
        return self._deliveries.deliver("events_api", payload)

    def _person(self, user: str) -> people.SandboxUser:
        if user not in self._space.people:
            raise NothingThere(f"no person {user}; there are {', '.join(self._space.people)}")
        return self._space.people[user]

    def _modal(self, user: str) -> Json:
        view = self._space.modals.get(self._person(user).id)
        if view is None:
            raise NothingThere(f"{user} has no modal open")
        return view

    def _home(self, user: str, view_id: str) -> Json:
        view = self._space.homes.get(self._person(user).id)
        if view is None or view["id"] != view_id:
            raise NothingThere(f"{user} has no such App Home")
        return view

    def _message(self, user: str, action_id: str, block_id: str | None, ts: str | None) -> Message:
        self._person(user)
        for message in reversed(self._space.messages.values()):
            seen = message.visible_to in (None, user) and ts in (None, message.ts)
            if seen and (ts or find_button(message.blocks, action_id, block_id)):
                return message
        raise NothingThere(f"{user} sees no message {ts or ''} with {action_id}")

    def _payload(self, kind: str, user: str) -> Json:
        person = self._person(user)
        return {
            "type": kind,
            "user": {"id": person.id, "username": person.name, "name": person.name, "team_id": people.TEAM_ID},
            "api_app_id": people.APP_ID,
            "token": self._token,
            "trigger_id": self._space.new_trigger(user),
            "team": {"id": people.TEAM_ID, "domain": people.TEAM_DOMAIN},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def _action(self, block: Json, button: Json) -> Json:
        return {**button, "block_id": block["block_id"], "action_ts": self._space.new_ts()}

    def _in_message(self, message: Message, user: str) -> Json:
        channel = self._space.channels[message.channel]
        ephemeral = message.visible_to is not None
        container: Json = {"type": "message", "message_ts": message.ts, "channel_id": channel.id, "is_ephemeral": ephemeral}
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        return {
            "container": container,
            "channel": {"id": channel.id, "name": channel.name},
            **({} if ephemeral else {"message": self._space.as_slack(message)}),
            "state": {"values": {}},
            "response_url": self._space.new_response_url(user, channel.id, message.ts),
        }
