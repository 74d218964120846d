"""What the modules of a test process share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deployments.sandbox.prefect_server import PrefectServer
from deployments.sandbox.processes import stop_all


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One for all modules: each of their tests and deployments has a name of its own."""
    server = PrefectServer(tmp_path_factory.mktemp("server") / "prefect", os.environ)
    try:
        server.wait()
        yield server
    finally:
        stop_all([server.child])
