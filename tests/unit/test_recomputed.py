"""Jobs that keep no gradient of their train rows: the bits of those that do, in two passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ascribe.errors import LimitExceeded
from ascribe.job import Phase, Progress
from ascribe.spec import Task
from tests.support.jobs import LANGUAGE_MODEL, TRAIN, VALIDATION, Workshop, make_spec, make_workshop

CLASSIFIER: Task = "sequence-classification"
METHODS: list[tuple[str, str, Task]] = [
    ("gfim", "schulz", CLASSIFIER),
    ("gfim_unnormalized", "cholesky", CLASSIFIER),
    ("gfim", "cg", CLASSIFIER),
    ("none", "identity", CLASSIFIER),
    ("gfim", "auto", "causal-lm"),
]


def _kept_rows(workshop: Workshop) -> int:
    """Of how many rows gradients lie in the cache."""
    files = (workshop.bench.settings.cache_dir / "gradients").rglob("shard-*.json")
    return sum(stop - start for path in files for start, stop in [json.loads(path.read_text())["rows"]])


@pytest.mark.parametrize(("curvature", "solver", "task"), METHODS)
def test_scores_have_the_bits_of_a_job_with_cached_gradients(
    tmp_path: Path, curvature: str, solver: str, task: Task
) -> None:
    model = {"model": LANGUAGE_MODEL} if task == "causal-lm" else {}
    workshop = make_workshop(tmp_path, task=task)
    spec = make_spec(curvature, solver, gradients="recomputed", **model)
    manifest, recomputed = workshop.run(spec)
    assert _kept_rows(workshop) == VALIDATION
    cached_workshop = make_workshop(tmp_path / "other", task=task)
    expected, cached = cached_workshop.run(make_spec(curvature, solver, **model))
    assert _kept_rows(cached_workshop) == TRAIN + VALIDATION
    assert recomputed.staged == cached.staged
    assert manifest.summary == expected.summary
    assert manifest.diagnostics.blocks == expected.diagnostics.blocks
    # What is announced can be asked about: these train rows cannot.
    assert sorted(recomputed.announced.values()) == [VALIDATION]
    assert sorted(cached.announced.values()) == [VALIDATION, TRAIN]


def test_every_train_row_goes_through_the_model_twice_and_is_seen_to(tmp_path: Path) -> None:
    seen: list[Progress] = []
    make_workshop(tmp_path).run(make_spec("gfim", "cholesky", gradients="recomputed"), seen)
    done = {phase: max(p.done for p in seen if p.phase is phase) for phase in (Phase.CACHING_GRADIENTS, Phase.SCORING)}
    assert done == {Phase.CACHING_GRADIENTS: TRAIN + VALIDATION, Phase.SCORING: TRAIN}


def test_what_it_is_expected_to_leave_on_disk_is_less(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    manifest, _ = workshop.run(make_spec("gfim", "cholesky", gradients="recomputed"))
    cached, _ = workshop.run(make_spec("gfim", "cholesky"))
    less, more = manifest.diagnostics.estimated_disk_bytes, cached.diagnostics.estimated_disk_bytes
    assert less is not None
    assert more is not None
    assert more - less >= 4 * TRAIN * manifest.parameters


def test_a_matrix_that_is_made_of_its_few_rows_needs_them(tmp_path: Path) -> None:
    train = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 3}
    with pytest.raises(LimitExceeded) as raised:
        make_workshop(tmp_path).run(make_spec("gfim", "cholesky", gradients="recomputed", train=train))
    assert raised.value.errors[0].pointer == "/gradients"


@pytest.mark.parametrize(
    ("curvature", "solver", "output"),
    [
        ("empirical_fisher", "datainf", {}),
        ("ekfac", "eigenbasis", {}),
        ("gauss_newton", "cg", {}),
        ("gfim", "schulz", {"self_influence": True}),
    ],
)
def test_what_would_take_many_passes_is_refused(curvature: str, solver: str, output: dict[str, bool]) -> None:
    with pytest.raises(ValidationError) as raised:
        make_spec(curvature, solver, gradients="recomputed", output=output)
    assert [error["type"] for error in raised.value.errors()] == ["many_passes"]
