"""Ids, chunks and the embedded server."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascribe.embedded.server import find_server_binary, free_port, start_server
from ascribe.errors import QueueUnavailable
from ascribe.job import JOB_ID_PATTERN
from ascribe.ledger.chunks import rechunk
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.redis_client import SCRIPTS


def test_ids_are_uuid7_and_grow() -> None:
    ids = [new_job_id() for _ in range(10_000)]

    assert ids == sorted(set(ids))
    assert all(re.fullmatch(JOB_ID_PATTERN, job_id) for job_id in ids)
    first = uuid.UUID(ids[0].removeprefix("job_"))
    assert (first.version, first.variant) == (7, uuid.RFC_4122)


def test_ids_of_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_job_id(), range(4000)))
    assert len(set(ids)) == 4000


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_rechunking_keeps_the_bytes(chunks: list[bytes], size: int) -> None:
    pieces = list(rechunk(chunks, size))

    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= size or pieces == [b""]


def test_every_script_is_loaded() -> None:
    folder = Path(__file__).parents[2] / "ascribe" / "ledger"
    assert {path.stem for path in folder.glob("*.lua")} - {"common"} == set(SCRIPTS)


def test_the_wheel_has_a_binary() -> None:
    assert find_server_binary().is_file()


def test_a_taken_port_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    port = free_port()
    first = start_server(tmp_path / "first", port, append_only=False)
    try:
        with pytest.raises(QueueUnavailable, match=r"see the end of valkey\.log"):
            start_server(tmp_path / "second", port, append_only=False)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


def test_what_was_accepted_survives_a_kill(tmp_path: Path) -> None:
    import redis

    for round_trip in range(2):
        port = free_port()
        server = start_server(tmp_path, port, append_only=True)
        with redis.Redis(port=port) as client:
            if round_trip == 0:
                client.set("k", "v")
            assert client.get("k") == b"v"
        server.kill()
        server.wait()
