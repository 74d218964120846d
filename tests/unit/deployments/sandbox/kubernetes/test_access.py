"""Roles are applied as the API server applies them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.sandbox.kubernetes.access import Attempt, User

ROLE: Any = yaml.safe_load((Path(__file__).parents[5] / "k8s" / "base" / "promoter-role.yaml").read_text())
PROMOTER, ADMIN = User("promoter", "t", ROLE), User("admin", "t")
SELDON = ("machinelearning.seldon.io", "seldondeployments", "models")


def attempt(verb: str, name: str = "fraud-predictor", *, resource: str = SELDON[1], namespace: str = SELDON[2]) -> Attempt:
    return Attempt(verb, SELDON[0], resource, namespace, name)


@pytest.mark.parametrize(
    ("asked", "is_allowed"),
    [
        (attempt("get"), True),
        (attempt("patch"), True),
        (attempt("delete"), False),
        (attempt("create"), False),
        (attempt("patch", "another"), False),
        (attempt("patch", ""), False),
        (attempt("patch", resource="seldondeployments/status"), False),
        (attempt("get", namespace="other"), False),
        (Attempt("list", "apps", "deployments", "models"), True),
        (Attempt("patch", "apps", "deployments", "models", "x"), False),
        (Attempt("get", "networking.istio.io", "virtualservices", "models", "fraud-predictor-http"), True),
    ],
)
def test_the_shipped_role_allows_what_the_promoter_needs_and_no_more(asked: Attempt, is_allowed: bool) -> None:  # noqa: FBT001
    assert PROMOTER.may(asked) is is_allowed
    assert ADMIN.may(asked)
