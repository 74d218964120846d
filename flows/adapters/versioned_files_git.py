"""Files in a git repository: a working tree, a bare repository or URL, or a plain folder.

In a working tree the file is committed in place; anything else is cloned into a temporary folder and pushed, once more on what is
there then when somebody pushed in between.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.domain.errors import Conflict, OutsideSystemError

if TYPE_CHECKING:
    from collections.abc import Callable

GIT_SECONDS = 60
IDENTITY = ("-c", "user.name=fraud-ab", "-c", "user.email=fraud-ab@localhost", "-c", "commit.gpgsign=false")


class GitFiles:
    """A repository by path or URL, and the branch that is written to."""

    def __init__(self, repository: str, branch: str) -> None:
        self._repository = repository
        self._branch = branch

    def edit(self, path: str, change: Callable[[str], str], message: str) -> str:
        root = Path(self._repository)
        if (root / ".git").exists():
            return self._commit_in_place(root, path, change, message)
        if root.is_dir() and not (root / "HEAD").exists():
            _edit(root / path, change)
            return str(root / path)
        try:
            return self._commit_and_push(path, change, message)
        except Conflict:
            return self._commit_and_push(path, change, message)

    def _commit_in_place(self, root: Path, path: str, change: Callable[[str], str], message: str) -> str:
        current = self._git(root, "symbolic-ref", "--short", "HEAD")
        if current != self._branch:
            raise OutsideSystemError(
                "git",
                f"writing {path}: {root} is on branch {current}, not on {self._branch}; check that branch out",
                retryable=False,
            )
        _edit(root / path, change)
        return self._commit(root, path, message)

    def _commit_and_push(self, path: str, change: Callable[[str], str], message: str) -> str:
        with tempfile.TemporaryDirectory(prefix="repository-") as folder:
            root = Path(folder)
            is_there = bool(self._git(root, "ls-remote", "--heads", "--", self._repository, self._branch))
            self._git(
                root,
                "clone",
                "--quiet",
                *(["--depth=1", "--branch", self._branch] if is_there else []),
                "--",
                self._repository,
                ".",
            )
            if not is_there:
                self._git(root, "checkout", "--quiet", "-B", self._branch)
            _edit(root / path, change)
            reference = self._commit(root, path, message)
            self._git(root, "push", "--quiet", "origin", f"HEAD:refs/heads/{self._branch}")
            return reference

    def _commit(self, root: Path, path: str, message: str) -> str:
        if self._git(root, "status", "--porcelain", "--", path):
            self._git(root, "add", "--", path)
            self._git(root, *IDENTITY, "commit", "--quiet", "-m", message, "--", path)
        return f"{_without_password(self._repository)}@{self._git(root, 'rev-parse', '--short=12', 'HEAD')}:{path}"

    def _git(self, root: Path, *arguments: str) -> str:
        doing = f"running git {next(word for word in arguments if not word.startswith('-') and '=' not in word)}"
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=10")
        command = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program with our own arguments
                command, check=False, capture_output=True, text=True, timeout=GIT_SECONDS, env=environment
            )
        except subprocess.TimeoutExpired as error:
            raise OutsideSystemError("git", f"{doing}: no answer in {GIT_SECONDS} s", retryable=True) from error
        except FileNotFoundError as error:
            raise OutsideSystemError("git", f"{doing}: git is not installed", retryable=False) from error
        if done.returncode:
            raise _failed(doing, _without_password(done.stderr.strip()))
        return done.stdout.strip()


def _failed(doing: str, said: str) -> OutsideSystemError:
    if "[rejected]" in said or "fetch first" in said or "cannot lock ref" in said or "remote rejected" in said:
        return Conflict("git", f"{doing}: {said}")
    passing = (
        "Could not resolve host",
        "Connection",
        "timed out",
        "index.lock",
        "early EOF",
        "The requested URL returned error: 5",
    )
    return OutsideSystemError("git", f"{doing}: {said}", retryable=any(word in said for word in passing))


def _edit(file: Path, change: Callable[[str], str]) -> None:
    """In bytes, so that line ends stay as they are."""
    try:
        existing = file.read_bytes().decode() if file.exists() else ""
        changed = change(existing)
        if changed != existing:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(changed.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise OutsideSystemError("the documents' folder", f"writing {file}: {error}", retryable=False) from error


def _without_password(text: str) -> str:
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)
