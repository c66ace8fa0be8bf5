"""Jobs on two machines over one S3 store: the second finds all that the first left, to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import stamina

from ascribe.errors import StorageFailed
from ascribe.store.remote import Remote
from tests.support.jobs import TRAIN, VALIDATION, Workshop, make_spec, make_workshop
from tests.support.objectstore import ObjectStore
from worker.pipeline import Bench


@pytest.fixture
def store_settings(object_store: ObjectStore) -> dict[str, Any]:
    return {"store_url": f"{object_store.url}/{uuid4().hex}", "store_options": dict(object_store.options)}


def another_machine(workshop: Workshop, folder: Path, **settings: object) -> Workshop:
    """The same data under a worker that has nothing in its cache."""
    return Workshop(workshop.root, Bench(workshop.bench.settings.model_copy(update={"cache_dir": folder, **settings})))


def test_the_second_machine_finds_everything(tmp_path: Path, store_settings: dict[str, Any]) -> None:
    first = make_workshop(tmp_path, **store_settings)
    _, expected = first.run(make_spec())
    second = another_machine(first, tmp_path / "second")
    manifest, found = second.run(make_spec())
    assert found.staged == expected.staged
    cache = manifest.diagnostics.cache
    assert (cache["train"].hit_rows, cache["validation"].hit_rows) == (TRAIN, VALIDATION)
    reused = manifest.diagnostics.reused
    assert reused["curvature"].reused == reused["curvature"].of > 0
    assert reused["solution"].reused == reused["solution"].of > 0
    assert second.bench.models._model is None, "nothing was computed"


def test_a_damaged_shard_is_computed_again_for_everybody(
    tmp_path: Path, store_settings: dict[str, Any], object_store: ObjectStore
) -> None:
    first = make_workshop(tmp_path, **store_settings)
    manifest, expected = first.run(make_spec())
    remote = Remote(f"{store_settings['store_url']}/default", object_store.options)
    name = f"cache/gradients/{manifest.provenance.gradient_fingerprint}/shard-00001.safetensors"
    content = bytearray(remote.read(name) or b"")
    content[-100] ^= 16
    (tmp_path / "harmed").write_bytes(content)
    remote.put(tmp_path / "harmed", name)
    for folder, hits in (("second", TRAIN - 16), ("third", TRAIN)):
        manifest, found = another_machine(first, tmp_path / folder).run(make_spec())
        assert found.staged == expected.staged
        assert manifest.diagnostics.cache["train"].hit_rows == hits
        assert any("checksum" in warning for warning in manifest.diagnostics.warnings) == (folder == "second")


def test_a_store_that_is_down_fails_the_job(tmp_path: Path, store_settings: dict[str, Any]) -> None:
    first = make_workshop(tmp_path, **store_settings)
    _, expected = first.run(make_spec())
    nowhere = {"endpoint_url": "http://127.0.0.1:9"}
    down = Workshop(
        first.root,
        Bench(type(first.bench.settings)(**first.bench.settings.model_dump() | {"store_options": nowhere})),
    )
    with stamina.set_testing(True, attempts=100, cap=True):
        with pytest.raises(StorageFailed, match="shared store"):
            another_machine(down, tmp_path / "second").run(make_spec())
        _, found = down.run(make_spec())
    assert found.staged == expected.staged, "what is here needs no store"


def test_no_room_for_a_kept_curvature_costs_time_and_no_job(tmp_path: Path, store_settings: dict[str, Any]) -> None:
    first = make_workshop(tmp_path, **store_settings)
    _, expected = first.run(make_spec())
    gradients = sum(entry.bytes for entry in first.bench.store.entries() if entry.kind == "gradients")
    small = another_machine(first, tmp_path / "second", cache_max_bytes=gradients + 100)
    manifest, found = small.run(make_spec())
    assert found.staged == expected.staged
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN
    assert any("curvature could not be kept" in warning for warning in manifest.diagnostics.warnings)
