"""The page of the Slack stand-in, in a real browser: a person decides there, and nothing that is said there runs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from slack_sdk import WebClient

from deployments.sandbox.slack import SandboxSlack
from tests.contract.bolt_app import VERDICT, Bot, plain, section

pytest_plugins = ("tests.contract.bolt_app",)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def test_the_page_shows_changes_at_once_and_lets_a_person_decide(
    browser: Any, slack: SandboxSlack, bot: Bot, web: WebClient
) -> None:
    page = browser.new_page()
    page.goto(f"{slack.url}/?user=U0ANA")
    page.wait_for_selector("text=Nothing has been said here yet")
    ts = web.chat_postMessage(channel="C0FRAUD", text="A verdict", blocks=VERDICT)["ts"]
    page.wait_for_selector(f"[data-message-ts='{ts}'][data-action-id=confirm]", timeout=1000).click()
    page.wait_for_selector("dialog[open] [data-modal-submit]").click()
    assert page.wait_for_selector("[data-error-for=why]").inner_text() == "Please complete this required field."
    page.fill("dialog [data-action-id=reason]", "short")
    page.select_option("dialog [data-action-id=when]", "4h")
    page.click("[data-modal-submit]")
    page.wait_for_selector("[data-error-for=why]:has-text('Say more')")
    page.fill("dialog [data-action-id=reason]", "because")
    page.click("[data-modal-submit]")
    page.wait_for_selector("#modal", state="hidden")
    assert bot.last("view_submission")["view"]["state"]["values"]["until"]["when"]["selected_option"]["value"] == "4h"
    page.fill("[data-composer]", "/fraud-rollback now latency")
    page.press("[data-composer]", "Enter")
    assert "Only visible to you" in page.wait_for_selector("[data-ephemeral]").inner_text()
    page.select_option("[data-acting-as]", "U0BEN")
    page.wait_for_selector("[data-ephemeral]", state="detached")
    page.click("[data-open-home]")
    page.wait_for_selector("text=live: fraud_v1")
    page.close()


def test_the_page_renders_mrkdwn_and_injects_nothing(browser: Any, slack: SandboxSlack, web: WebClient) -> None:
    nasty = "<img src=x onerror=alert(1)> <javascript:alert(1)|run> &lt;b&gt; `a*b*` *bold _both_* ~old~ <@U0BEN> <https://example.org|site>"
    file = web.files_upload_v2(channel="C0FRAUD", content="<script>alert(1)</script>", filename="evil.html")["file"]
    web.chat_postMessage(channel="C0FRAUD", text=nasty, blocks=[section(nasty), {"type": "header", "text": plain("<i>h</i>")}])
    page = browser.new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(slack.url)
    shown = page.wait_for_selector(".section .mrkdwn")
    assert shown.inner_text().startswith(
        "<img src=x onerror=alert(1)> <javascript:alert(1)|run> <b> a*b* bold both old @Ben Okafor site"
    )
    assert page.eval_on_selector_all("#list a", "links => links.map(a => a.getAttribute('href'))")[-1] == "https://example.org"
    assert [page.locator(f".section {tag}").inner_text() for tag in ("code", "strong", "em", "s")] == [
        "a*b*",
        "bold both",
        "both",
        "old",
    ]
    assert page.inner_text("h3") == "<i>h</i>"
    response = page.request.get(file["url_private"])
    assert response.headers["content-type"] == "application/octet-stream"
    assert said == []
    page.close()


def test_another_site_cannot_press_for_the_person(slack: SandboxSlack) -> None:
    def post(headers: dict[str, str]) -> int:
        request = urllib.request.Request(f"{slack.url}/ui/slash", json.dumps({"user": "U0ANA", "line": "/x"}).encode(), headers)
        try:
            return urllib.request.urlopen(request, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code

    assert post({"Content-Type": "text/plain"}) == 415
    assert post({"Content-Type": "application/json", "Host": "evil.example"}) == 400
    assert slack.ephemerals("U0ANA") == []
    assert post({"Content-Type": "application/json"}) == 200
    assert slack.ephemerals("U0ANA")
