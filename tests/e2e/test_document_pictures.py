"""The documents of a decision, its root-cause report and the pages as a person sees them, drawn by a real browser.

Where the pictures go, and how an outdated one is noticed: as for tests/e2e/test_pictures.py.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.document_gallery import Written, document_gallery
from tests.pictures import keep, sticking_out

ALL = document_gallery()
WIDTH, TALL = 1040, 600
STYLE = """
body { margin: 0; background: white; font: 15px/1.5 system-ui, sans-serif; color: #1f2328 }
article { padding: 24px 32px; overflow-wrap: break-word }
h1 { font-size: 24px } h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: 6px } h2 { font-size: 19px; margin-top: 26px }
table { border-collapse: collapse; margin: 14px 0 }
th, td { border: 1px solid #d1d9e0; padding: 5px 10px; text-align: left; vertical-align: top }
th { background: #f6f8fa; white-space: nowrap } img { max-width: 100% }
pre { background: #f6f8fa; padding: 14px; font-size: 12.5px; white-space: pre-wrap } code { font-family: ui-monospace, monospace }
"""


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser.new_page(viewport={"width": WIDTH, "height": TALL}, device_scale_factor=1)
        browser.close()


def rendered(written: Written) -> str:
    html = MarkdownIt("commonmark").enable("table").render(written.text)
    for name, png in written.pictures.items():
        html = html.replace(f'src="{name}"', f'src="data:image/png;base64,{base64.b64encode(png).decode()}"')
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><article>{html}</article>"


@pytest.mark.parametrize("name", ALL)
def test_each_document_reads_as_it_is_meant(page: Any, name: str) -> None:
    page.set_content(rendered(ALL[name]))
    page.wait_for_function("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    article = page.locator("article")
    assert sticking_out(article) == []
    text = article.inner_text()
    for mark in ("**", "##", "](", "| ---", "&lt;", "\\"):
        assert mark not in text, f"{mark} is shown instead of what it means"
    assert len(page.locator("img").all()) == len(ALL[name].pictures)
    keep(name, article.screenshot(), ALL[name].digest)
