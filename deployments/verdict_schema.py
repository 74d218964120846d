"""Writes the verdict's JSON schema: `python -m deployments.verdict_schema > docs/verdict.schema.json`."""

from __future__ import annotations

import json

import typer
from pydantic import TypeAdapter

from flows.domain.verdict import Verdict


def verdict_schema() -> str:
    """The published schema's text; its version is the verdict's own `schema`."""
    schema = TypeAdapter(Verdict).json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "verdict.schema.json"}
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    typer.echo(verdict_schema(), nl=False)
