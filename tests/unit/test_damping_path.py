"""A damping path and the role of the inverse, through the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from ascribe.result import MEAN, PLAIN_PRODUCT, SELF_INFLUENCE, TOP_REMOVED, at_damping, validation_vector
from ascribe.status import SolveStatus
from tests.support.jobs import VALIDATION, Shelf, Workshop, make_spec, make_workshop
from worker.reuse import SOLUTION

PATH = (0.1, 0.01, 10.0)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def _matrix(shelf: Shelf, place: int = 0) -> Tensor:
    names = [at_damping(validation_vector(q), place) for q in range(VALIDATION)]
    return torch.stack([shelf.vector(name).double() for name in names])


@pytest.mark.parametrize("solver", ["schulz", "cholesky"])
def test_every_value_scores_as_a_job_of_its_own(workshop: Workshop, tmp_path: Path, solver: str) -> None:
    manifest, shelf = workshop.run(make_spec("gfim", solver, damping={"relative": PATH}))
    assert [point.factor for point in manifest.diagnostics.damping_path] == list(PATH)
    assert {point.status for point in manifest.diagnostics.damping_path} == {SolveStatus.CONVERGED}
    for place, factor in enumerate(PATH):
        fresh = make_workshop(tmp_path / str(place))
        _, alone = fresh.run(make_spec("gfim", solver, damping={"relative": factor}))
        assert (_matrix(shelf, place) - _matrix(alone)).norm() <= 1e-5 * _matrix(alone).norm()
        if place == 0:
            assert shelf.staged[MEAN] == alone.staged[MEAN]


def test_the_agreement_is_that_of_the_mean_scores(workshop: Workshop) -> None:
    manifest, shelf = workshop.run(make_spec("gfim", "cholesky", damping={"relative": PATH}))
    means = [shelf.vector(at_damping(MEAN, place)).numpy() for place in range(len(PATH))]
    for point, mean_N in zip(manifest.diagnostics.damping_path, means, strict=True):
        expected = [float(spearmanr(mean_N, other_N).statistic) for other_N in means]
        assert point.spearman == pytest.approx(expected, abs=1e-9)


def test_a_path_again_is_read_back_to_the_same_bits(workshop: Workshop) -> None:
    spec = make_spec("gfim", "schulz", damping={"relative": PATH}, output={"self_influence": True})
    _, first = workshop.run(spec)
    manifest, again = workshop.run(spec)
    assert again.staged == first.staged
    assert at_damping(SELF_INFLUENCE, 2) in again.staged
    assert manifest.diagnostics.reused[SOLUTION].reused == manifest.diagnostics.reused[SOLUTION].of


def test_a_job_with_the_paths_largest_value_finds_its_state(workshop: Workshop) -> None:
    """Those of the other values came from it, and have other bits than a job of their own."""
    workshop.run(make_spec("gfim", "schulz", damping={"relative": PATH}))
    largest, _ = workshop.run(make_spec("gfim", "schulz", damping={"relative": max(PATH)}))
    other, _ = workshop.run(make_spec("gfim", "schulz", damping={"relative": PATH[0]}))
    assert largest.diagnostics.reused[SOLUTION].reused == 8
    assert other.diagnostics.reused[SOLUTION].reused == 0


def test_the_role_of_the_inverse(workshop: Workshop) -> None:
    manifest, shelf = workshop.run(make_spec("gfim", "cholesky", output={"role_of_inverse": {"top_directions": 3}}))
    _, plain = workshop.run(make_spec("none", "identity"))
    torch.testing.assert_close(shelf.vector(PLAIN_PRODUCT), plain.vector(MEAN))
    role = manifest.diagnostics.role_of_inverse
    assert role is not None
    mean_N, plain_N, removed_N = (shelf.vector(name).numpy() for name in (MEAN, PLAIN_PRODUCT, TOP_REMOVED))
    assert role.with_plain_product == pytest.approx(float(spearmanr(mean_N, plain_N).statistic), abs=1e-9)
    assert role.with_top_removed == pytest.approx(float(spearmanr(mean_N, removed_N).statistic), abs=1e-9)
    assert role.rows_with_plain_product is not None
    assert -1 <= role.rows_with_plain_product <= 1


def test_with_all_directions_removed_nothing_is_left(workshop: Workshop) -> None:
    everything: dict[str, Any] = {"role_of_inverse": {"top_directions": 32}}
    manifest, shelf = workshop.run(make_spec("gfim", "cholesky", output=everything))
    assert shelf.vector(TOP_REMOVED).abs().max() == 0 < shelf.vector(PLAIN_PRODUCT).abs().max()
    role = manifest.diagnostics.role_of_inverse
    assert role is not None
    assert role.with_plain_product is not None
    assert role.with_top_removed is role.plain_with_top_removed is role.rows_with_top_removed is None


def test_with_as_many_directions_as_train_rows_nothing_is_left(workshop: Workshop) -> None:
    few = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 8}
    spec = make_spec("empirical_fisher", "cholesky", train=few, output={"role_of_inverse": {"top_directions": 10}})
    role = workshop.run(spec)[0].diagnostics.role_of_inverse
    assert role is not None
    assert role.with_top_removed is role.rows_with_top_removed is None


def test_a_warm_start_comes_from_the_job_that_is_named(workshop: Workshop) -> None:
    first, cold = workshop.run(make_spec("gfim", "schulz"))
    named = first.provenance.solution_fingerprint
    grown = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 39}
    solver = {"kind": "schulz", "warm_start": named}
    _, warm = workshop.run(make_spec("gfim", solver, train=grown))
    _, alone = workshop.run(make_spec("gfim", "schulz", train=grown))
    assert (_matrix(warm) - _matrix(alone)).norm() <= 1e-5 * _matrix(alone).norm()
    assert cold.staged[MEAN] != warm.staged[MEAN]


@pytest.mark.parametrize("damping", [{"relative": 0.1}, {"relative_to_largest": 0.2}])
def test_a_few_more_rows_start_from_the_inverse_of_what_was_there(
    workshop: Workshop, damping: dict[str, float]
) -> None:
    """How far it is off is measured: taken for an inverse of the present matrix it would lead nowhere."""
    fewer = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 39}
    named = workshop.run(make_spec("gfim", "schulz", train=fewer, damping=damping))[0].provenance.solution_fingerprint
    manifest, warm = workshop.run(make_spec("gfim", {"kind": "schulz", "warm_start": named}, damping=damping))
    _, alone = workshop.run(make_spec("gfim", "schulz", damping=damping))
    assert (_matrix(warm) - _matrix(alone)).norm() <= 1e-5 * _matrix(alone).norm()
    blocks = manifest.diagnostics.blocks
    assert not [note for block in blocks for note in block.notes if "taken again" in note]
    if "relative_to_largest" in damping:  # strong: one row of 40 changes little
        assert any(block.plan is not None and block.plan["warm_start"] for block in blocks)


@pytest.mark.parametrize(
    ("solver", "changes", "is_said"),
    [
        ("cholesky", {}, True),
        ("cg", {}, True),
        ({"kind": "schulz", "start": "published"}, {}, False),
        ("schulz", {"train": {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 5}}, False),
        ("schulz", {"parameters": {"select": "adapter_and_head"}}, False),
    ],
)
def test_a_state_of_another_kind_is_no_start(
    workshop: Workshop, solver: str | dict[str, Any], changes: dict[str, Any], is_said: bool
) -> None:
    named = workshop.run(make_spec("gfim", solver, **changes))[0].provenance.solution_fingerprint
    manifest, warm = workshop.run(make_spec("gfim", {"kind": "schulz", "warm_start": named}))
    _, cold = workshop.run(make_spec("gfim", "schulz"))
    assert manifest.diagnostics.status is SolveStatus.CONVERGED
    assert (_matrix(warm) - _matrix(cold)).norm() <= 1e-5 * _matrix(cold).norm()
    assert is_said is any("warm_start" in warning for warning in manifest.diagnostics.warnings)


def test_a_warm_start_that_is_not_there_is_said(workshop: Workshop) -> None:
    solver = {"kind": "schulz", "warm_start": "0" * 64}
    manifest, shelf = workshop.run(make_spec("gfim", solver))
    _, cold = workshop.run(make_spec("gfim", "schulz"))
    assert [warning for warning in manifest.diagnostics.warnings if "warm_start" in warning]
    assert shelf.staged == cold.staged
