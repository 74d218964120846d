"""A document in Markdown as one web page that needs nothing else: pictures beside it are put into it."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Mapping

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top }
h1 { font-size: 1.6rem } h2 { margin-top: 2rem; border-bottom: 1px solid #8886 } img { max-width: 100%; background: white }
code { overflow-wrap: anywhere }
"""


def web_page(markdown: str, title: str, pictures: Mapping[str, bytes] | None = None) -> str:
    """Render a document.

    Args:
        markdown: HTML in it is shown as text.
        title: of the page.
        pictures: PNG bytes by the name under which the document shows them.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    for name, png in (pictures or {}).items():
        body = body.replace(f'src="{escape(name)}"', f'src="data:image/png;base64,{base64.b64encode(png).decode()}"')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{body}</body></html>\n'
