"""Downloads from a real process over a real server: memory stays flat, and readers that stall or leave cost nothing."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ascribe.embedded.server import free_port
from ascribe.ledger.base import Policy
from ascribe.ledger.ids import new_job_id
from ascribe.ledger.redis import RedisLedger
from ascribe.result import MEAN, TOP, TRAIN_LOSS, TRAIN_ROWS, VALIDATION_ROWS, RowInfo
from ascribe.results.columns import Columns
from ascribe.results.ranking import pack_top
from ascribe.spec import JobSpec
from tests.support.handmade import manifest, pack_rows, scores_of, spec_body, train_rows
from tests.support.spilled import claimed, staging, worker_settings

TENANT = "downloads"
ROWS = 150_000
MATRIX_ROWS, QUERIES = 10_000, 50
WIDE_FILE_ROWS = 220_000
MiB = 1 << 20
LITTLE = 32 * MiB
"""A process breathes by some 10 to 20 MiB; with all slabs held at once it grew by 99."""
FILES = ("ndjson", "csv", "parquet", "arrow")


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def peak_bytes(self) -> int:
        """Most memory the process had since :meth:`forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def row_files(self) -> int:
        """Temporary files it has open that it did not inherit."""
        links = [link.readlink() for link in Path(f"/proc/{self.process.pid}/fd").iterdir() if int(link.name) > 2]
        return sum(str(link).endswith("(deleted)") for link in links)


StartService = Callable[..., Service]


@pytest.fixture(scope="module")
def ledger(redis_url: str) -> Iterator[RedisLedger]:
    ledger = RedisLedger(redis_url, tenant=TENANT, policy=Policy(), timeout_seconds=10)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def long_job(ledger: RedisLedger) -> str:
    """Rows of some hundred bytes whose compressed list is small: what a careless reader would unpack at once."""
    rows = [RowInfo(id=f"t{i}", label="coding", text=f"what is the answer to question {i}? " * 3) for i in range(ROWS)]
    return _store(ledger, {MEAN: ROWS, TRAIN_LOSS: ROWS}, rows, train_rows(1))


@pytest.fixture(scope="module")
def wide_job(ledger: RedisLedger) -> str:
    names = [MEAN, TRAIN_LOSS, *(f"validation:{q}" for q in range(QUERIES))]
    return _store(ledger, dict.fromkeys(names, MATRIX_ROWS), train_rows(MATRIX_ROWS), train_rows(QUERIES))


@pytest.fixture(scope="module")
def wide_file(ledger: RedisLedger, results: Path) -> str:
    """As :func:`wide_job`, with its vectors in a file: four row groups of 52 vectors, 17 MB each."""
    names = [MEAN, TRAIN_LOSS, *(f"validation:{q}" for q in range(QUERIES))]
    rows, spec = train_rows(WIDE_FILE_ROWS), JobSpec.model_validate(spec_body())
    claim = claimed(ledger, ledger.create(new_job_id(), spec).job.id)
    scores = array("f", scores_of(WIDE_FILE_ROWS))
    columns = Columns(names, len(rows), lambda start, stop: [scores[start:stop]] * len(names))
    settings = worker_settings(results.parent, results_dir=results, tenant=TENANT)
    with staging(ledger, claim, settings) as sink:
        stored = sink.spill(columns)
        sink.stage(TOP, [pack_top(scores)])
        sink.stage(TRAIN_ROWS, [pack_rows(rows)])
        sink.stage(VALIDATION_ROWS, [pack_rows(train_rows(QUERIES))])
        small = {name: scores_of(30) for name in (MEAN, TRAIN_LOSS)}
        counts = {"train_rows": len(rows), "validation_rows": QUERIES, "vectors": tuple(names), "stored": stored}
        ledger.commit(claim, manifest(spec, small, rows[:30]).model_copy(update=counts))
    return claim.job_id


def _store(ledger: RedisLedger, sizes: dict[str, int], rows: list[RowInfo], queries: list[RowInfo]) -> str:
    spec = JobSpec.model_validate(spec_body())
    claim = ledger.claim(ledger.create(new_job_id(), spec).job.id, 1, "w")
    assert claim is not None
    generator = random.Random(0)  # noqa: S311
    for name, size in sizes.items():
        ledger.stage(claim, name, [array("f", [generator.gauss(0, 1) for _ in range(size)]).tobytes()])
    ledger.stage(claim, TRAIN_ROWS, [pack_rows(rows)])
    ledger.stage(claim, VALIDATION_ROWS, [pack_rows(queries)])
    small = {name: scores_of(30) for name in (MEAN, TRAIN_LOSS)}
    counts = {"train_rows": len(rows), "validation_rows": len(queries), "vectors": tuple(sizes)}
    ledger.commit(claim, manifest(spec, small, rows[:30]).model_copy(update=counts))
    return claim.job_id


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[StartService]:
    services: list[Service] = []

    def start_service(**settings: str) -> Service:
        port, log = free_port(), tmp_path / f"service-{len(services)}.log"
        given = {"ASCRIBE_REDIS_URL": redis_url, "ASCRIBE_TENANT": TENANT, "ASCRIBE_PORT": str(port), **settings}
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-m", "service"], env=os.environ | given, stderr=file)
        services.append(Service(process, port, log))
        _await(lambda: _alive(port))
        return services[-1]

    yield start_service
    for service in services:
        service.process.kill()
        service.process.wait(10)


def _alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").is_success
    except httpx.TransportError:
        return False


def _await(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def _download(client: httpx.Client, job_id: str, **query: str) -> int:
    """Bytes received."""
    with client.stream("GET", f"/v1/jobs/{job_id}/scores", params=query) as response:
        assert response.status_code == 200
        return sum(len(piece) for piece in response.iter_bytes(1 << 16))


@pytest.mark.parametrize("order", ["row", "absolute"])
def test_a_long_file_takes_little_more_memory_than_a_short_one(start: StartService, long_job: str, order: str) -> None:
    service = start()
    with service.client() as client:
        for form in FILES:
            _download(client, long_job, format=form, order=order, top_k=str(ROWS // 10))
        service.forget_peak()
        before = service.peak_bytes()
        sizes = {form: _download(client, long_job, format=form, order=order) for form in FILES}
        grown = service.peak_bytes() - before
    assert sizes["ndjson"] > 20 * MiB
    assert grown < LITTLE, f"{grown / MiB:.0f} MiB for {ROWS} rows"


def test_a_long_matrix_takes_little_more_memory_than_a_short_one(start: StartService, wide_job: str) -> None:
    service = start()
    with service.client() as client:
        for form in FILES:
            _download(client, wide_job, format=form, vector="all", order="row", top_k=str(MATRIX_ROWS // 2))
        service.forget_peak()
        before = service.peak_bytes()
        sizes = {form: _download(client, wide_job, format=form, vector="all") for form in FILES}
        grown = service.peak_bytes() - before
    assert sizes["ndjson"] > 30 * MiB
    assert grown < LITTLE, f"{grown / MiB:.0f} MiB for {MATRIX_ROWS * QUERIES} scores"


def test_a_matrix_in_a_file_takes_memory_for_a_row_group(start: StartService, wide_file: str, results: Path) -> None:
    service = start(ASCRIBE_RESULTS_DIR=str(results))
    with service.client() as client:
        for form in ("parquet", "arrow"):
            _download(client, wide_file, format=form, vector="all", order="row", top_k="70000")
        service.forget_peak()
        before = service.peak_bytes()
        sizes = {form: _download(client, wide_file, format=form, vector="all") for form in ("parquet", "arrow")}
        grown = service.peak_bytes() - before
    assert sizes["arrow"] > 4 * QUERIES * WIDE_FILE_ROWS
    assert grown < LITTLE, f"{grown / MiB:.0f} MiB for {WIDE_FILE_ROWS * QUERIES} scores"


def _begin(service: Service, path: str) -> socket.socket:
    """A client that asks, takes the first bytes, and then nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", service.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_more_stalled_readers_than_threads_do_not_stop_the_service(
    start: StartService, ledger: RedisLedger, long_job: str
) -> None:
    service = start()
    readers = [_begin(service, f"/v1/jobs/{long_job}/scores?format=ndjson") for _ in range(60)]
    with service.client() as client:
        started = time.monotonic()
        assert client.get(f"/v1/jobs/{long_job}").status_code == 200
        assert client.get(f"/v1/jobs/{long_job}/scores?limit=10").status_code == 200
        assert time.monotonic() - started < 5
    for reader in readers:
        reader.close()


def test_a_stalled_reader_is_let_go(start: StartService, long_job: str) -> None:
    service = start(ASCRIBE_SLOW_READER_SECONDS="1")
    reader = _begin(service, f"/v1/jobs/{long_job}/scores?format=ndjson&order=absolute")
    assert service.row_files() == 1
    _await(lambda: service.row_files() == 0)
    assert "took too little of its download" in service.log.read_text()
    rest = b"".join(iter(lambda: reader.recv(1 << 16), b""))
    assert not rest.endswith(b"0\r\n\r\n"), "a client must not take half a file for a whole one"
    assert rest.count(b'"index"') < ROWS
    reader.close()
    assert "Traceback" not in service.log.read_text()


def test_a_slow_reader_gets_everything(start: StartService, wide_job: str) -> None:
    service = start(ASCRIBE_SLOW_READER_SECONDS="2")
    reader = _begin(service, f"/v1/jobs/{wide_job}/scores?format=csv&vector=all&order=row&top_k=4000")
    received = bytearray()
    for _ in range(40):
        time.sleep(0.1)
        received += reader.recv(1 << 17)
    while not received.endswith(b"0\r\n\r\n"):
        piece = reader.recv(1 << 20)
        assert piece, "let go, though it was reading"
        received += piece
    assert len(received) > 5 * MiB, "more than lies in buffers on the way"
    assert b"3999,t3999,coding,t49," in received[-200:]
    reader.close()


def test_a_reader_that_goes_away_frees_what_it_held(start: StartService, long_job: str) -> None:
    service = start()
    readers = [_begin(service, f"/v1/jobs/{long_job}/scores?format=csv&order=opponents") for _ in range(3)]
    assert service.row_files() == 3
    for reader in readers:
        reader.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # a reset, as of a killed client
        reader.close()
    _await(lambda: service.row_files() == 0, seconds=5)
    assert "Traceback" not in service.log.read_text()


def test_scores_deleted_under_a_reader_end_the_file_without_its_end(start: StartService, ledger: RedisLedger) -> None:
    rows = [RowInfo(id=f"t{i}", label="a", text="x" * 200) for i in range(60_000)]
    job_id = _store(ledger, {MEAN: len(rows), TRAIN_LOSS: len(rows)}, rows, rows[:1])
    service = start()
    reader = _begin(service, f"/v1/jobs/{job_id}/scores?format=ndjson")
    ledger.delete(job_id)
    rest = b"".join(iter(lambda: reader.recv(1 << 16), b""))
    assert not rest.endswith(b"0\r\n\r\n")
    reader.close()
