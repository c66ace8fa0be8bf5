"""What one job leaves and another finds: the same bits with and without, and what is damaged or has no room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save

from ascribe.errors import InvalidInput
from ascribe.result import Manifest
from ascribe.spec import PAIRS, JobSpec
from tests.support.jobs import TRAIN, VALIDATION, Workshop, make_spec, make_workshop

BLOCKS = 8
QUERY = {"source": {"kind": "inline", "rows": [{"text": "how do i undo a commit", "label": "coding"}]}}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def _reused(manifest: Manifest) -> dict[str, int]:
    return {kind: use.reused for kind, use in manifest.diagnostics.reused.items()}


def _files(workshop: Workshop, kind: str) -> list[Path]:
    return sorted((workshop.bench.settings.cache_dir / kind).rglob("*.safetensors"))


def _numbers(manifest: Manifest) -> dict[str, Any]:
    """The diagnostics but for what may differ: times, memory, disk, what was found and who computed the rest."""
    taken = {"seconds", "peak_memory_bytes", "disk_bytes", "cache", "reused", "workers"}
    return manifest.diagnostics.model_dump(exclude=taken)


@pytest.mark.parametrize(("curvature", "solver"), [(c, s) for c, solvers in PAIRS.items() for s in solvers])
def test_the_same_job_again_reuses_what_it_can_to_the_same_bits(
    workshop: Workshop, curvature: str, solver: str
) -> None:
    spec = make_spec(curvature, solver)
    first, fresh = workshop.run(spec)
    second, again = workshop.run(spec)
    blocks = 1 if curvature == "gauss_newton" else BLOCKS
    without_state = solver in ("datainf", "identity", "eigenbasis") or curvature in ("none", "kfac", "ekfac")
    states = 0 if without_state else blocks
    assert _reused(first) == {"gradients": 0, "curvature": 0, "solution": 0}
    assert _reused(second) == {"gradients": TRAIN + VALIDATION, "curvature": blocks, "solution": states}
    assert again.staged == fresh.staged
    assert _numbers(second) == _numbers(first)
    assert all(use.of == blocks for kind, use in second.diagnostics.reused.items() if kind != "gradients")


def test_self_influence_from_a_kept_state_has_the_same_bits(workshop: Workshop) -> None:
    spec = make_spec(output={"self_influence": True})
    assert workshop.run(spec)[1].staged == workshop.run(spec)[1].staged


def test_another_validation_set_reuses_the_state_and_scores_as_if_alone(workshop: Workshop, tmp_path: Path) -> None:
    workshop.run(make_spec())
    manifest, after = workshop.run(make_spec(validation=QUERY))
    alone, before = make_workshop(tmp_path / "alone").run(make_spec(validation=QUERY))
    assert _reused(manifest) == {"gradients": TRAIN, "curvature": BLOCKS, "solution": BLOCKS}
    assert _reused(alone) == {"gradients": 0, "curvature": 0, "solution": 0}
    assert after.staged == before.staged
    assert _numbers(manifest) == _numbers(alone)


@pytest.mark.parametrize(
    "change",
    [
        {"damping": {"relative": 0.2}},
        {"damping": {"relative_to_largest": 0.1}},
        {"solver": {"kind": "schulz", "tolerance": 1e-9}},
        {"seed": 1},
    ],
)
def test_another_damping_or_option_reuses_the_curvature_alone(workshop: Workshop, change: dict[str, Any]) -> None:
    spec = make_spec()
    workshop.run(spec)
    manifest, _ = workshop.run(JobSpec.model_validate(spec.model_dump() | change))
    assert _reused(manifest) == {"gradients": TRAIN + VALIDATION, "curvature": BLOCKS, "solution": 0}


def test_another_solver_reuses_the_curvature(workshop: Workshop) -> None:
    workshop.run(make_spec("gfim", "schulz"))
    manifest, _ = workshop.run(make_spec("gfim", "cholesky"))
    assert _reused(manifest)["curvature"] == BLOCKS
    other, _ = workshop.run(make_spec("gfim_unnormalized", "cholesky"))
    assert _reused(other)["curvature"] == 0


def test_other_train_rows_reuse_nothing_of_the_curvature(workshop: Workshop) -> None:
    workshop.run(make_spec())
    fewer = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": TRAIN - 1}
    manifest, _ = workshop.run(make_spec(train=fewer))
    assert _reused(manifest) == {"gradients": VALIDATION, "curvature": 0, "solution": 0}


def test_a_damping_drawn_from_the_spectrum_does_not_depend_on_what_was_kept(workshop: Workshop) -> None:
    spec = make_spec(damping={"relative_to_largest": 0.01})
    first, fresh = workshop.run(spec)
    _files(workshop, "solution")[0].unlink()
    second, again = workshop.run(spec)
    assert _reused(second)["solution"] == BLOCKS - 1
    assert [block.damping for block in second.diagnostics.blocks] == [b.damping for b in first.diagnostics.blocks]
    assert again.staged == fresh.staged


@pytest.mark.parametrize("kind", ["curvature", "solution"])
@pytest.mark.parametrize("damage", ["flip", "tear", "empty"])
def test_a_damaged_file_is_computed_again_and_said(workshop: Workshop, kind: str, damage: str) -> None:
    _, fresh = workshop.run(make_spec())
    path = _files(workshop, kind)[3]
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes({"flip": bytes(data), "tear": bytes(data[:-100]), "empty": b""}[damage])
    manifest, again = workshop.run(make_spec())
    assert _reused(manifest)[kind] == BLOCKS - 1
    assert [warning for warning in manifest.diagnostics.warnings if kind in warning and "damaged" in warning]
    assert again.staged == fresh.staged
    mended, _ = workshop.run(make_spec())
    assert _reused(mended)[kind] == BLOCKS
    assert mended.diagnostics.warnings == ()


def test_a_solver_without_a_state_says_so_and_leaves_none(workshop: Workshop) -> None:
    workshop.run(make_spec("empirical_fisher", "datainf"))
    manifest, _ = workshop.run(make_spec("empirical_fisher", "datainf", validation=QUERY))
    use = manifest.diagnostics.reused["solution"]
    assert (use.reused, use.of) == (0, BLOCKS)
    assert "anew" in use.keeps
    assert _files(workshop, "solution") == []


def test_a_kept_plan_is_said_to_be_no_more(workshop: Workshop) -> None:
    spec = make_spec("empirical_fisher", "lissa")
    workshop.run(spec)
    use = workshop.run(spec)[0].diagnostics.reused["solution"]
    assert use.reused == BLOCKS
    assert "anew" in use.keeps


def test_a_store_without_room_for_it_costs_the_job_nothing(workshop: Workshop, tmp_path: Path) -> None:
    _, with_room = workshop.run(make_spec())
    gradients = sum(path.stat().st_size for path in _files(workshop, "gradients"))
    full = make_workshop(tmp_path / "full", cache_max_bytes=gradients + 3000)
    manifest, without = full.run(make_spec())
    assert without.staged == with_room.staged
    assert len([warning for warning in manifest.diagnostics.warnings if "could not be kept" in warning]) == 2
    assert _files(full, "curvature") == _files(full, "solution") == []


def _query_of(first: Manifest) -> dict[str, Any]:
    fields = ("base_sha256", "adapter_sha256", "train_sha256")
    return {"job_id": "job_" + "0" * 32} | {name: getattr(first.provenance, name) for name in fields}


def test_a_query_of_what_is_still_there_is_answered(workshop: Workshop) -> None:
    first, _ = workshop.run(make_spec())
    manifest, _ = workshop.run(make_spec(validation=QUERY, query_of=_query_of(first)))
    assert _reused(manifest) == {"gradients": TRAIN, "curvature": BLOCKS, "solution": BLOCKS}


def test_a_query_of_train_rows_that_changed_is_refused(workshop: Workshop) -> None:
    first, _ = workshop.run(make_spec())
    path = workshop.root / "train.jsonl"
    path.write_text(path.read_text().replace('"r0", "text": "', '"r0", "text": "dog '))
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec(validation=QUERY, query_of=_query_of(first)))
    assert [(problem.pointer, problem.code) for problem in raised.value.errors] == [("/train", "changed")]


@pytest.mark.parametrize("part", ["base", "adapter"])
def test_a_query_of_a_model_that_changed_is_refused(workshop: Workshop, part: str) -> None:
    first, _ = workshop.run(make_spec())
    (path,) = (workshop.root / part).glob("*.safetensors")
    # In place and of the same size: a hash remembered by name and size alone would not notice.
    tensors = load_file(path)
    name = sorted(tensors)[0]
    path.write_bytes(save({**tensors, name: tensors[name] + 1}, metadata={"format": "pt"}))
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec(validation=QUERY, query_of=_query_of(first)))
    assert [(problem.pointer, problem.code) for problem in raised.value.errors] == [(f"/model/{part}", "changed")]


def test_a_query_whose_gradients_are_gone_computes_them_again_and_says_so(workshop: Workshop) -> None:
    first, _ = workshop.run(make_spec())
    _, expected = workshop.run(make_spec(validation=QUERY))
    for shard in _files(workshop, "gradients"):
        shard.unlink()
    manifest, shelf = workshop.run(make_spec(validation=QUERY, query_of=_query_of(first)))
    assert _reused(manifest) == {"gradients": 0, "curvature": BLOCKS, "solution": BLOCKS}
    assert shelf.staged == expected.staged
