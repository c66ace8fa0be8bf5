"""Two machines' cache directories over one shared store: found, verified, mended, made room for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ascribe.errors import NoRoom, StorageFailed
from ascribe.store import Damaged, Store
from ascribe.store.remote import Remote
from ascribe.store.shared import remove_shared, shared_entries
from ascribe.store.trouble import ATTEMPTS
from tests.support.flaky import trouble

CONTENT = b"content" * 100
FACTS = {"rows": [0, 3]}


pytestmark = pytest.mark.usefixtures("impatient")


def machine(tmp_path: Path, name: str, remote: Remote | None, max_bytes: int | None = None) -> Store:
    return Store(tmp_path / name, max_bytes=max_bytes, remote=remote)


def save(store: Store, content: bytes = CONTENT, key: str = "a") -> Path:
    with store.open("gradients", key) as folder:
        path = folder / "one.bin"
        store.files.save(path, lambda temporary: temporary.write_bytes(content), FACTS)
    return path


def find(store: Store, key: str = "a") -> dict[str, object] | None:
    with store.open("gradients", key) as folder:
        return store.files.facts(folder / "one.bin")


def harm(remote: Remote, tmp_path: Path, name: str = "cache/gradients/a/one.bin") -> None:
    content = bytearray(remote.read(name) or b"")
    content[3] ^= 1
    (tmp_path / "harmed").write_bytes(content)
    remote.put(tmp_path / "harmed", name)


def test_what_one_machine_writes_another_finds(remote: Remote, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    assert find(there) is None
    save(here)
    assert find(there) == FACTS
    assert (tmp_path / "there/gradients/a/one.bin").read_bytes() == CONTENT
    assert {name for name, _ in remote.names("")} == {"cache/gradients/a/one.bin", "cache/gradients/a/one.json"}
    alone = machine(tmp_path, "there", None)
    assert find(alone) == FACTS, "the copy is as good as what was written"


def test_a_promise_moves_nothing(remote: Remote, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    with there.open("gradients", "a") as folder:
        path = folder / "one.bin"
        assert there.files.promised(path) is None
        kept = save(here)
        assert there.files.promised(path) == here.files.promised(kept) == FACTS
        assert [found.name for found in folder.iterdir()] == [".lock"]


def test_what_is_here_costs_no_request(flaky: Remote, tmp_path: Path) -> None:
    here = machine(tmp_path, "here", flaky)
    path = save(here)
    with trouble() as calls:
        assert find(here) == find(machine(tmp_path, "here", flaky)) == here.files.promised(path) == FACTS
    assert calls == []


def test_a_damaged_file_there_is_told_and_overwritten(remote: Remote, tmp_path: Path) -> None:
    save(machine(tmp_path, "here", remote))
    harm(remote, tmp_path)
    there = machine(tmp_path, "there", remote)
    with pytest.raises(Damaged):
        find(there)
    assert [path.name for path in (tmp_path / "there/gradients/a").iterdir()] == [".lock"]
    save(there)
    assert find(machine(tmp_path, "third", remote)) == FACTS


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [0, 3]}', "\xff"])
def test_a_sidecar_there_that_cannot_be_read(remote: Remote, tmp_path: Path, text: str) -> None:
    path = save(machine(tmp_path, "here", remote))
    (tmp_path / "text").write_bytes(text.encode("latin-1"))
    remote.put(tmp_path / "text", "cache/gradients/a/one.json")
    there = machine(tmp_path, "there", remote)
    with pytest.raises(Damaged):
        find(there)
    assert there.files.promised(tmp_path / "there" / path.relative_to(tmp_path / "here")) is None


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), Path.unlink])
def test_what_is_damaged_here_comes_from_there(
    remote: Remote, tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    here = machine(tmp_path, "here", remote)
    path = save(here)
    damage(path)
    assert find(here) == FACTS
    assert path.read_bytes() == CONTENT
    assert "check this disk" in caplog.text


def test_half_a_pair_is_nothing(remote: Remote, tmp_path: Path) -> None:
    """A lifecycle rule may take one of them first."""
    save(machine(tmp_path, "here", remote))
    remote.delete("cache/gradients/a/one.bin")
    assert find(machine(tmp_path, "there", remote)) is None


def test_evicting_a_copy_leaves_what_is_there(remote: Remote, tmp_path: Path) -> None:
    here = machine(tmp_path, "here", remote)
    save(here)
    assert here.remove("gradients", "a")
    assert find(here) == FACTS


def test_a_copy_makes_room_and_says_when_it_cannot(remote: Remote, tmp_path: Path) -> None:
    here = machine(tmp_path, "here", remote)
    for key in ("a", "b"):
        save(here, key=key)
    there = machine(tmp_path, "there", remote, max_bytes=int(1.5 * len(CONTENT)))
    assert find(there, "a") == FACTS
    assert find(there, "b") == FACTS
    assert [entry.key for entry in there.entries()] == ["b"]
    with pytest.raises(NoRoom):
        find(machine(tmp_path, "third", remote, max_bytes=len(CONTENT) - 1))


def test_writers_of_the_same_file(remote: Remote, tmp_path: Path) -> None:
    stores = [machine(tmp_path, str(number), remote) for number in range(4)]
    threads = [threading.Thread(target=save, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert find(machine(tmp_path, "reader", remote)) == FACTS


def test_what_is_older_than_the_shared_store_can_be_shared(remote: Remote, tmp_path: Path) -> None:
    path = save(machine(tmp_path, "here", None))
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    assert find(here) == FACTS
    assert find(there) is None
    here.files.share(path)
    assert find(there) == FACTS
    written = dict(remote.names(""))
    here.files.share(path)
    assert dict(remote.names("")) == written


def test_a_store_that_fails_is_no_empty_store(flaky: Remote, tmp_path: Path) -> None:
    save(machine(tmp_path, "here", flaky))
    there = machine(tmp_path, "there", flaky)
    with trouble(cat_file=[OSError("down")] * 9) as calls, pytest.raises(StorageFailed):
        find(there)
    assert len(calls) == ATTEMPTS
    with trouble(get_file=[5] * 9), pytest.raises(StorageFailed):
        find(there)
    assert [path.name for path in (tmp_path / "there/gradients/a").iterdir()] == [".lock"]
    assert find(there) == FACTS


def test_what_could_not_be_shared_is_not_kept_as_if_it_were(flaky: Remote, tmp_path: Path) -> None:
    here = machine(tmp_path, "here", flaky)
    with trouble(put_file=[OSError("down")] * 9), pytest.raises(StorageFailed):
        save(here)
    assert find(here) is None
    save(here)
    assert find(machine(tmp_path, "there", flaky)) == FACTS


def test_the_shared_store_listed_and_cleared(remote: Remote, tmp_path: Path) -> None:
    here = machine(tmp_path, "here", remote)
    assert shared_entries(remote) == []
    for key in ("a", "b"):
        save(here, key=key)
    first, _ = entries = shared_entries(remote)
    assert {(entry.kind, entry.key) for entry in entries} == {("gradients", "a"), ("gradients", "b")}
    assert len(CONTENT) < first.bytes < len(CONTENT) + 200
    remove_shared(remote, first)
    (left,) = shared_entries(remote)
    assert left.key != first.key
    assert find(machine(tmp_path, "there", remote), first.key) is None
    assert find(here, first.key) == FACTS, "a copy stays"
