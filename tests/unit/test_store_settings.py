"""Where the shared store is: refused at start-up in words, with no secret in them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from ascribe.settings import Settings
from ascribe.store.remote import open_remote


@pytest.mark.parametrize(
    "url", ["bucket", "/folder", "s3:/bucket", "http://host/folder", "file://folder", "memory://x"]
)
def test_no_such_store(url: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        Settings(store_url=url)


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/x", "ascribe[s3]"), ("gs://bucket", "gcsfs")])
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValidationError) as raised:
        Settings(store_url=url)
    assert f"pip install '{extra}'" in str(raised.value)


def test_no_store_loads_nothing() -> None:
    assert open_remote(Settings()) is None
    script = "import sys, worker.app, service.app, ascribe.store.remote; print({'fsspec', 's3fs'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_the_tenant_and_the_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASCRIBE_STORE_URL", f"file://{tmp_path}/")
    monkeypatch.setenv("ASCRIBE_STORE_OPTIONS", '{"secret": "of-no-value"}')
    monkeypatch.setenv("ASCRIBE_TENANT", "acme")
    remote = open_remote(Settings())
    assert remote is not None
    assert (remote.url, remote.options) == (f"file://{tmp_path}/acme", {"secret": "of-no-value"})
    assert "of-no-value" not in f"{Settings()!r} {remote!r}"


@pytest.mark.parametrize("options", ["{", "of-no-value", '["of-no-value"]', '"of-no-value"'])
def test_options_that_are_no_object_stop_the_service_without_being_repeated(options: str) -> None:
    env = os.environ | {"ASCRIBE_STORE_OPTIONS": options, "ASCRIBE_STORE_URL": "ftp://user:of-no-value@host/folder"}
    said = subprocess.run([sys.executable, "-m", "service"], env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 2, said.stderr
    assert "ASCRIBE_STORE_OPTIONS" in said.stderr
    assert "of-no-value" not in said.stderr


def test_a_worker_does_not_start_on_a_store_that_cannot_work() -> None:
    env = os.environ | {"ASCRIBE_STORE_URL": "ftp://user:of-no-value@host/folder"}
    said = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode != 0
    assert "must begin with one of file://, s3://" in said.stderr
    assert "of-no-value" not in said.stderr
