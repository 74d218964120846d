"""Files in real repositories: working tree, bare, empty, a folder; and what people wrote on a page stays."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.adapters.versioned_files_git import GitFiles, _without_password
from flows.domain.errors import OutsideSystemError, SettingsInvalid
from flows.reports.lifecycle_page import BEGIN, END, merge_page

PAGE = "docs/model_lifecycle.md"


def page(generated: str) -> Callable[[str], str]:
    return lambda existing: merge_page(existing, generated)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    (root / "docs").mkdir()
    (root / PAGE).write_text("# Models\n\nWritten by hand.\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "begin")
    return root


@pytest.fixture
def bare(tmp_path: Path, tree: Path) -> Path:
    git(tmp_path, "clone", "--quiet", "--bare", str(tree), "bare.git")
    return tmp_path / "bare.git"


def test_in_a_working_tree_only_the_page_is_committed_and_hand_written_words_stay(tree: Path) -> None:
    (tree / "unfinished.txt").write_text("somebody's work")
    git(tree, "add", "unfinished.txt")
    docs = GitFiles(str(tree), "main")
    reference = docs.edit(PAGE, page("first"), "After d-1")
    assert reference == f"{tree}@{git(tree, 'rev-parse', '--short=12', 'HEAD')}:{PAGE}"
    assert git(tree, "log", "-1", "--format=%s by %an") == "After d-1 by fraud-ab"
    assert git(tree, "show", "--name-only", "--format=", "HEAD") == PAGE
    (tree / PAGE).write_text((tree / PAGE).read_text() + "\nBelow, by hand.\n")
    docs.edit(PAGE, page("second"), "After d-2")
    text = (tree / PAGE).read_text()
    assert text.startswith("# Models\n\nWritten by hand.\n")
    assert text.endswith("Below, by hand.\n")
    assert "second" in text
    assert "first" not in text


def test_an_unchanged_page_makes_no_commit(tree: Path, bare: Path) -> None:
    for place in (tree, bare):
        docs = GitFiles(str(place), "main")
        first = docs.edit(PAGE, page("text"), "one")
        assert docs.edit(PAGE, page("text"), "two") == first
        assert git(place, "rev-list", "--count", "main") == "2"


def test_another_branch_in_the_working_tree_is_left_alone(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "feature")
    with pytest.raises(OutsideSystemError, match="on branch feature") as refused:
        GitFiles(str(tree), "main").edit(PAGE, page("text"), "message")
    assert not refused.value.retryable
    assert "text" not in (tree / PAGE).read_text()


def test_a_bare_repository_is_pushed_to(bare: Path) -> None:
    reference = GitFiles(bare.as_uri(), "main").edit(PAGE, page("text"), "After d-1")
    assert git(bare, "log", "-1", "--format=%s", "main") == "After d-1"
    assert "Written by hand." in git(bare, "show", f"main:{PAGE}")
    assert reference.endswith(f"{git(bare, 'rev-parse', '--short=12', 'main')}:{PAGE}")


def test_an_empty_repository_gets_its_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "new.git")
    GitFiles(str(tmp_path / "new.git"), "main").edit(PAGE, page("text"), "begin")
    assert BEGIN in git(tmp_path / "new.git", "show", f"main:{PAGE}")


def test_somebody_who_pushes_in_between_is_not_overwritten(
    bare: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = GitFiles(str(bare), "main")
    commit = docs._commit
    others: list[int] = []

    def commit_while_another_pushes(root: Path, path: str, message: str) -> str:
        if not others:
            others.append(1)
            (tree / "other.txt").write_text("other")
            git(tree, "add", "other.txt")
            git(tree, "commit", "--quiet", "-m", "other")
            git(tree, "push", "--quiet", str(bare), "main")
        return commit(root, path, message)

    monkeypatch.setattr(docs, "_commit", commit_while_another_pushes)
    docs.edit(PAGE, page("text"), "ours")
    assert git(bare, "log", "--format=%s", "main").splitlines() == ["ours", "other", "begin"]


def test_a_change_is_made_again_on_what_somebody_else_pushed_to_the_same_file(bare: Path, tree: Path) -> None:
    seen: list[str] = []

    def append_while_another_pushes(existing: str) -> str:
        seen.append(existing)
        if len(seen) == 1:
            (tree / PAGE).write_text("theirs\n")
            git(tree, "commit", "--quiet", "--all", "-m", "other")
            git(tree, "push", "--quiet", str(bare), "main")
        return f"{existing}ours\n"

    GitFiles(bare.as_uri(), "main").edit(PAGE, append_while_another_pushes, "ours")
    assert seen == ["# Models\n\nWritten by hand.\n", "theirs\n"]
    assert git(bare, "show", f"main:{PAGE}") == "theirs\nours"


def test_a_change_that_is_refused_leaves_everything_as_it_was(tree: Path, bare: Path) -> None:
    def refuse(existing: str) -> str:
        raise SettingsInvalid("file", [existing or "empty"])

    for place in (tree, bare):
        with pytest.raises(SettingsInvalid, match="file: empty"):
            GitFiles(str(place), "main").edit("new/file.yaml", refuse, "message")
        assert git(place, "rev-list", "--count", "main") == "1"
    assert not (tree / "new").exists()


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\r\n")
    GitFiles(str(tmp_path), "main").edit("file", lambda text: text.replace("b", "c"), "message")
    assert (tmp_path / "file").read_bytes() == b"a\r\nc\r\n"


def test_a_plain_folder_is_written_to(tmp_path: Path) -> None:
    assert GitFiles(str(tmp_path), "main").edit(PAGE, page("text"), "message") == str(tmp_path / PAGE)
    assert (tmp_path / PAGE).read_text() == f"{BEGIN}\ntext\n{END}\n"


def test_a_repository_that_is_not_there_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutsideSystemError, match="git ls-remote") as missing:
        GitFiles(str(tmp_path / "nowhere"), "main").edit(PAGE, page("text"), "message")
    assert not missing.value.retryable


def test_no_password_of_an_address_is_shown() -> None:
    assert _without_password("fatal: https://bot:s3cret@git.example/x.git") == "fatal: https://git.example/x.git"


def test_merging_keeps_what_is_around_the_markers() -> None:
    assert merge_page("", "new") == f"{BEGIN}\nnew\n{END}\n"
    assert merge_page("above\n", "new") == f"above\n\n{BEGIN}\nnew\n{END}\n"
    assert merge_page(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
