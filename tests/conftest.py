"""A real Valkey server for every test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ascribe.embedded.server import free_port, start_server


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
