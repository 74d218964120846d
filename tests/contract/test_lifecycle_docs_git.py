"""The lifecycle page in real repositories: working tree, bare, empty, a folder; and what people wrote on it stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.adapters.lifecycle_docs_git import BEGIN, END, GitLifecycleDocs, _without_password, merge_page
from flows.domain.errors import OutsideSystemError

PAGE = "docs/model_lifecycle.md"


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
    docs = GitLifecycleDocs(str(tree), "main")
    reference = docs.publish(PAGE, "first", "After d-1")
    assert reference == f"{tree}@{git(tree, 'rev-parse', '--short=12', 'HEAD')}:{PAGE}"
    assert git(tree, "log", "-1", "--format=%s by %an") == "After d-1 by fraud-ab"
    assert git(tree, "show", "--name-only", "--format=", "HEAD") == PAGE
    (tree / PAGE).write_text((tree / PAGE).read_text() + "\nBelow, by hand.\n")
    docs.publish(PAGE, "second", "After d-2")
    text = (tree / PAGE).read_text()
    assert text.startswith("# Models\n\nWritten by hand.\n")
    assert text.endswith("Below, by hand.\n")
    assert "second" in text
    assert "first" not in text


def test_an_unchanged_page_makes_no_commit(tree: Path, bare: Path) -> None:
    for place in (tree, bare):
        docs = GitLifecycleDocs(str(place), "main")
        first = docs.publish(PAGE, "text", "one")
        assert docs.publish(PAGE, "text", "two") == first
        assert git(place, "rev-list", "--count", "main") == "2"


def test_another_branch_in_the_working_tree_is_left_alone(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "feature")
    with pytest.raises(OutsideSystemError, match="on branch feature") as refused:
        GitLifecycleDocs(str(tree), "main").publish(PAGE, "text", "message")
    assert not refused.value.retryable
    assert "text" not in (tree / PAGE).read_text()


def test_a_bare_repository_is_pushed_to(bare: Path) -> None:
    reference = GitLifecycleDocs(bare.as_uri(), "main").publish(PAGE, "text", "After d-1")
    assert git(bare, "log", "-1", "--format=%s", "main") == "After d-1"
    assert "Written by hand." in git(bare, "show", f"main:{PAGE}")
    assert reference.endswith(f"{git(bare, 'rev-parse', '--short=12', 'main')}:{PAGE}")


def test_an_empty_repository_gets_its_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "new.git")
    GitLifecycleDocs(str(tmp_path / "new.git"), "main").publish(PAGE, "text", "begin")
    assert BEGIN in git(tmp_path / "new.git", "show", f"main:{PAGE}")


def test_somebody_who_pushes_in_between_is_not_overwritten(
    bare: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = GitLifecycleDocs(str(bare), "main")
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
    docs.publish(PAGE, "text", "ours")
    assert git(bare, "log", "--format=%s", "main").splitlines() == ["ours", "other", "begin"]


def test_a_plain_folder_is_written_to(tmp_path: Path) -> None:
    assert GitLifecycleDocs(str(tmp_path), "main").publish(PAGE, "text", "message") == str(tmp_path / PAGE)
    assert (tmp_path / PAGE).read_text() == f"{BEGIN}\ntext\n{END}\n"


def test_a_repository_that_is_not_there_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutsideSystemError, match="git ls-remote") as missing:
        GitLifecycleDocs(str(tmp_path / "nowhere"), "main").publish(PAGE, "text", "message")
    assert not missing.value.retryable


def test_no_password_of_an_address_is_shown() -> None:
    assert _without_password("fatal: https://bot:s3cret@git.example/x.git") == "fatal: https://git.example/x.git"


def test_merging_keeps_what_is_around_the_markers() -> None:
    assert merge_page("", "new") == f"{BEGIN}\nnew\n{END}\n"
    assert merge_page("above\n", "new") == f"above\n\n{BEGIN}\nnew\n{END}\n"
    assert merge_page(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
