"""Projected gradients against whole ones projected by hand, products on average, and what is told of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ascribe.planning import sample
from ascribe.result import MEAN
from ascribe.settings import Settings
from ascribe.sources.checkpoints import BlockShape, Projected, inspect_checkpoint
from ascribe.sources.rows import labels_of, read_rows
from ascribe.spec import DatasetSpec, FileSource, ModelSpec, ParametersSpec, Projection, Task
from tests.support.jobs import LANGUAGE_MODEL, TRAIN, make_spec, make_workshop
from worker import projected
from worker.data import make_batches
from worker.gradients.per_example import PerExampleGradients
from worker.gradients.projection import sides_of
from worker.models import load_model

HALF = Projection(long_side=6, short_side=2, seed=5)


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_a_projected_gradient_is_the_whole_one_between_two_matrices(tmp_path: Path, task: Task) -> None:
    root = make_workshop(tmp_path, task=task).root
    model = ModelSpec(task=task, base="base", adapter="adapter", dtype="float64")
    whole = inspect_checkpoint(root, model, ParametersSpec())
    small = inspect_checkpoint(root, model, ParametersSpec(projection=HALF))
    dataset = DatasetSpec(source=FileSource(kind="file", path="train.jsonl"))
    rows = read_rows(Settings(data_root=root), dataset, "/train", labels_of(whole))
    loaded = load_model(whole, model, attention="sdpa", device="cpu")
    batch, *_ = make_batches(rows, 0, 7, loaded.tokenizer, max_length=32, token_budget=256, device="cpu")
    _, whole_NP = PerExampleGradients(loaded.model, whole.blocks)(batch)
    _, small_NP = PerExampleGradients(loaded.model, small.blocks)(batch)
    starts = [0, *itertools.accumulate(block.size for block in whole.blocks)]
    expected = []
    for block, start in zip(small.blocks, starts, strict=False):
        source = block.projected
        assert source is not None
        matrix_NRD = whole_NP[:, start : start + block.whole.size].view(-1, source.rank, source.long_side)
        short, long = sides_of(block)
        assert short is not None
        assert long is not None
        expected.append((short @ matrix_NRD @ long.T).flatten(1))
    torch.testing.assert_close(small_NP, torch.cat(expected, 1), rtol=1e-4, atol=1e-6)
    assert small.whole_parameters == whole.parameters > 4 * small.parameters


def test_products_are_kept_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    first_RD, second_RD = torch.randn(2, 6, 40, generator=generator)
    second_RD += first_RD
    products = []
    for seed in range(600):
        short, long = sides_of(BlockShape("w", 3, 16, Projected(6, 40, seed)))
        assert short is not None
        assert long is not None
        products.append(((short @ first_RD @ long.T) * (short @ second_RD @ long.T)).sum())
    found = torch.stack(products)
    error = float(found.std()) / len(found) ** 0.5
    assert float(found.mean()) == pytest.approx(float((first_RD * second_RD).sum()), abs=4 * error)


def test_matrices_depend_on_seed_name_and_side_alone() -> None:
    block = BlockShape("w", 6, 16, Projected(6, 40, 1))
    short, long = sides_of(block)
    assert short is None  # as small as it should be
    assert long is not None
    assert torch.equal(long, sides_of(block)[1])  # type: ignore[arg-type]  # there, as it was before
    others = [BlockShape("v", 6, 16, Projected(6, 40, 1)), BlockShape("w", 6, 16, Projected(6, 40, 2))]
    assert not any(torch.equal(long, sides_of(other)[1]) for other in others)  # type: ignore[arg-type]
    assert len({block.key, *(other.key for other in others), block.whole.key}) == 4


@pytest.mark.parametrize(("curvature", "solver"), [("gfim", "schulz"), ("none", "identity"), ("gauss_newton", "cg")])
def test_a_job_on_projected_gradients_says_what_it_left_out(tmp_path: Path, curvature: str, solver: str) -> None:
    workshop = make_workshop(tmp_path)
    whole, exact = workshop.run(make_spec(curvature, solver))
    spec = make_spec(curvature, solver, parameters={"projection": {"long_side": 16}})
    manifest, shelf = workshop.run(spec)
    use = manifest.diagnostics.projection
    assert use is not None
    assert (use.of_parameters, use.parameters) == (whole.parameters, whole.parameters // 2)
    assert (use.train_rows, use.validation_rows) == (TRAIN, 6)
    assert use.rank_agreement is not None
    assert 0.3 < use.rank_agreement < 1
    assert any("projection changes rankings" in warning for warning in manifest.diagnostics.warnings) is (
        use.rank_agreement < 0.9
    )
    assert not torch.equal(shelf.vector(MEAN), exact.vector(MEAN))
    _, again = workshop.run(spec)
    assert torch.equal(shelf.vector(MEAN), again.vector(MEAN))
    assert whole.diagnostics.projection is None


def test_it_is_measured_a_few_blocks_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop(tmp_path)
    spec = make_spec("none", "identity", parameters={"projection": {"long_side": 16}})
    at_once = workshop.run(spec)[0].diagnostics.projection
    monkeypatch.setattr(sample, "_HELD_BYTES", 1)
    assert len(sample.groups(inspect_checkpoint(workshop.root, spec.model, spec.parameters).blocks, 80)) > 1
    assert workshop.run(spec)[0].diagnostics.projection == at_once


def test_a_job_does_not_end_where_whole_gradients_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    workshop = make_workshop(tmp_path)
    monkeypatch.setattr(projected, "PerExampleGradients", lambda *_: out_of_memory)
    manifest, _ = workshop.run(make_spec("none", "identity", parameters={"projection": {"long_side": 16}}))
    use = manifest.diagnostics.projection
    assert use is not None
    assert use.rank_agreement is None
    # And its own batches are no smaller for it.
    assert [warning for warning in manifest.diagnostics.warnings if "rankings is not known" in warning] == [
        warning for warning in manifest.diagnostics.warnings if "fit" in warning or "halved" in warning
    ]


@pytest.mark.parametrize(
    ("curvature", "solver", "model"),
    [
        ("ekfac", "eigenbasis", None),
        ("kfac", "auto", None),
        ({"kind": "gauss_newton", "form": "products"}, "cg", None),
        ("gauss_newton", "astra", None),
        ("gauss_newton", "cg", LANGUAGE_MODEL),
    ],
)
def test_what_runs_the_model_is_refused(curvature: object, solver: str, model: object) -> None:
    changes = {"parameters": {"projection": {}}} | ({"model": model} if model else {})
    with pytest.raises(ValidationError) as raised:
        make_spec(curvature, solver, **changes)  # type: ignore[arg-type]  # one of both
    assert [error["type"] for error in raised.value.errors()] == ["projection_of_products"]
