"""The tools that break things do what they say: a chaos test is worth no more than its faults."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ascribe.embedded.server import free_port, start_server
from tests.support.faults.freezing import frozen
from tests.support.faults.full_server import memory_full
from tests.support.faults.limits import files_end_at, memory_ends_at
from tests.support.faults.proxy import FaultyProxy
from tests.support.faults.small_disk import CannotMount, filled, small_disk

ROOT = Path(__file__).resolve().parents[2]
SILENCE_SECONDS = 0.3


class Echo:
    """A server that answers what it hears, and keeps it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.closed = threading.Event()
        """A connection ended on this side."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(1000):
                    self.heard += piece
                    connection.sendall(piece)
            except OSError:
                pass
        self.closed.set()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.close()
    thread.join()


@pytest.fixture
def proxy() -> FaultyProxy:
    return FaultyProxy()


@pytest.fixture
def port(proxy: FaultyProxy, echo: Echo) -> Iterator[int]:
    with proxy.before(echo.port) as behind:
        yield behind


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection on which one exchange went well."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        assert said(connection, b"hello") == b"hello"
        yield connection


def said(connection: socket.socket, words: bytes) -> bytes:
    connection.sendall(words)
    return connection.recv(1000)


def send_all(connection: socket.socket, words: bytes) -> None:
    connection.sendall(words)
    connection.shutdown(socket.SHUT_WR)


def assert_silent(connection: socket.socket, words: bytes) -> None:
    connection.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        said(connection, words)


# -- the proxy --------------------------------------------------------------------------------------------------
def test_a_healthy_proxy_passes_all_bytes_and_the_end(port: int, echo: Echo) -> None:
    sent = bytes(range(256)) * 1000
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        threading.Thread(target=send_all, args=(connection, sent)).start()
        received = bytearray()
        while piece := connection.recv(1 << 16):
            received += piece
    assert received == sent
    assert echo.closed.wait(5)


def test_latency_is_paid_each_way(port: int, proxy: FaultyProxy) -> None:
    with connected(port) as connection:
        proxy.latency_seconds = 0.1
        began = time.monotonic()
        said(connection, b"slow")
        assert time.monotonic() - began >= 0.2


def test_a_reset_reaches_both_ends_and_new_connections_work(port: int, proxy: FaultyProxy, echo: Echo) -> None:
    with connected(port) as connection:
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
    assert echo.closed.wait(5)
    with connected(port):
        pass


def test_a_black_hole_tells_nobody_and_what_it_swallowed_never_comes(port: int, proxy: FaultyProxy, echo: Echo) -> None:
    with connected(port) as holed, connected(port) as idle:
        proxy.black_hole()
        assert_silent(holed, b"request")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as new:
            assert_silent(new, b"request")
        proxy.heal()
        assert_silent(holed, b"again")
        assert said(idle, b"unharmed") == b"unharmed"
    assert bytes(echo.heard) == b"hellohellounharmed"


def test_lost_replies_are_of_requests_that_were_carried_out(port: int, proxy: FaultyProxy, echo: Echo) -> None:
    with connected(port) as connection:
        proxy.lose_replies()
        assert_silent(connection, b"request")
    assert bytes(echo.heard) == b"hellorequest"


def test_the_server_does_not_notice_a_half_open_connection(port: int, proxy: FaultyProxy, echo: Echo) -> None:
    with connected(port) as connection:
        proxy.half_open()
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
    assert not echo.closed.wait(SILENCE_SECONDS)
    assert proxy.connections == 1


def test_a_connection_is_cut_at_its_words_and_only_once(port: int, proxy: FaultyProxy, echo: Echo) -> None:
    with connected(port) as one, connected(port) as other:
        proxy.cut_next(b"now")
        one.sendall(b"do it now")
        with pytest.raises(ConnectionResetError):
            one.recv(1000)
        assert said(other, b"and now?") == b"and now?"
    assert bytes(echo.heard) == b"hellohelloand now?"


def test_where_no_server_is_connections_are_cut(proxy: FaultyProxy) -> None:
    with (
        proxy.before(free_port()) as port,
        pytest.raises(ConnectionResetError),  # while connecting, or after
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        connection.recv(1000)


# -- processes and their limits -----------------------------------------------------------------------------------
@contextmanager
def child(**env: str) -> Iterator[subprocess.Popen[str]]:
    """A Python that carries out a line of code, answers what it printed, and waits for the next."""
    program = (
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    try: print(eval(line), flush=True)\n"
        "    except (OSError, MemoryError) as error:\n"
        "        print(type(error).__name__, getattr(error, 'errno', ''), flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
    )
    with process:
        yield process
        process.kill()


def answer(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_frozen_group_does_nothing_until_the_block_ends() -> None:
    with child() as process:
        assert answer(process, "1") == "1"
        with frozen(process.pid):
            thread = threading.Thread(target=answer, args=(process, "2"))
            thread.start()
            thread.join(SILENCE_SECONDS)
            assert thread.is_alive()
        thread.join(5)
        assert not thread.is_alive()


def test_files_end_at_a_size_and_then_do_not(tmp_path: Path) -> None:
    write = f"open({str(tmp_path / 'file')!r}, 'wb', buffering=0).write(bytes(5000))"
    with child() as process:
        assert answer(process, write) == "5000"
        with files_end_at(1000, [process.pid]):
            assert answer(process, write) == "1000", "what fits is written"
            again = write.replace("'wb'", "'ab'")
            assert answer(process, again) == f"OSError {errno.EFBIG}"
        assert answer(process, write) == "5000"


def test_memory_ends_at_a_size_and_then_does_not() -> None:
    with child() as process:
        with memory_ends_at(1 << 30, [process.pid]):
            assert answer(process, "len(bytearray(2 << 30))") == "MemoryError"
        assert answer(process, "len(bytearray(2 << 30))") == str(2 << 30)


def test_a_filled_disk_has_not_a_byte_left_and_then_has(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            with filled(disk), pytest.raises(OSError, match="No space left") as raised:
                (disk / "file").write_bytes(b"x")
            assert raised.value.errno == errno.ENOSPC
            (disk / "file").write_bytes(bytes(1 << 19))
    except CannotMount:
        pytest.skip("this process may not mount")
    assert not list((tmp_path / "disk").iterdir())


def test_a_wrong_clock_is_that_of_one_process() -> None:
    with child(FAULT_CLOCK_SECONDS="-86400") as process:
        answer(process, "__import__('tests.support.faults.clock')")
        told = float(answer(process, "time.time()"))
        told_ns = int(answer(process, "time.time_ns()"))
    assert abs(told + 86400 - time.time()) < 30
    assert abs(told_ns / 1e9 + 86400 - time.time()) < 30


# -- the server ---------------------------------------------------------------------------------------------------
def test_a_full_server_refuses_what_needs_memory_and_then_takes_it(tmp_path: Path) -> None:
    port = free_port()
    process = start_server(tmp_path, port, append_only=False)
    try:
        with redis.Redis(port=port, socket_timeout=5) as server:
            with memory_full(server), pytest.raises(redis.exceptions.OutOfMemoryError):
                server.set("key", "value")
            assert server.set("key", "value")
    finally:
        process.kill()
        process.wait()
