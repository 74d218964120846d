"""Every example in the domain's docstrings and in the document about decisions gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import flows.domain

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how_a_decision_is_made.md"
MODULES = [module.name for module in pkgutil.iter_modules(flows.domain.__path__, "flows.domain.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_docstrings_examples_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_documents_examples_are_right() -> None:
    found = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert found.failed == 0
    assert found.attempted >= 25
