"""Child processes of the embedded stack: started with a log file, waited for, and stopped with everything they started."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
STOP_SECONDS = 8.0
POLL_SECONDS = 0.1
LOG_LINES_SHOWN = 15


class ChildFailed(RuntimeError):
    """A part of the embedded stack did not start; the message ends with the last lines of its log."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """One child process, started at once; its output goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._folder = folder
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - the command is ours
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops its parts in order
            )

    def start_again(self) -> None:
        """After its process has ended: the same command once more; its log goes on."""
        self.process.wait(STOP_SECONDS)
        self.process = self._start()

    def lose(self) -> None:
        """SIGKILL to the process and to everything that it started, as when its machine is lost."""
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=STOP_SECONDS)

    def end(self) -> None:
        """SIGTERM to the process alone, which then stops what it started, as on an orderly restart."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)

    def wait_until(self, url: str, *, seconds: float) -> None:
        """Wait until `url` answers 2xx.

        Raises:
            ChildFailed: the process ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.require_alive()
            with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=2):  # noqa: S310
                return
            time.sleep(POLL_SECONDS)
        raise ChildFailed(f"{self.name} did not answer at {url} within {seconds:.0f} s\n{self._end_of_log()}")

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise ChildFailed(f"{self.name} ended with exit code {code}\n{self._end_of_log()}")

    def _end_of_log(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])


def stop_all(children: Sequence[Child]) -> None:
    """Ask every child and its descendants to end, then insist."""
    processes: list[psutil.Process] = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(child.process.pid)
            processes += [*parent.children(recursive=True), parent]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(timeout=1)
