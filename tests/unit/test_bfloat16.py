"""A bfloat16 model: what is made of it is float32 or float64, close to the float32 model's, and kept apart from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ascribe.result import MEAN
from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import Checkpoint
from ascribe.sources.rows import Rows
from ascribe.spec import JobSpec
from tests.support.jobs import TRAIN, make_spec, make_workshop
from worker.curvature.gauss_newton import GaussNewtonProducts
from worker.data import Batch, make_batches
from worker.gradients.cotangents import OfSampledLabel
from worker.gradients.factors import FactorSums
from worker.gradients.per_example import PerExampleGradients
from worker.inputs import load_inputs
from worker.models import LoadedModel, load_model

CLOSE = 0.99


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workshop(tmp_path_factory.mktemp("data")).root


def _spec(dtype: str) -> JobSpec:
    return make_spec("gfim", "cholesky", model={"base": "base", "adapter": "adapter", "dtype": dtype})


def _loaded(root: Path, dtype: str) -> tuple[Checkpoint, LoadedModel, list[Batch]]:
    spec, settings = _spec(dtype), WorkerSettings(data_root=root)
    inputs = load_inputs(spec, settings)
    loaded = load_model(inputs.checkpoint, spec.model, attention="sdpa", device="cpu")
    return inputs.checkpoint, loaded, _batches(inputs.train, loaded)


def _batches(rows: Rows, loaded: LoadedModel) -> list[Batch]:
    return make_batches(rows, 0, TRAIN, loaded.tokenizer, max_length=64, token_budget=64, device="cpu")


def _both(root: Path) -> list[tuple[Checkpoint, LoadedModel, list[Batch]]]:
    return [_loaded(root, dtype) for dtype in ("float32", "bfloat16")]


def _is_close(narrow: Tensor, single: Tensor) -> bool:
    return float(_cosines(narrow.flatten()[None], single.flatten()[None])) > CLOSE


def _cosines(left_NP: Tensor, right_NP: Tensor) -> Tensor:
    """Row by row; PyTorch's own takes 1e-8 for nothing, which these are below."""
    left_NP, right_NP = left_NP.double(), right_NP.double()
    norms_N: Tensor = left_NP.norm(dim=1) * right_NP.norm(dim=1)
    return (left_NP * right_NP).sum(1) / norms_N


def test_gradients_are_float32_and_close(root: Path) -> None:
    found = []
    for checkpoint, loaded, batches in _both(root):
        gradients = PerExampleGradients(loaded.model, checkpoint.blocks)
        loss_N, grad_NP = torch.zeros(TRAIN), torch.zeros(TRAIN, checkpoint.parameters)
        for batch in batches:
            made = gradients(batch)
            assert [tensor.dtype for tensor in made] == [torch.float32, torch.float32]
            loss_N[list(batch.positions)], grad_NP[list(batch.positions)] = made
        found.append((loss_N, grad_NP))
    (single_loss_N, single_NP), (narrow_loss_N, narrow_NP) = found
    torch.testing.assert_close(narrow_loss_N, single_loss_N, rtol=0.02, atol=0.01)
    assert not torch.equal(narrow_NP, single_NP), "another precision it is"
    assert float(_cosines(narrow_NP, single_NP).min()) > CLOSE


def test_factors_are_summed_in_float64_and_close(root: Path) -> None:
    found = []
    for checkpoint, loaded, batches in _both(root):
        sums = FactorSums(loaded.model, checkpoint.blocks, [OfSampledLabel(0)])
        for batch in batches:
            sums.add(batch)
        found.append(sums.factors())
    for single, narrow in zip(*found, strict=True):
        assert narrow.left_RR.dtype == narrow.right_DD.dtype == torch.float64
        assert _is_close(narrow.right_DD, single.right_DD)
        assert _is_close(narrow.left_RR, single.left_RR)


def test_products_are_summed_in_float64_and_close(root: Path) -> None:
    found = []
    for checkpoint, loaded, batches in _both(root):
        operator = GaussNewtonProducts(loaded.model, batches[:2], checkpoint.blocks)
        vector_P1 = torch.randn(operator.size, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found.append(operator.matmul(vector_P1))
    assert found[1].dtype == torch.float64
    assert _is_close(found[1], found[0])


def test_their_gradients_are_kept_apart(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    single, expected = workshop.run(_spec("float32"))
    narrow, found = workshop.run(_spec("bfloat16"))
    assert narrow.diagnostics.cache["train"].hit_rows == 0
    assert single.provenance.gradient_fingerprint != narrow.provenance.gradient_fingerprint
    assert _is_close(found.vector(MEAN), expected.vector(MEAN))
