"""The pipeline in one process on a tiny model: every pair, oracles in dense float64, caching, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ascribe.errors import InvalidInput, LimitExceeded, NonFinite, PlanExceedsSteps, SolveFailed, StorageFailed
from ascribe.job import Phase, Progress
from ascribe.result import MEAN, SELF_INFLUENCE, TRAIN_LOSS, TRAIN_ROWS, VALIDATION_ROWS, validation_vector
from ascribe.spec import PAIRS
from ascribe.status import SolveStatus
from tests.support.jobs import TRAIN, VALIDATION, Shelf, Workshop, make_spec, make_workshop
from tests.support.tiny import make_checkpoint
from worker.pipeline import run
from worker.progress import Cancelled, Reporter
from worker.sharing import Alone

BLOCKS, RANK, LONG = 8, 4, 32


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def _matrix(shelf: Shelf) -> Tensor:
    return torch.stack([shelf.vector(validation_vector(q)) for q in range(VALIDATION)]).double()


def _gradients(workshop: Workshop, rows: int) -> Tensor:
    """The cached gradients ``[rows, P]`` of the one dataset with so many rows."""
    for folder in (workshop.bench.settings.cache_dir / "gradients").iterdir():
        shards = [load_file(path)["grad"] for path in sorted(folder.glob("*.safetensors"))]
        if sum(map(len, shards)) == rows:
            return torch.cat(shards).double()
    raise LookupError(rows)


def _oracle(train_NP: Tensor, validation_QP: Tensor, curvature: str) -> Tensor:
    """Scores by explicit inverses in float64, block by block."""
    score_QN = torch.zeros(len(validation_QP), len(train_NP), dtype=torch.float64)
    for block in range(BLOCKS):
        columns = slice(block * RANK * LONG, (block + 1) * RANK * LONG)
        g_NP, v_QP = train_NP[:, columns], validation_QP[:, columns]
        damping = g_NP.square().mean()
        if curvature == "empirical_fisher":
            matrix = g_NP.T @ g_NP / len(g_NP)
        else:
            g_MD = g_NP.reshape(-1, LONG)
            matrix = torch.kron(torch.eye(RANK).double(), g_MD.T @ g_MD / len(g_NP))
            matrix /= RANK if curvature == "gfim" else 1
        score_QN += v_QP @ torch.linalg.inv(matrix + damping * torch.eye(RANK * LONG).double()) @ g_NP.T
    return score_QN


@pytest.mark.parametrize(("curvature", "solver"), [(c, s) for c, solvers in PAIRS.items() for s in solvers])
def test_every_pair_gives_scores_for_every_row(workshop: Workshop, curvature: str, solver: str) -> None:
    manifest, shelf = workshop.run(make_spec(curvature, solver))
    assert (manifest.train_rows, manifest.validation_rows, manifest.parameters) == (TRAIN, VALIDATION, 8 * 4 * 32)
    assert set(manifest.vectors) == {MEAN, TRAIN_LOSS, *(validation_vector(q) for q in range(VALIDATION))}
    assert set(shelf.staged) == {*manifest.vectors, TRAIN_ROWS, VALIDATION_ROWS}
    mean_N = _matrix(shelf).mean(0)
    # The stochastic ones solve for each to their own tolerance of 0.01, CG and what auto takes to 1e-6.
    tolerance = 0.02 if solver in ("lissa", "astra") else 1e-5
    assert (shelf.vector(MEAN).double() - mean_N).norm() <= tolerance * mean_N.norm()
    assert [row["id"] for row in shelf.rows(TRAIN_ROWS)] == [f"r{i}" for i in range(TRAIN)]
    assert manifest.diagnostics.status in (SolveStatus.CONVERGED, SolveStatus.APPROXIMATE)
    assert len(manifest.diagnostics.blocks) == (1 if curvature == "gauss_newton" else BLOCKS)
    assert (manifest.diagnostics.choice is not None) is (solver == "auto")


@pytest.mark.parametrize("curvature", ["gfim", "gfim_unnormalized", "empirical_fisher"])
def test_exact_solvers_equal_dense_float64(workshop: Workshop, curvature: str) -> None:
    _, shelf = workshop.run(make_spec(curvature, "cholesky"))
    expected = _oracle(_gradients(workshop, TRAIN), _gradients(workshop, VALIDATION), curvature)
    assert (_matrix(shelf) - expected).norm() / expected.norm() < 1e-5


def test_schulz_equals_cholesky(workshop: Workshop) -> None:
    manifest, schulz = workshop.run(make_spec("gfim", "schulz"))
    _, cholesky = workshop.run(make_spec("gfim", "cholesky"))
    difference = _matrix(schulz) - _matrix(cholesky)
    assert difference.norm() / _matrix(cholesky).norm() < 1e-5
    assert manifest.diagnostics.worst_relative_residual <= 1e-6


def test_plain_products_are_gradient_products(workshop: Workshop) -> None:
    _, shelf = workshop.run(make_spec("none", "identity"))
    expected = _gradients(workshop, VALIDATION) @ _gradients(workshop, TRAIN).T
    torch.testing.assert_close(_matrix(shelf), expected, rtol=1e-4, atol=1e-6)


def test_self_influence_is_the_score_of_a_row_with_itself(workshop: Workshop) -> None:
    same = {"source": {"kind": "file", "path": "train.jsonl"}}
    spec = make_spec("gfim", "schulz", validation=same, output={"self_influence": True})
    _, shelf = workshop.run(spec)
    diagonal = torch.stack([shelf.vector(validation_vector(n))[n] for n in range(TRAIN)])
    torch.testing.assert_close(shelf.vector(SELF_INFLUENCE), diagonal, rtol=1e-4, atol=1e-6)


def test_mean_alone(workshop: Workshop) -> None:
    _, full = workshop.run(make_spec())
    manifest, mean = workshop.run(make_spec(output={"per_validation_row": False}))
    assert set(manifest.vectors) == {MEAN, TRAIN_LOSS}
    torch.testing.assert_close(mean.vector(MEAN), full.vector(MEAN), rtol=1e-4, atol=1e-6)


def test_head_and_adapter_blocks(workshop: Workshop) -> None:
    manifest, _ = workshop.run(make_spec(parameters={"select": "adapter_and_head"}))
    shapes = {block.name: (block.rank, block.long_side) for block in manifest.diagnostics.blocks}
    assert shapes["classifier.weight"] == (3, 32)
    assert shapes["classifier.bias"] == (1, 3)


def test_a_later_job_finds_the_gradients_whatever_it_asks(workshop: Workshop) -> None:
    first, _ = workshop.run(make_spec("gfim", "schulz"))
    other = {"source": {"kind": "inline", "rows": [{"text": "how do i undo a commit", "label": "coding"}]}}
    second, _ = workshop.run(make_spec("empirical_fisher", "datainf", validation=other))
    assert first.diagnostics.cache["train"].hit_rows == 0
    assert second.diagnostics.cache["train"].hit_rows == TRAIN
    assert second.diagnostics.cache["validation"].hit_rows == 0


def test_a_lost_shard_is_computed_again_to_the_same_bits(workshop: Workshop) -> None:
    _, first = workshop.run(make_spec())
    (lost,) = workshop.bench.settings.cache_dir.rglob("shard-00001.json")
    lost.unlink()
    manifest, second = workshop.run(make_spec())
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN - 16
    assert second.staged == first.staged


def test_a_torn_shard_is_computed_again(workshop: Workshop) -> None:
    _, first = workshop.run(make_spec())
    (torn,) = workshop.bench.settings.cache_dir.rglob("shard-00001.safetensors")
    torn.write_bytes(torn.read_bytes()[:-100])
    manifest, second = workshop.run(make_spec())
    assert manifest.diagnostics.cache["train"].hit_rows == TRAIN - 16
    assert second.staged == first.staged


def test_a_changed_row_is_another_fingerprint(workshop: Workshop) -> None:
    workshop.run(make_spec())
    path = workshop.root / "train.jsonl"
    path.write_text(path.read_text().replace('"r0", "text": "', '"r0", "text": "dog '))
    manifest, _ = workshop.run(make_spec())
    assert manifest.diagnostics.cache["train"].hit_rows == 0


def test_progress_moves_through_the_phases(workshop: Workshop) -> None:
    seen: list[Progress] = []
    manifest, _ = workshop.run(make_spec(), seen)
    assert list(dict.fromkeys(progress.phase for progress in seen)) == list(Phase)
    assert all(0 <= progress.fraction <= 1 for progress in seen)
    assert set(manifest.diagnostics.seconds) == {*(phase.value for phase in Phase), "total"}


def test_cancel_ends_the_run_at_a_batch_and_keeps_whole_shards(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.progress.SEND_EVERY_SECONDS", 0.0)

    def cancel_in_the_second_shard(progress: Progress) -> bool:
        return progress.phase is Phase.CACHING_GRADIENTS and progress.done > 16

    with pytest.raises(Cancelled):
        run(make_spec(), workshop.bench, Reporter(cancel_in_the_second_shard), Shelf(), Alone())
    manifest, _ = workshop.run(make_spec())
    assert manifest.diagnostics.cache["train"].hit_rows == 16


@pytest.mark.parametrize(
    ("curvature", "solver", "damping", "status"),
    [
        ("gfim", {"kind": "cholesky"}, 1e-30, "not_positive_definite"),
        ("empirical_fisher", {"kind": "lissa", "step_size": 1e9, "steps": 50}, 1.0, "diverged"),
        ("gfim", {"kind": "schulz", "start": "published", "iterations": 200}, 1e30, "diverged"),
    ],
)
def test_a_solve_that_breaks_down_fails_the_job_with_advice(
    workshop: Workshop, curvature: str, solver: dict[str, Any], damping: float, status: str
) -> None:
    few = {"source": {"kind": "file", "path": "train.jsonl"}, "limit": 2}  # of a lower rank than the matrix
    spec = make_spec(curvature, solver, damping={"absolute": damping}, train=few)
    with pytest.raises(SolveFailed, match=status) as raised:
        workshop.run(spec)
    assert "lora_" in raised.value.detail
    assert SolveStatus(status).advice in raised.value.detail


def test_a_base_that_lacks_weights_is_not_filled_with_random_ones(workshop: Workshop) -> None:
    weights = workshop.root / "base" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "pooler" not in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec())
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("incomplete_checkpoint", "/model/base")


def test_a_gradient_that_is_not_finite_names_its_row(workshop: Workshop) -> None:
    rows = [json.loads(line) for line in (workshop.root / "train.jsonl").read_text().splitlines()]
    poisoned = [index for index, row in enumerate(rows) if "tree" in row["text"].split()]
    weights = workshop.root / "base" / "model.safetensors"
    tensors = load_file(weights)
    (name,) = [name for name in tensors if "word_embeddings" in name]
    vocabulary = json.loads((workshop.root / "base" / "tokenizer.json").read_text())["model"]["vocab"]
    tensors[name][vocabulary["tree"]] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(NonFinite) as raised:
        workshop.run(make_spec())
    in_first_shard = [f"/train/source/rows/{index}" for index in poisoned if index < 16]
    assert [problem.pointer for problem in raised.value.errors] == in_first_shard != []


def test_blocks_whose_gradients_are_all_zero_score_zero_and_warn(workshop: Workshop) -> None:
    # A fresh adapter: lora_B is zero, so no gradient reaches lora_A.
    path = workshop.root / "adapter" / "adapter_model.safetensors"
    save_file({n: t * 0 if "lora_B" in n else t for n, t in load_file(path).items()}, path)
    manifest, shelf = workshop.run(make_spec(output={"self_influence": True}))
    silent = [block for block in manifest.diagnostics.blocks if block.damping is None]
    assert {block.name.split(".")[-2] for block in silent} == {"lora_A"}
    assert len(silent) == BLOCKS // 2
    assert any("zero" in warning for warning in manifest.diagnostics.warnings)
    assert bool(torch.isfinite(shelf.vector(SELF_INFLUENCE)).all())
    assert shelf.vector(MEAN).abs().max() > 0


def test_more_cells_than_the_server_takes(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, max_cells=TRAIN * (VALIDATION + 1))
    with pytest.raises(LimitExceeded, match="over 280 scores a job, the limit max_cells"):
        workshop.run(make_spec())


def test_more_right_hand_sides_than_the_server_holds(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, max_solution_bytes=16 * 8 * 4 * 32 * VALIDATION)
    with pytest.raises(LimitExceeded, match="max_solution_bytes"):
        workshop.run(make_spec())
    workshop.run(make_spec(output={"per_validation_row": False}))


def test_lissa_refuses_a_plan_that_is_too_long_before_it_solves(workshop: Workshop) -> None:
    seen: list[Progress] = []
    spec = make_spec("empirical_fisher", "lissa", damping={"absolute": 1e-9})
    with pytest.raises(PlanExceedsSteps, match=r"needs \d+ steps"):
        workshop.run(spec, seen)
    assert Phase.CACHING_GRADIENTS in {progress.phase for progress in seen}
    assert Phase.SOLVING not in {progress.phase for progress in seen}


def test_a_cache_that_cannot_be_written(workshop: Workshop) -> None:
    workshop.bench.settings.cache_dir.write_text("a file where a folder is wanted")
    with pytest.raises(StorageFailed):
        workshop.run(make_spec())


def test_an_adapter_whose_config_says_another_rank(workshop: Workshop) -> None:
    path = workshop.root / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": ["query"]}))
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec())
    assert raised.value.errors[0].code == "adapter_does_not_fit"


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_precisions_run(workshop: Workshop, dtype: str) -> None:
    model: dict[str, Any] = {"base": "base", "adapter": "adapter", "dtype": dtype}
    manifest, shelf = workshop.run(make_spec(model=model))
    _, reference = workshop.run(make_spec())
    assert manifest.diagnostics.worst_relative_residual <= 1e-6
    correlation = torch.corrcoef(torch.stack([shelf.vector(MEAN), reference.vector(MEAN)]))[0, 1]
    assert correlation > (0.9 if dtype == "bfloat16" else 0.9999)


def test_another_model_takes_the_warm_ones_place(workshop: Workshop) -> None:
    _, first = workshop.run(make_spec())
    make_checkpoint(workshop.root / "other", seed=1)
    other = {"base": "other/base", "adapter": "other/adapter"}
    manifest, second = workshop.run(make_spec(model=other))
    assert manifest.diagnostics.cache["train"].hit_rows == 0
    assert second.staged[MEAN] != first.staged[MEAN]
    _, again = workshop.run(make_spec())
    assert again.staged == first.staged
