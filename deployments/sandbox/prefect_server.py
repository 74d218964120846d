"""Prefect's server as a child process.

Its empty database is made once on a machine and copied from then on: the migrations take half of the time that it needs to start.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from deployments.sandbox.processes import ROOT, START_SECONDS, Child, free_port

CACHE = ROOT / ".cache"


class PrefectServer:
    """A server on a free port with a database of its own in `home`; started at once.

    Args:
        environment: what its process gets besides.
        cache: where the empty database is kept.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *, cache: Path = CACHE) -> None:
        self._kept = cache / f"prefect-{version('prefect')}.db"
        self._database = home / "prefect.db"
        home.mkdir(parents=True, exist_ok=True)
        if self._kept.exists():
            shutil.copyfile(self._kept, self._database)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self._database}",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",  # without it the page of the UI asks port 4200
        }
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        log = home.with_suffix(".log")
        self.child = Child("prefect", command, environment={**environment, **own}, log=log, folder=ROOT)

    def wait(self) -> None:
        """Until it answers.

        Raises:
            ChildFailed: it ended, or the time is over.
        """
        self.child.wait_until(f"{self.url}/api/health", seconds=START_SECONDS)
        if not self._kept.exists():
            self._keep()

    def _keep(self) -> None:
        """Whole or not at all: another process may be doing the same."""
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=self._kept.parent)
        os.close(number)
        with closing(sqlite3.connect(self._database)) as source, closing(sqlite3.connect(name)) as copy:
            source.backup(copy)
        Path(name).replace(self._kept)
