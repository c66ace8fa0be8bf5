"""A real Valkey server and a real S3 server for every test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ascribe.embedded.server import free_port, start_server
from tests.support.objectstore import ObjectStore, running_object_store


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server shared by the whole session: use a tenant or a key prefix of your own."""
    port = free_port()
    server = start_server(tmp_path_factory.mktemp("valkey"), port, append_only=False)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Shared by the whole session: use a prefix of your own below its ``url``."""
    with running_object_store(tmp_path_factory.mktemp("weed")) as store:
        yield store
