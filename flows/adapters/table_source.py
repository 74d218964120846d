"""Where a table is: a file, or a PostgreSQL URL that names its table as `?table=schema.table`."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

FEEDBACK, FEATURES = "feedback", "features"
"""What the tables are called where a URL names none."""
_SCHEMES = ("postgresql", "postgres")


def is_database(source: str) -> bool:
    return urlsplit(source).scheme in _SCHEMES


def split_table(source: str, default: str) -> tuple[str, str]:
    """A database's URL for its driver, and its table; `default`: where it names none."""
    parts = urlsplit(source)
    options = dict(parse_qsl(parts.query))
    table = options.pop("table", default)
    return urlunsplit(parts._replace(query=urlencode(options))), table


def shown_source(source: str, default: str) -> str:
    """Its name for messages, without user and password."""
    parts = urlsplit(source)
    if not is_database(source):
        return source
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}, table {split_table(source, default)[1]}"


def quoted_name(name: str) -> str:
    """A column's or table's name as SQL."""
    return '"' + name.replace('"', '""') + '"'
