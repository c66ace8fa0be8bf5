"""The shared store over a folder and over a real S3 server: whole files or none, bounded waits, no secrets told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ascribe.embedded.server import free_port
from ascribe.errors import NoRoom, StorageFailed
from ascribe.store.remote import STALE_SECONDS, Remote
from ascribe.store.trouble import ATTEMPTS
from tests.support.flaky import trouble
from tests.support.objectstore import SECRET, ObjectStore

pytestmark = pytest.mark.usefixtures("impatient")


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_is_put_is_there(remote: Remote, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    remote.put(file(tmp_path / "one", content), "results/a/one.parquet")
    assert remote.size("results/a/one.parquet") == len(content)
    assert remote.read("results/a/one.parquet") == content
    assert remote.get("results/a/one.parquet", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    remote.put(file(tmp_path / "two", b"other"), "results/a/one.parquet")
    assert remote.read("results/a/one.parquet") == b"other"


def test_what_is_not_there(remote: Remote, tmp_path: Path) -> None:
    remote.put(file(tmp_path / "one", b"1"), "folder/one")
    assert remote.size("folder") is None
    for name in ("nothing", "folder/two"):
        assert remote.size(name) is None
        assert remote.read(name) is None
        assert not remote.get(name, tmp_path / "back")
        remote.delete(name)
        with pytest.raises(StorageFailed):
            remote.open(name)
    assert list(remote.names("nothing")) == []
    assert remote.read("folder/one") == b"1"


def test_listing(remote: Remote, tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for name in ("cache/a/1", "cache/a/2", "cache/ab/3", "uploads/4"):
        remote.put(file(tmp_path / "one", name.encode()), name)
    assert {name for name, _ in remote.names("cache/a")} == {"cache/a/1", "cache/a/2"}
    assert {name for name, _ in remote.names("")} == {"cache/a/1", "cache/a/2", "cache/ab/3", "uploads/4"}
    for listed in remote.files("cache/ab"):
        assert listed.bytes == len("cache/ab/3")
        assert before < listed.modified_at < datetime.now(UTC) + timedelta(seconds=2)
    remote.delete("cache/a/1")
    remote.delete("cache/a/1")
    assert {name for name, _ in remote.names("cache")} == {"cache/a/2", "cache/ab/3"}


def test_reading_here_and_there_in_a_file(remote: Remote, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    remote.put(file(tmp_path / "one", content), "one")
    with remote.open("one") as reading:
        assert reading.seek(-10, os.SEEK_END) == len(content) - 10
        assert reading.read() == content[-10:]
        assert reading.read(1) == b""
        reading.seek(1000)
        assert reading.read(2 << 20) == content[1000 : 1000 + (2 << 20)]
        assert reading.tell() == 1000 + (2 << 20)


def test_a_column_of_a_parquet_file(remote: Remote, tmp_path: Path) -> None:
    table = pa.table({"score": list(range(50_000)), "other": [str(i) for i in range(50_000)]})
    pq.write_table(table, tmp_path / "one.parquet", row_group_size=10_000)
    remote.put(tmp_path / "one.parquet", "one.parquet")
    with remote.open("one.parquet") as reading:
        group = pq.ParquetFile(reading).read_row_group(2, columns=["score"])
    assert group.column("score").to_pylist() == list(range(20_000, 30_000))


def test_a_file_of_many_parts(remote: Remote, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 40
    remote.put(file(tmp_path / "one", content), "one")
    assert remote.get("one", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_many_threads_and_writers_of_one_name(remote: Remote, tmp_path: Path) -> None:
    """A reader sees one of the writers' files, whole."""
    wrong: list[bytes | None] = []
    remote.put(file(tmp_path / "0", bytes([0]) * 70_000), "one")

    def write(number: int) -> None:
        own = file(tmp_path / str(number), bytes([number]) * 70_000)
        for _ in range(5):
            remote.put(own, "one")

    def read() -> None:
        for _ in range(10):
            found = remote.read("one")
            if found is None or len(found) != 70_000 or len(set(found)) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 4)]
    threads += [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- killed ---------------------------------------------------------------------------------------------------------

HANG = """
import sys, time
from pathlib import Path
from ascribe.store import remote as module

def hang(*_, **__):
    print("ready", flush=True)
    time.sleep(60)

async def complete_nothing(self, method, *arguments, **options):
    return hang() if method == "complete_multipart_upload" else await call(self, method, *arguments, **options)

module._check_size = hang
if not sys.argv[1].startswith("file:"):
    from s3fs import S3FileSystem
    call, S3FileSystem._call_s3 = S3FileSystem._call_s3, complete_nothing
module.Remote(sys.argv[1], eval(sys.argv[2])).put(Path(sys.argv[3]), "one")
"""


def test_a_writer_that_is_killed_leaves_nothing_to_see(remote: Remote, tmp_path: Path) -> None:
    """After the last byte, before the name: 40 MB are parts of an upload in S3, a file without a name in a folder."""
    local = file(tmp_path / "one", b"x" * (40 << 20))
    arguments = [remote.url, repr(dict(remote.options)), str(local)]
    with subprocess.Popen([sys.executable, "-c", HANG, *arguments], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        writer.kill()
    assert remote.size("one") is None
    assert list(remote.names("")) == []
    remote.put(local, "one")
    assert remote.size("one") == 40 << 20


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    remote = Remote(f"file://{tmp_path}/far")
    incoming = tmp_path / "far" / ".incoming"
    incoming.mkdir(parents=True)
    old, young = file(incoming / "old", b"1"), file(incoming / "young", b"2")
    then = time.time() - STALE_SECONDS - 60
    os.utime(old, (then, then))
    remote.put(file(tmp_path / "one", b"1"), "one")
    assert list(incoming.iterdir()) == [young]


# -- failing --------------------------------------------------------------------------------------------------------


def test_trouble_that_passes_is_not_seen(flaky: Remote, tmp_path: Path) -> None:
    one = file(tmp_path / "one", b"content")
    with trouble(put_file=[OSError("reset"), 3], get_file=[2, TimeoutError()], cat_file=[OSError("reset"), 1]) as calls:
        flaky.put(one, "one")
        assert flaky.get("one", tmp_path / "back")
        with flaky.open("one") as reading:
            assert reading.read() == b"content"
    assert (tmp_path / "back").read_bytes() == b"content"
    assert calls == ["put_file"] * 3 + ["get_file"] * 3 + ["cat_file"] * 3


@pytest.mark.parametrize("harm", [1, OSError("disk on fire"), RuntimeError("theirs")])
@pytest.mark.parametrize("method", ["put_file", "get_file", "cat_file"])
def test_trouble_that_stays_is_told(flaky: Remote, tmp_path: Path, method: str, harm: Exception | int) -> None:
    one = file(tmp_path / "one", b"content")
    flaky.put(one, "one")
    work: Mapping[str, Callable[[], object]] = {
        "put_file": lambda: flaky.put(one, "one"),
        "get_file": lambda: flaky.get("one", tmp_path / "back"),
        "cat_file": lambda: flaky.open("one").read(),
    }
    with trouble(**{method: [harm] * 10}) as calls, pytest.raises(StorageFailed) as raised:
        work[method]()
    assert calls.count(method) == ATTEMPTS
    assert raised.value.retryable
    assert "shared store" in raised.value.detail
    assert not {"fire", "theirs", str(tmp_path)} & set(raised.value.detail.split())


def test_a_store_that_keeps_a_part_is_left_without_it(flaky: Remote, tmp_path: Path) -> None:
    with trouble(put_file=[3] * 9), pytest.raises(StorageFailed, match="ShortRead"):
        flaky.put(file(tmp_path / "one", b"content"), "one")
    assert flaky.size("one") is None


def test_a_full_store(flaky: Remote, tmp_path: Path) -> None:
    with trouble(put_file=[OSError(28, "No space left on device")] * 5), pytest.raises(NoRoom, match="full"):
        flaky.put(file(tmp_path / "one", b"1"), "one")


def test_wrong_credentials_are_told_once_and_not_repeated(object_store: ObjectStore, tmp_path: Path) -> None:
    remote = Remote(object_store.url, {**object_store.options, "secret": SECRET[::-1]})
    with pytest.raises(StorageFailed, match="credentials") as raised:
        remote.put(file(tmp_path / "one", b"1"), "one")
    for secret in (SECRET, SECRET[::-1], object_store.url):
        assert secret not in raised.value.detail
        assert secret not in repr(remote)


def test_a_bucket_that_is_not_there(object_store: ObjectStore) -> None:
    with pytest.raises(StorageFailed, match="bucket"):
        list(Remote("s3://nobody-made-this", object_store.options).names(""))


def test_nobody_listens(object_store: ObjectStore) -> None:
    remote = Remote(object_store.url, {**object_store.options, "endpoint_url": f"http://127.0.0.1:{free_port()}"})
    began = time.monotonic()
    with pytest.raises(StorageFailed, match="reached"):
        remote.read("one")
    assert time.monotonic() - began < 20


@pytest.fixture
def frozen(object_store: ObjectStore) -> Iterator[ObjectStore]:
    object_store.process.send_signal(signal.SIGSTOP)
    try:
        yield object_store
    finally:
        object_store.process.send_signal(signal.SIGCONT)


def test_a_store_that_hangs_hangs_nobody(frozen: ObjectStore, tmp_path: Path) -> None:
    remote = Remote(frozen.url, frozen.options, timeout_seconds=0.3)
    one = file(tmp_path / "one", b"1")
    operations: list[Callable[[], object]] = [lambda: remote.put(one, "one"), lambda: remote.size("one")]
    for work in operations:
        began = time.monotonic()
        with pytest.raises(StorageFailed, match="reached"):
            work()
        assert time.monotonic() - began < 20


class Trickle(BaseHTTPRequestHandler):
    """Sends a byte now and then: never silent, never done."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        with suppress(OSError):
            for _ in range(1000):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *_: object) -> None: ...


def test_a_store_that_crawls_counts_as_failing(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Trickle) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"key": "k", "secret": "s", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        began = time.monotonic()
        with pytest.raises(StorageFailed, match="Timeout"):
            Remote("s3://bucket", options, timeout_seconds=0.3).get("one", tmp_path / "back")
        assert time.monotonic() - began < 20
        server.shutdown()
