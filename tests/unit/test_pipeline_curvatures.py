"""The curvatures that ask for passes of their own, through the pipeline, against dense float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from ascribe.errors import LimitExceeded, PlanExceedsSteps
from ascribe.job import Phase, Progress
from ascribe.result import MEAN, validation_vector
from ascribe.settings import WorkerSettings
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import PAIRS
from ascribe.status import SolveStatus
from tests.support.jobs import TRAIN, VALIDATION, Shelf, Workshop, make_spec, make_workshop
from worker.data import make_batches
from worker.gradients.per_example import PerExampleGradients
from worker.models import load_model

DAMPING = {"relative_to_largest": 0.02}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def _matrix(shelf: Shelf) -> Tensor:
    return torch.stack([shelf.vector(validation_vector(q)).double() for q in range(VALIDATION)])


class Oracle:
    """The tiny model in float64, its Jacobians by autograd, and gradients by our own pass (tested elsewhere)."""

    def __init__(self, workshop: Workshop) -> None:
        spec = make_spec()
        settings = WorkerSettings(data_root=workshop.root)
        checkpoint = inspect_checkpoint(workshop.root, spec.model, spec.parameters)
        model_spec = spec.model.model_copy(update={"dtype": "float64"})
        loaded = load_model(checkpoint, model_spec, attention="eager", device="cpu")
        labels = Labels(checkpoint.num_labels, checkpoint.label_names)
        self.gradients = {}
        named = {name: value for name, value in loaded.model.named_parameters() if "lora_" in name}
        size = checkpoint.parameters
        self.matrix_PP = torch.zeros(size, size, dtype=torch.float64)
        for pointer, dataset, count in (("/train", spec.train, TRAIN), ("/validation", spec.validation, VALIDATION)):
            rows = read_rows(settings, dataset, pointer, labels)
            grad_NP = torch.zeros(count, checkpoint.parameters, dtype=torch.float64)
            for batch in make_batches(rows, 0, count, loaded.tokenizer, max_length=128, token_budget=64, device="cpu"):
                _, found_NP = PerExampleGradients(loaded.model, checkpoint.blocks)(batch)
                grad_NP[list(batch.positions)] = found_NP.double()
                if pointer == "/train":
                    self.matrix_PP += self._gauss_newton(loaded.model, batch, named, checkpoint.block_names) / TRAIN
            self.gradients[pointer] = grad_NP

    @staticmethod
    def _gauss_newton(model: torch.nn.Module, batch: Any, named: Mapping[str, Tensor], blocks: Sequence[str]) -> Tensor:
        def logits(values: Mapping[str, Tensor]) -> Tensor:
            found: Tensor = functional_call(model, dict(values), kwargs=dict(batch.inputs)).logits
            return found

        jacobian = jacrev(logits)({name: value.detach() for name, value in named.items()})
        plain = {name.removeprefix("base_model.model.").replace(".default.", "."): j for name, j in jacobian.items()}
        parts = []
        for block in blocks:
            j_NC = plain[block]
            parts.append((j_NC.mT if j_NC.shape[2] > j_NC.shape[3] else j_NC).flatten(2))
        jacobian_NCP = torch.cat(parts, dim=2)
        p_NC = logits(named).detach().softmax(1)
        middle_NCC = torch.diag_embed(p_NC) - p_NC[:, :, None] * p_NC[:, None, :]
        return torch.einsum("ncp,ncd,ndq->pq", jacobian_NCP, middle_NCC, jacobian_NCP).detach()

    def scores(self, damping: float) -> Tensor:
        shifted_PP = self.matrix_PP + damping * torch.eye(len(self.matrix_PP), dtype=torch.float64)
        score_QN: Tensor = self.gradients["/validation"] @ torch.linalg.solve(shifted_PP, self.gradients["/train"].T)
        return score_QN


@pytest.mark.parametrize(
    ("solver", "form", "tolerance"),
    [("cholesky", "rows", 1e-4), ("cg", "rows", 1e-4), ("cg", "products", 1e-4), ("lissa", "products", 0.05),
     ("lissa", "rows", 0.05), ("astra", "rows", 0.05), ("astra", "products", 0.05), ("auto", "auto", 1e-4)],
)  # fmt: skip
def test_gauss_newton_scores_equal_dense_float64(workshop: Workshop, solver: str, form: str, tolerance: float) -> None:
    oracle = Oracle(workshop)
    spec = make_spec({"kind": "gauss_newton", "form": form}, solver, damping=DAMPING)
    manifest, shelf = workshop.run(spec)
    largest = float(torch.linalg.eigvalsh(oracle.matrix_PP)[-1])
    (block,) = manifest.diagnostics.blocks
    assert block.damping == pytest.approx(0.02 * largest, rel=2e-3)
    assert block.damping is not None
    expected_QN = oracle.scores(block.damping)
    assert (_matrix(shelf) - expected_QN).norm() <= tolerance * expected_QN.norm()
    assert manifest.diagnostics.status is SolveStatus.CONVERGED


def test_the_hessians_rows_are_cached_for_the_next_job(workshop: Workshop) -> None:
    spec = make_spec("gauss_newton", "cg")
    seen: list[Progress] = []
    workshop.run(spec, seen)
    manifest, _ = workshop.run(make_spec("gauss_newton", "cholesky"))
    assert manifest.diagnostics.seconds["caching_gradients"] < 1
    assert [progress.phase for progress in seen].count(Phase.CACHING_GRADIENTS) >= 3
    folders = {path.parent.name for path in workshop.bench.settings.cache_dir.rglob("gradients/**/*.safetensors")}
    assert len(folders) == 2 + 2  # train, validation, and two components for three labels


def test_more_rows_than_the_limit_run_the_model_instead(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, max_gauss_newton_bytes=4 * 2 * TRAIN * 1024 - 1)
    manifest, _ = workshop.run(make_spec("gauss_newton", "auto"))
    assert manifest.diagnostics.choice is not None
    assert manifest.diagnostics.choice.pick in ("cg", "lissa")
    reasons = {candidate.solver: candidate.reason for candidate in manifest.diagnostics.choice.candidates}
    assert "products alone" in str(reasons["cholesky"])
    folders = {path.parent.name for path in workshop.bench.settings.cache_dir.rglob("gradients/**/*.safetensors")}
    assert len(folders) == 2


def test_a_projection_does_not_bring_back_rows_beyond_the_limit(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, max_gauss_newton_bytes=1)
    projection = {"projection": {"long_side": 16}}
    with pytest.raises(LimitExceeded, match="max_gauss_newton_bytes") as raised:
        workshop.run(make_spec("gauss_newton", "cg", parameters=projection))
    assert raised.value.errors[0].pointer == "/parameters/projection"
    rows = {"kind": "gauss_newton", "form": "rows"}
    workshop.run(make_spec(rows, "cg", parameters=projection))


def test_nothing_fits_in_the_memory_there_is(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, max_solve_bytes=1000)
    with pytest.raises(LimitExceeded, match=r"no solver can do this: .*takes .*MiB"):
        workshop.run(make_spec("gfim", "auto"))


@pytest.mark.parametrize(("curvature", "solver"), [(c, s) for c, solvers in PAIRS.items() for s in solvers])
def test_one_train_row_is_enough(workshop: Workshop, curvature: str, solver: str) -> None:
    one = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 1}
    if solver == "astra":  # one row's EK-FAC is a worse guess than none
        with pytest.raises(PlanExceedsSteps, match="Raise the damping, or use CG"):
            workshop.run(make_spec(curvature, solver, train=one))
        return
    manifest, shelf = workshop.run(make_spec(curvature, solver, train=one))
    assert shelf.vector(MEAN).shape == (1,)
    assert bool(shelf.vector(MEAN).isfinite().all())
    assert manifest.diagnostics.status in (SolveStatus.CONVERGED, SolveStatus.APPROXIMATE)


def test_the_seed_decides_which_labels_are_drawn(workshop: Workshop) -> None:
    _, first = workshop.run(make_spec("ekfac", "eigenbasis", seed=1))
    _, again = workshop.run(make_spec("ekfac", "eigenbasis", seed=1))
    _, other = workshop.run(make_spec("ekfac", "eigenbasis", seed=2))
    assert first.staged == again.staged
    assert first.staged[MEAN] != other.staged[MEAN]


@pytest.mark.parametrize(
    ("curvature", "solver"), [("gfim", "cholesky"), ("gauss_newton", "cg"), ("ekfac", "eigenbasis")]
)
def test_spectra_are_told_where_asked_for(workshop: Workshop, curvature: str, solver: str) -> None:
    manifest, _ = workshop.run(make_spec(curvature, solver, output={"spectrum": True}))
    for block in manifest.diagnostics.blocks:
        assert block.spectrum is not None
        assert block.spectrum.top[0] >= block.spectrum.top[-1] >= 0
        assert block.spectrum.largest <= block.spectrum.trace * (1 + 1e-9) + 2 * block.spectrum.trace_standard_error
        assert (block.spectrum.batch_variance is not None) is (curvature == "gauss_newton")
