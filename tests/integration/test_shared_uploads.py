"""Uploads over a shared store: two machines' folders, one set of datasets."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from ascribe.errors import StorageFailed
from ascribe.settings import Settings
from ascribe.sources.shared_uploads import UNUSED_SECONDS, SharedUploads, open_uploads
from ascribe.sources.uploads import Uploads
from ascribe.store.remote import Remote
from tests.support.flaky import trouble

ROWS = b'{"text": "undo a commit", "label": "coding"}\n'
ID = f"ds_{hashlib.sha256(ROWS).hexdigest()}"
RECORD = json.dumps({"id": ID, "format": "jsonl"}).encode()


pytestmark = pytest.mark.usefixtures("impatient")


def machine(tmp_path: Path, name: str, remote: Remote) -> SharedUploads:
    return SharedUploads(Settings(uploads_dir=tmp_path / name), remote)


def upload(uploads: Uploads, rows: bytes = ROWS, record: bytes = RECORD) -> bool:
    with uploads.incoming() as folder:
        (folder / f"rows.{json.loads(record)['format']}").write_bytes(rows)
        return uploads.keep(folder, ID, record)


def copies(tmp_path: Path, name: str) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file())


def test_uploaded_here_read_and_deleted_there(remote: Remote, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    assert there.record(ID) is None
    assert there.file(ID) is None
    assert upload(here)
    assert not upload(there)
    assert there.record(ID) == here.record(ID) == RECORD
    for uploads in (here, there):
        found = uploads.file(ID)
        assert found is not None
        assert (found.format, found.path.read_bytes()) == ("jsonl", ROWS)
    assert there.delete(ID)
    assert not there.delete(ID)
    assert not here.delete("ds_" + "0" * 64)
    assert here.record(ID) is None
    assert here.file(ID) is None
    assert copies(tmp_path, "here") == copies(tmp_path, "there") == []
    assert list(remote.names("")) == []


def test_a_copy_is_fetched_once(tmp_path: Path) -> None:
    remote = Remote(f"flaky://{tmp_path}/far")
    upload(machine(tmp_path, "here", remote))
    with trouble() as calls:
        for _ in range(2):
            assert machine(tmp_path, "there", remote).file(ID) is not None
    assert calls.count("get_file") == 1


def test_what_arrives_damaged_is_not_read(remote: Remote, tmp_path: Path) -> None:
    upload(machine(tmp_path, "here", remote))
    (tmp_path / "harmed").write_bytes(ROWS.replace(b"coding", b"trivia"))
    remote.put(tmp_path / "harmed", f"uploads/{ID.removeprefix('ds_')}/rows.jsonl")
    with pytest.raises(StorageFailed, match="not what was uploaded"):
        machine(tmp_path, "there", remote).file(ID)
    assert copies(tmp_path, "there") == []


def test_rows_without_their_record_are_no_dataset(tmp_path: Path) -> None:
    """The record is last: an upload that was cut short between the two is as if it had never begun."""
    remote = Remote(f"flaky://{tmp_path}/far")
    here = machine(tmp_path, "here", remote)
    with trouble(put_file=[0] + [OSError("down")] * 9), pytest.raises(StorageFailed):
        upload(here)
    assert [name for name, _ in remote.names("")] == [f"uploads/{ID.removeprefix('ds_')}/rows.jsonl"]
    assert here.record(ID) is None
    assert here.file(ID) is None
    assert copies(tmp_path, "here") == []
    assert upload(here)


def test_what_was_uploaded_before_there_was_a_shared_store_goes_there(remote: Remote, tmp_path: Path) -> None:
    assert upload(Uploads(Settings(uploads_dir=tmp_path / "here")))
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    assert there.record(ID) is None
    assert here.record(ID) == RECORD
    assert there.file(ID) is not None
    assert there.delete(ID)
    assert here.file(ID) is None
    assert copies(tmp_path, "here") == []


def test_the_same_bytes_again_as_another_format(remote: Remote, tmp_path: Path) -> None:
    here, there = machine(tmp_path, "here", remote), machine(tmp_path, "there", remote)
    upload(here)
    there.file(ID)
    here.delete(ID)
    assert upload(here, record=RECORD.replace(b"jsonl", b"csv"))
    found = there.file(ID)
    assert found is not None
    assert (found.path.name, found.path.read_bytes()) == ("rows.csv", ROWS)


def test_copies_that_nobody_reads_go(remote: Remote, tmp_path: Path) -> None:
    there = machine(tmp_path, "there", remote)
    upload(there)
    folder = tmp_path / "there" / "default" / ID.removeprefix("ds_")
    then = time.time() - UNUSED_SECONDS - 60
    os.utime(folder, (then, then))
    with there.incoming():
        assert not folder.exists()
    assert there.file(ID) is not None
    with there.incoming():
        assert folder.exists()


def test_the_settings_decide(tmp_path: Path) -> None:
    assert type(open_uploads(Settings(uploads_dir=tmp_path))) is Uploads
    url = f"file://{tmp_path}/far"
    assert type(open_uploads(Settings(uploads_dir=tmp_path, store_url=url))) is SharedUploads


def test_a_folder_that_cannot_be_written_is_told(remote: Remote, tmp_path: Path) -> None:
    upload(machine(tmp_path, "here", remote))
    (tmp_path / "there").write_text("a file where a folder is wanted")
    with pytest.raises(StorageFailed, match="uploads directory"):
        machine(tmp_path, "there", remote).file(ID)
