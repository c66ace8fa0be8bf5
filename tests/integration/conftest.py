"""The store that machines share: over a folder, over a real S3 server, and one that fails when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import stamina

from ascribe.store.remote import Remote
from tests.support.objectstore import ObjectStore


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "folder":
        return Remote(f"file://{tmp_path}/far")
    store: ObjectStore = request.getfixturevalue("object_store")
    return Remote(f"{store.url}/{uuid4().hex}", store.options)


@pytest.fixture
def flaky(tmp_path: Path) -> Remote:
    return Remote(f"flaky://{tmp_path}/far")


@pytest.fixture
def impatient() -> Iterator[None]:
    """As many tries as ever, without the pauses."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield
