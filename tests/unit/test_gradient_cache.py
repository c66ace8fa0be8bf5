"""What can go wrong with cached gradients under a job: flipped bits, no room, a full disk, a folder that goes away."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ascribe.errors import StorageFailed
from ascribe.job import Phase, Progress
from ascribe.store import Store
from tests.support.disk import files_no_larger_than
from tests.support.jobs import TRAIN, VALIDATION, Shelf, Workshop, make_spec, make_workshop
from worker.pipeline import Bench, run
from worker.progress import Reporter
from worker.sharing import Alone

SHARD_ROWS = 16
ROW_BYTES = 8 * 4 * 32 * 4
OTHER_ROW = {"source": {"kind": "inline", "rows": [{"text": "how do i undo a commit", "label": "coding"}]}}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def fresh(workshop: Workshop, **settings: object) -> Workshop:
    """The same folders under a process that has seen none of their files."""
    return Workshop(workshop.root, Bench(workshop.bench.settings.model_copy(update=settings)))


def shards(workshop: Workshop) -> list[Path]:
    return sorted((workshop.bench.settings.cache_dir / "gradients").rglob("*.safetensors"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)


def test_a_flipped_bit_is_found_mended_and_told(workshop: Workshop) -> None:
    _, first = workshop.run(make_spec())
    (damaged,) = workshop.bench.settings.cache_dir.rglob("shard-00001.safetensors")
    flip_a_bit(damaged)
    manifest, second = fresh(workshop).run(make_spec())
    assert second.staged == first.staged
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN - 16
    (warning,) = (warning for warning in manifest.diagnostics.warnings if "checksum" in warning)
    assert "train rows 16 to 31" in warning
    manifest, _ = fresh(workshop).run(make_spec())
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN
    assert not any("checksum" in warning for warning in manifest.diagnostics.warnings)


def test_a_flipped_bit_under_a_warm_worker(workshop: Workshop) -> None:
    """What a process has verified, it verifies again once the file has changed."""
    _, first = workshop.run(make_spec())
    flip_a_bit(shards(workshop)[0])
    manifest, second = workshop.run(make_spec())
    assert any("checksum" in warning for warning in manifest.diagnostics.warnings)
    assert second.staged == first.staged


def test_too_many_bytes_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    needed = (TRAIN + VALIDATION) * ROW_BYTES
    workshop = make_workshop(tmp_path, cache_max_bytes=needed - 1)
    with pytest.raises(StorageFailed, match=f"needs {needed} bytes .* limit of {needed - 1} "):
        workshop.run(make_spec())
    assert workshop.bench.models._model is None
    assert shards(workshop) == []


def test_a_full_disk_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, cache_reserve_bytes=shutil.disk_usage(tmp_path).free * 2)
    with pytest.raises(StorageFailed, match="free on the disk"):
        workshop.run(make_spec())
    assert workshop.bench.models._model is None


def test_the_longest_unused_gradients_make_room(tmp_path: Path) -> None:
    rows = TRAIN + VALIDATION + 1  # and a little for what is no gradient
    workshop = make_workshop(tmp_path, cache_max_bytes=rows * ROW_BYTES + 20_000)
    workshop.run(make_spec("none", "identity"))
    workshop.run(make_spec("none", "identity", train=OTHER_ROW))
    (workshop.root / "train.jsonl").write_text((workshop.root / "train.jsonl").read_text().replace("dog", "cat"))
    workshop.run(make_spec("none", "identity"))
    manifest, _ = workshop.run(make_spec("none", "identity"))
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN
    assert manifest.diagnostics.cache["validation"].hit_rows == VALIDATION
    entries = [entry for entry in workshop.bench.store.entries() if entry.kind == "gradients"]
    assert sum(entry.bytes for entry in entries) <= rows * ROW_BYTES + 20_000
    assert max(entry.bytes for entry in entries) < 2 * TRAIN * ROW_BYTES


def test_another_process_cannot_take_what_the_job_reads_in_any_phase(workshop: Workshop) -> None:
    """Eviction between two phases: everything the job opened is in use until its last vector is staged."""
    other = Store(workshop.bench.settings.cache_dir, max_bytes=1)
    seen: dict[Phase, set[tuple[str, bool]]] = {}

    def evict(progress: Progress) -> bool:
        entries = [entry for entry in other.entries() if entry.kind == "gradients"]
        removed = [other.remove(entry.kind, entry.key) for entry in entries]
        assert not any(removed)
        seen[progress.phase] = {(entry.key, entry.pinned) for entry in entries}
        return False

    run(make_spec(), workshop.bench, Reporter(evict), Shelf(), Alone())
    for phase in (Phase.BUILDING_CURVATURE, Phase.SOLVING, Phase.SCORING, Phase.WRITING):
        assert [pinned for _, pinned in seen[phase]] == [True, True]
    assert not any(entry.pinned for entry in other.entries())


@pytest.mark.parametrize("phase", list(Phase))
def test_a_cache_directory_that_goes_away_ends_the_job_with_words(workshop: Workshop, phase: Phase) -> None:
    """Mapped gradients outlive their files, so a job past them may also succeed; it never crashes."""
    expected = fresh(workshop).run(make_spec())[1].staged
    shutil.rmtree(workshop.bench.settings.cache_dir)
    gone = False

    def remove(progress: Progress) -> bool:
        nonlocal gone
        if progress.phase is phase and not gone:
            gone = True
            shutil.rmtree(workshop.bench.settings.cache_dir, ignore_errors=True)
        return False

    with suppress(StorageFailed):
        run(make_spec(), workshop.bench, Reporter(remove), shelf := Shelf(), Alone())
        assert shelf.staged == expected
    assert gone
    assert workshop.run(make_spec())[1].staged == expected


@pytest.fixture
def in_the_second_shard(monkeypatch: pytest.MonkeyPatch) -> Callable[[Workshop, Callable[[], object]], None]:
    """Runs a job and lets something happen once, while the model computes its second shard."""
    monkeypatch.setattr("worker.progress.SEND_EVERY_SECONDS", 0.0)

    def run_interrupted(workshop: Workshop, act: Callable[[], object]) -> None:
        acts = iter([act])

        def watch(progress: Progress) -> bool:
            if progress.phase is Phase.CACHING_GRADIENTS and progress.done > SHARD_ROWS:
                next(acts, bool)()
            return False

        run(make_spec(), workshop.bench, Reporter(watch), Shelf(), Alone())

    return run_interrupted


def test_the_directory_goes_away_between_two_shards(
    workshop: Workshop, in_the_second_shard: Callable[[Workshop, Callable[[], object]], None]
) -> None:
    with pytest.raises(StorageFailed, match="ENOENT"):
        in_the_second_shard(workshop, lambda: shutil.rmtree(workshop.bench.settings.cache_dir))


def test_another_job_takes_the_room_after_it_was_made(
    tmp_path: Path, in_the_second_shard: Callable[[Workshop, Callable[[], object]], None]
) -> None:
    workshop = make_workshop(tmp_path, cache_max_bytes=2 * TRAIN * ROW_BYTES)
    other = Store(workshop.bench.settings.cache_dir, max_bytes=None)

    def take() -> None:
        (folder / "data").write_bytes(b"x" * (2 * TRAIN * ROW_BYTES - 20 * ROW_BYTES))

    with other.open("gradients", "other") as folder, pytest.raises(StorageFailed, match="cannot make room"):
        in_the_second_shard(workshop, take)
    assert len(shards(workshop)) == 1
    assert workshop.run(make_spec())[0].diagnostics.cache["train"].hit_rows == 16


def test_a_disk_that_is_full_in_mid_write_leaves_nothing_half_written(workshop: Workshop) -> None:
    with files_no_larger_than(16 * ROW_BYTES // 2), pytest.raises(StorageFailed, match="full"):
        workshop.run(make_spec())
    entries = workshop.bench.store.entries()
    assert [(entry.bytes, entry.pinned) for entry in entries] == [(0, False), (0, False)]
    for entry in entries:
        files = [path.name for path in (workshop.bench.settings.cache_dir / "gradients" / entry.key).iterdir()]
        assert files == [".lock"]
    workshop.run(make_spec())
