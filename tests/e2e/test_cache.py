"""The cache directory under a running service: removed from beside a job, listed, and made unusable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ascribe.client.discovery import read_running
from ascribe.job import JobState
from tests.e2e.conftest import MakeSpec, System

COMMAND = [sys.executable, "-c", "from ascribe.cli import main; main()", "cache"]


def command(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "ASCRIBE_CACHE_DIR"}
    env["ASCRIBE_STATE_DIR"] = str(system.stack.state_dir)
    return subprocess.run([*COMMAND, *arguments], env=env, capture_output=True, text=True, check=False)


def test_clearing_the_cache_beside_a_running_job_leaves_what_it_reads(system: System, make_spec: MakeSpec) -> None:
    running = read_running(system.stack.state_dir)
    assert running is not None
    assert running.cache_dir == system.stack.cache_dir
    old = system.client.create_and_wait(make_spec(), timeout=120)
    assert old.result is not None
    train = {"source": {"kind": "file", "path": "all/train.jsonl"}, "limit": 400}
    job = system.client.create(make_spec(train=train, model=make_spec()["model"] | {"max_length": 48}))
    system.running_past(job, rows=64)
    listed = json.loads(command(system, "ls", "--json").stdout)
    removing = command(system, "rm", "--all", "--json")
    removed = {entry["key"] for entry in json.loads(removing.stdout)}
    in_use = {entry["key"] for entry in listed if entry["in_use"]}
    assert in_use
    assert removing.returncode == 1, removing.stderr
    assert old.result.provenance.gradient_fingerprint in removed
    assert not in_use & removed
    ended = system.client.wait(job.id, timeout=120)
    assert ended.status is JobState.SUCCEEDED
    assert ended.result is not None
    assert ended.result.provenance.gradient_fingerprint in in_use


@contextmanager
def unusable(system: System) -> Iterator[None]:
    """A file stands where the gradients' folder is wanted."""
    folder = system.stack.cache_dir / "gradients"
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


def test_a_cache_that_cannot_be_written_fails_the_job_and_not_the_worker(system: System, make_spec: MakeSpec) -> None:
    system.client.create_and_wait(make_spec(), timeout=120)
    with unusable(system):
        failed = system.client.wait(system.client.create(make_spec()).id, timeout=120)
    assert failed.status is JobState.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.attempt) == ("storage", 1)
    assert str(system.stack.cache_dir) not in failed.error.detail
    assert system.client.create_and_wait(make_spec(), timeout=120).status is JobState.SUCCEEDED
