"""Every message, modal and the Home in the page, by a real browser on a desk and on a phone; each also becomes a picture.

All pictures go to build/pictures, to be looked at. With FRAUD_AB_PICTURES=1 (`make pictures`) those that the documents show are
written to docs/pictures, with the digest of what they show, by which tests/unit/test_docs.py notices an outdated one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from slack_sdk import WebClient

from deployments.sandbox.slack import SandboxSlack
from flows.domain.verdict import VerdictKind
from flows.reports.charts import chart_in_words, recall_and_precision_chart
from tests.gallery import CHANNEL, NOW, PENDING, Shown, gallery
from tests.pictures import keep, sticking_out

USER = "U0ANA"
WIDTHS = {"desk": 860, "phone": 390}
TALL = 3000  # everything is in view, so that a picture shows the whole of it
PHONE_SCREEN = 760  # what a phone of 844 points leaves between its own bars
FINGER = 36
ALL = gallery()


@dataclass
class Page:
    """The page of one person, and what went wrong in it."""

    page: Any
    slack: SandboxSlack
    client: WebClient
    width: str
    troubles: list[str] = field(default_factory=list[str])

    def show(self, shown: Shown) -> Any:
        """Let the app say it, by Slack's own calls, and find it in the page; a locator."""
        with self.slack.workspace.lock:
            self.slack.workspace.messages.clear()
            self.slack.workspace.modals.clear()
            self.slack.workspace.homes.clear()
        if shown.message is not None:
            self._post(shown)
        elif shown.view is not None and shown.view["type"] == "home":
            self.client.views_publish(user_id=USER, view=shown.view)
        else:
            self.client.views_open(trigger_id=self.slack.workspace.new_trigger(USER), view=shown.view or {})
        is_home = shown.view is not None and shown.view["type"] == "home"
        self.page.goto(f"{self.slack.url}?user={USER}&channel={'home' if is_home else CHANNEL}")
        found = self.page.locator("#list > .blocks" if is_home else "dialog" if shown.view else "#list > article")
        found.wait_for(state="visible", timeout=10_000)
        self.page.wait_for_function("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
        self.page.locator("#reach").evaluate("(node) => node.remove()")  # no app is behind this page, and none is needed
        return found

    def _post(self, shown: Shown) -> None:
        assert shown.message is not None
        text, blocks = shown.message.text, list(shown.message.blocks) or None
        if shown.is_private:
            self.client.chat_postEphemeral(channel=CHANNEL, user=USER, text=text, blocks=blocks)
            return
        posted = self.client.chat_postMessage(channel=CHANNEL, text=text, blocks=blocks)
        if shown.thread:
            request = PENDING[VerdictKind.PROMOTE].request
            chart = recall_and_precision_chart(request)
            assert chart is not None
            self.client.files_upload_v2(
                channel=CHANNEL,
                thread_ts=posted["ts"],
                file=chart,
                filename="chart.png",
                title="chart",
                alt_txt=chart_in_words(request),
            )
        for line in shown.thread:
            self.client.chat_postMessage(channel=CHANNEL, thread_ts=posted["ts"], text=line)


@pytest.fixture(scope="module")
def pages(chromium: str) -> Iterator[dict[str, Page]]:
    from playwright.sync_api import sync_playwright

    with SandboxSlack(clock=NOW.timestamp) as slack, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        client = WebClient(slack.bot_token, base_url=slack.api_url)
        made: dict[str, Page] = {}
        for width, pixels in WIDTHS.items():
            page = browser.new_page(viewport={"width": pixels, "height": TALL}, device_scale_factor=1.4, reduced_motion="reduce")
            page.clock.set_fixed_time(NOW)
            made[width] = one = Page(page, slack, client, width)
            page.on("console", lambda said, one=one: one.troubles.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error, one=one: one.troubles.append(str(error)))
        yield made
        browser.close()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_shows_all_of_it_and_nothing_else(pages: dict[str, Page], name: str, width: str) -> None:
    one, shown = pages[width], ALL[name]
    one.troubles.clear()
    found = one.show(shown)
    seen = flat(found.inner_text())
    for part in parts_of(shown):
        assert part in seen, part
    assert not re.search(r"[*`~]|&[a-z]+;|<[!@]|\bundefined\b|\bnull\b", seen), seen
    assert [flat(button.inner_text()) for button in found.locator(".actions button").all()] == buttons_of(shown)
    assert sticking_out(found) == []
    assert one.troubles == []
    keep(name if width == "desk" else f"{name}_phone", found.screenshot(), shown.digest)


def test_a_phones_first_screen_has_the_question_and_its_buttons_fit_a_finger(pages: dict[str, Page]) -> None:
    for kind in VerdictKind:
        found = pages["phone"].show(ALL[f"verdict_{kind.name.lower()}"])
        top = found.bounding_box()["y"]
        heading = found.locator("h3").bounding_box()
        assert heading["y"] - top < 60, kind
        assert heading["height"] < 60, kind  # two lines
        for button in found.locator(".actions button").all():
            assert button.is_enabled()
            box = button.bounding_box()
            assert box["height"] >= FINGER, kind
            assert box["y"] + box["height"] - top <= 1.5 * PHONE_SCREEN, f"{kind}: {box}"


def flat(text: str) -> str:
    return " ".join(text.split())


def parts_of(shown: Shown) -> list[str]:
    """The words that have to be on the page: of every text, cut where a time stands, which each reader sees in their own way."""
    texts: list[str] = list(shown.thread)
    if shown.message is not None and not shown.message.blocks:
        texts.append(shown.message.text)
    texts += _texts([*shown.blocks, {name: (shown.view or {}).get(name) for name in ("title", "submit", "close")}])
    pieces = (piece for text in texts for piece in re.split(r"\0|\n", _read(text)))
    return [flat(piece.removeprefix("• ")) for piece in pieces if flat(piece)]


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if not isinstance(value, dict):
        return []
    own = [value["text"]] if value.get("type") in ("mrkdwn", "plain_text") else []
    return own + [text for item in value.values() for text in _texts(item)]


def _read(mrkdwn: str) -> str:
    """As a person reads it: names for ids, no marks of formatting, \\0 for a time."""
    people = {"U0ANA": "Ana Costa", "U0CHI": "Chiara Rossi", "S0PROMOTERS": "fraud-promoters", "S0ONCALL": "fraud-on-call"}
    text = re.sub(r"<!date\^[^>]*>", "\0", mrkdwn)
    text = re.sub(r"<(?:@|!subteam\^)(\w+)>", lambda found: f"@{people[found[1]]}", text)
    text = re.sub(r"<https?:[^|>]*\|([^>]*)>", r"\1", text)
    return html.unescape(re.sub(r"```|[*`]", lambda found: "\n" if len(found[0]) == 3 else "", text))


def buttons_of(shown: Shown) -> list[str]:
    return [element["text"]["text"] for block in shown.blocks if block["type"] == "actions" for element in block["elements"]]
