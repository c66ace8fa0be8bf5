"""``ascribe cache``: which folder it looks at, what it shows, what it removes and what it leaves."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ascribe.cli import app
from ascribe.client.discovery import Running, write_running
from ascribe.settings import Settings
from ascribe.store import Store
from ascribe.store.remote import open_remote

A, B = "a" * 64, "ab" * 32


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["cache", *arguments], catch_exceptions=False)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two entries of one key, used today, and one of another, used ten days ago."""
    monkeypatch.setenv("ASCRIBE_CACHE_DIR", str(tmp_path / "cache"))
    store = Store(tmp_path / "cache", max_bytes=None)
    for kind, key, size in (("gradients", B, 3_000_000), ("gradients", A, 2_000_000), ("solution", A, 10_000)):
        with store.open(kind, key) as folder:
            (folder / "data").write_bytes(b"x" * size)
    lock = tmp_path / "cache" / "gradients" / B / ".lock"
    used = lock.stat().st_mtime - 10 * 86_400
    os.utime(lock, (used, used))
    return store


def listed(store: Store) -> list[tuple[str, str]]:
    return [(entry.kind, entry.key) for entry in store.entries()]


def test_ls_shows_the_last_used_first_and_what_is_in_use(store: Store) -> None:
    with store.open("gradients", A):
        result = run("ls")
    header, *lines = (line.split("\t") for line in result.stdout.splitlines())
    assert header == ["key", "kind", "size", "last used", "in use"]
    assert [line[:3] + line[4:] for line in lines] == [
        [A, "gradients", "2.00 MB", "yes"],
        [A, "solution", "0.01 MB", "no"],
        [B, "gradients", "3.00 MB", "no"],
    ]
    assert "3 entries, 5.01 MB" in result.stderr


def test_ls_as_json(store: Store) -> None:
    first, *_ = json.loads(run("ls", "--json").stdout)
    assert set(first) == {"kind", "key", "bytes", "used_at", "in_use"}
    assert datetime.fromisoformat(first["used_at"]).tzinfo is not None


def test_rm_by_the_beginning_of_a_key(store: Store) -> None:
    result = run("rm", A[:10], "--json")
    assert {entry["kind"] for entry in json.loads(result.stdout)} == {"gradients", "solution"}
    assert listed(store) == [("gradients", B)]


@pytest.mark.parametrize("arguments", [[], ["a"], ["c"], ["--all", A], ["--older-than", "-1"]])
def test_rm_of_nothing_in_particular_is_refused(store: Store, arguments: list[str]) -> None:
    assert run("rm", *arguments).exit_code == 2
    assert len(listed(store)) == 3


def test_rm_by_age(store: Store) -> None:
    assert run("rm", "--older-than", "11").exit_code == 0
    assert len(listed(store)) == 3
    run("rm", "--older-than", "9")
    assert ("gradients", B) not in listed(store)
    assert len(listed(store)) == 2


def test_rm_leaves_what_a_job_reads_and_says_so(store: Store) -> None:
    with store.open("gradients", A):
        result = run("rm", "--all")
    assert result.exit_code == 1
    assert "1 entries are in use" in result.stderr
    assert listed(store) == [("gradients", A)]


def test_a_folder_that_is_none_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "gradients").mkdir()
    (tmp_path / "cache" / "gradients" / "a").mkdir()
    (tmp_path / "cache" / "gradients" / "a" / ".lock").mkdir()
    result = run("ls", "--cache", str(tmp_path / "cache"))
    assert result.exit_code == 1
    assert "cannot be written or read" in result.stderr


def test_the_folder_is_that_of_the_running_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCRIBE_CACHE_DIR", raising=False)
    monkeypatch.setenv("ASCRIBE_STATE_DIR", str(tmp_path))
    assert str(tmp_path / "cache") in run("ls").stderr
    elsewhere = tmp_path / "elsewhere"
    write_running(
        tmp_path, Running(url="http://127.0.0.1:1", pid=os.getpid(), started_at=datetime.now(UTC), cache_dir=elsewhere)
    )
    assert str(elsewhere) in run("ls").stderr


# -- the shared store ---------------------------------------------------------------------------------------------


@pytest.fixture
def shared(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One file of an entry A, written today, and of an entry B, written ten days ago. Returns the cache's folder."""
    monkeypatch.setenv("ASCRIBE_STORE_URL", f"file://{tmp_path}/far")
    remote = open_remote(Settings())
    assert remote is not None
    (tmp_path / "one").write_bytes(b"x" * 2_000_000)
    for key in (A, B):
        remote.put(tmp_path / "one", f"cache/gradients/{key}/one.bin")
    folder = tmp_path / "far" / "default" / "cache" / "gradients"
    used = (folder / B / "one.bin").stat().st_mtime - 10 * 86_400
    os.utime(folder / B / "one.bin", (used, used))
    return folder


def test_ls_of_the_shared_store(shared: Path) -> None:
    first, second = json.loads(run("ls", "--remote", "--json").stdout)
    assert (first["key"], second["key"]) == (A, B)
    assert (first["kind"], first["bytes"], first["in_use"]) == ("gradients", 2_000_000, False)


def test_rm_of_the_shared_store_leaves_the_folder(shared: Path, store: Store) -> None:
    before = listed(store)
    result = run("rm", "--remote", "--older-than", "7")
    assert result.exit_code == 0
    assert "removed 1 entries, 2.00 MB" in result.stderr
    assert not list((shared / B).iterdir())
    assert list((shared / A).iterdir())
    assert listed(store) == before


@pytest.mark.parametrize(("url", "said"), [("", "ASCRIBE_STORE_URL"), ("ftp://user:secret@host", "must begin with")])
def test_no_shared_store(store: Store, monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    monkeypatch.setenv("ASCRIBE_STORE_URL", url)
    result = run("ls", "--remote")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "secret" not in result.stderr
