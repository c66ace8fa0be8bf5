"""The store: pins that die with their process, eviction in order of last use, whole files or none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ascribe.errors import StorageFailed
from ascribe.store import Damaged, Store

DAY = 86_400


def fill(store: Store, kind: str, key: str, size: int, *, days_old: float = 0) -> Path:
    """An entry of so many bytes, last used so long ago."""
    with store.open(kind, key) as folder:
        (folder / "data").write_bytes(b"x" * size)
    lock = folder / ".lock"
    used = lock.stat().st_mtime - days_old * DAY
    os.utime(lock, (used, used))
    return folder


def keys(store: Store) -> set[str]:
    return {entry.key for entry in store.entries()}


@contextmanager
def another_process(root: Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """A process with the store open as ``store``; it has said ``ready`` when the block begins."""
    opening = f"store = Store(Path({str(root)!r}), max_bytes=None)"
    script = f"import time\nfrom pathlib import Path\nfrom ascribe.store import Store\n{opening}\n{body}"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


HOLD = "with store.open('gradients', 'a'):\n    print('ready', flush=True)\n    time.sleep(60)\n"


def test_entries_are_listed_by_last_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", max_bytes=None)
    assert store.entries() == []
    fill(store, "gradients", "a", 10, days_old=1)
    fill(store, "solution", "b", 20, days_old=2)
    with store.open("gradients", "a"):
        entries = store.entries()
    assert [(entry.kind, entry.key, entry.bytes, entry.pinned) for entry in entries] == [
        ("solution", "b", 20, False),
        ("gradients", "a", 10, True),
    ]
    assert (entries[1].used_at - entries[0].used_at).total_seconds() > 1.9 * DAY


def test_a_look_is_no_use(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=None)
    fill(store, "gradients", "a", 10, days_old=3)
    before = store.entries()
    assert store.peek("gradients", "a")
    assert not store.peek("gradients", "b")
    assert store.entries() == before
    assert keys(store) == {"a"}


def test_an_entry_in_use_is_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=None)
    fill(store, "gradients", "a", 10)
    with store.open("gradients", "a"), store.open("gradients", "a"):
        assert not store.remove("gradients", "a")
    assert store.remove("gradients", "a")
    assert not store.remove("gradients", "a")
    assert list((tmp_path / "gradients").iterdir()) == []


def test_room_is_made_in_the_order_of_last_use(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    for age, key in enumerate("dcba"):
        fill(store, "gradients", key, 20, days_old=age)
    with store.open("gradients", "a"):  # the oldest of all, until now
        store.make_room(60)
    assert keys(store) == {"d", "a"}


def test_room_that_is_there_costs_nobody_a_place(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    fill(store, "gradients", "a", 40)
    store.make_room(60)
    assert keys(store) == {"a"}


def test_nothing_is_removed_where_that_would_not_be_enough(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    fill(store, "gradients", "a", 40)
    fill(store, "gradients", "b", 40)
    with (
        store.open("gradients", "b"),
        pytest.raises(StorageFailed, match=r"needs 61 bytes .* limit of 100 .* 40 "),
    ):
        store.make_room(61)
    assert keys(store) == {"a", "b"}


def test_the_disks_reserve_is_kept(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    store = Store(tmp_path, max_bytes=None, reserve_bytes=free // 2)
    store.make_room(1000)
    with pytest.raises(StorageFailed, match="free on the disk"):
        store.make_room(free // 2 + (1 << 30))


def test_another_processs_entry_is_safe_until_that_process_dies(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    fill(store, "gradients", "a", 80, days_old=9)
    with another_process(tmp_path, HOLD) as child:
        assert [entry.pinned for entry in store.entries()] == [True]
        with pytest.raises(StorageFailed):
            store.make_room(50)
        child.send_signal(signal.SIGKILL)
        child.wait()
        store.make_room(50)
    assert keys(store) == set()


def test_half_written_files_of_a_dead_process_go_when_the_entry_is_opened(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=None)
    writes = (
        "def hang(path):\n    path.write_bytes(b'half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "with store.open('gradients', 'a') as folder:\n    store.files.save(folder / 'one.bin', hang, {})\n"
    )
    with another_process(tmp_path, writes) as child:
        with store.open("gradients", "a") as folder:  # the writer lives: its file stays
            assert len(list(folder.glob(".one.bin.*"))) == 1
        child.kill()
        child.wait()
        with store.open("gradients", "a") as folder:
            assert [path.name for path in folder.iterdir()] == [".lock"]


def test_leftovers_of_an_interrupted_removal_go_when_room_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    leftover = tmp_path / "gradients" / ".removed-0"
    leftover.mkdir(parents=True)
    (leftover / "data").write_bytes(b"x" * 90)
    assert store.entries() == []
    store.make_room(1)
    assert not leftover.exists()


def test_an_entry_from_before_there_were_locks(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=100)
    (tmp_path / "gradients" / "old").mkdir(parents=True)
    assert [(entry.key, entry.pinned) for entry in store.entries()] == [("old", False)]
    assert store.remove("gradients", "old")


def test_opening_and_removing_at_once_never_loses_an_entry_in_use(tmp_path: Path) -> None:
    """Whoever has opened an entry finds what it wrote, however often others try to remove it."""
    lost: list[str] = []

    def use() -> None:
        store = Store(tmp_path, max_bytes=None)
        for _ in range(200):
            time.sleep(0.001)
            with store.open("gradients", "a") as folder:
                try:
                    store.files.save(folder / "one.bin", lambda path: path.write_bytes(b"whole"), {})
                    if store.files.facts(folder / "one.bin") != {}:
                        lost.append("facts")
                except (OSError, Damaged) as error:
                    lost.append(repr(error))

    users = [threading.Thread(target=use, daemon=True) for _ in range(2)]
    for user in users:
        user.start()
    store = Store(tmp_path, max_bytes=None)
    removed = 0
    while any(user.is_alive() for user in users):
        removed += store.remove("gradients", "a")
    assert lost == []
    assert removed > 0


def test_a_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    store = Store(tmp_path / "cache", max_bytes=None)
    with pytest.raises(StorageFailed, match="cannot be written"), store.open("gradients", "a"):
        pass


# -- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, max_bytes=None)


def save(store: Store, path: Path, content: bytes = b"content") -> Path:
    store.files.save(path, lambda temporary: temporary.write_bytes(content), {"rows": [0, 3]})
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_file_comes_with_its_facts(store: Store, tmp_path: Path) -> None:
    path = save(store, tmp_path / "one.bin")
    assert store.files.facts(path) == {"rows": [0, 3]}
    assert Store(tmp_path, max_bytes=None).files.facts(path) == {"rows": [0, 3]}
    assert store.files.facts(tmp_path / "two.bin") is None


@pytest.mark.parametrize("harm", [flip_a_bit, cut, Path.unlink])
def test_a_file_that_is_not_what_was_written(store: Store, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    path = save(store, tmp_path / "one.bin")
    harm(path)
    for reader in (store, Store(tmp_path, max_bytes=None)):
        with pytest.raises(Damaged):
            reader.files.facts(path)


def test_a_sidecar_that_cannot_be_read_vouches_for_nothing(store: Store, tmp_path: Path) -> None:
    path = save(store, tmp_path / "one.bin")
    for text in ("{", "[]", '{"rows": [0, 3]}', "\xff"):
        path.with_suffix(".json").write_bytes(text.encode("latin-1"))
        with pytest.raises(Damaged):
            store.files.facts(path)


def test_a_file_is_hashed_once_until_it_changes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(store, tmp_path / "one.bin")
    reader = Store(tmp_path, max_bytes=None)
    reader.files.facts(path)
    monkeypatch.setattr("ascribe.store.files.file_sha256", lambda _: "0")
    assert store.files.facts(path) == reader.files.facts(path) == {"rows": [0, 3]}
    path.touch()
    with pytest.raises(Damaged):
        reader.files.facts(path)


def test_a_write_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        store.files.save(tmp_path / "one.bin", fails, {})
    assert list(tmp_path.iterdir()) == []
