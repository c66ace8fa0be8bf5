"""A language model's job in one process, from files on disk to scores: every pair, the oracle, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ascribe.errors import InvalidInput, LimitExceeded
from ascribe.result import MEAN, TRAIN_ROWS, token_rows, token_vector, validation_vector
from ascribe.spec import PAIRS, JobSpec
from ascribe.status import SolveStatus
from tests.support.jobs import LANGUAGE_MODEL, TRAIN, VALIDATION, Shelf, Workshop, make_spec, make_workshop
from tests.support.tiny import make_completions, write_rows
from worker.pipeline import Bench


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("lm"), task="causal-lm")


def _spec(curvature: str, solver: str, **changes: object) -> JobSpec:
    return make_spec(curvature, solver, **{"model": LANGUAGE_MODEL} | changes)


def _matrix(shelf: Shelf) -> Tensor:
    return torch.stack([shelf.vector(validation_vector(q)) for q in range(VALIDATION)]).double()


@pytest.mark.parametrize(("curvature", "solver"), [(c, s) for c, solvers in PAIRS.items() for s in solvers])
def test_every_pair_gives_scores(workshop: Workshop, curvature: str, solver: str) -> None:
    manifest, shelf = workshop.run(_spec(curvature, solver))
    assert (manifest.train_rows, manifest.validation_rows) == (TRAIN, VALIDATION)
    tolerance = 0.02 if solver in ("lissa", "astra") else 1e-5
    mean_N = _matrix(shelf).mean(0)
    assert (shelf.vector(MEAN).double() - mean_N).norm() <= tolerance * mean_N.norm()
    assert manifest.diagnostics.status in (SolveStatus.CONVERGED, SolveStatus.APPROXIMATE)
    assert manifest.summary.by_label == ()


def test_scores_are_products_of_gradients_with_the_inverse_between(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, task="causal-lm")
    manifest, shelf = workshop.run(_spec("gfim", "cholesky"))
    folders = (workshop.bench.settings.cache_dir / "gradients").iterdir()
    files = [sorted(folder.glob("shard-*.safetensors")) for folder in folders]
    found = [torch.cat([load_file(path)["grad"] for path in paths]) for paths in files]
    train_NP = next(grad for grad in found if len(grad) == TRAIN).double()
    validation_QP = next(grad for grad in found if len(grad) == VALIDATION).double()
    expected_QN, start = torch.zeros(VALIDATION, TRAIN, dtype=torch.float64), 0
    for block in manifest.diagnostics.blocks:
        columns = slice(start, start + block.rank * block.long_side)
        g_NP, v_QP, start = train_NP[:, columns], validation_QP[:, columns], columns.stop
        g_MD = g_NP.reshape(-1, block.long_side)
        matrix = torch.kron(torch.eye(block.rank).double(), g_MD.T @ g_MD / TRAIN / block.rank)
        damped = matrix + g_NP.square().mean() * torch.eye(len(matrix)).double()
        expected_QN += v_QP @ torch.linalg.inv(damped) @ g_NP.T
    assert (_matrix(shelf) - expected_QN).norm() / expected_QN.norm() < 1e-5
    first = make_completions(TRAIN + VALIDATION)[0]
    assert shelf.rows(TRAIN_ROWS)[0] == {
        "id": "r0", "label": None, "text": f"{first['prompt']} ⏎ {first['completion']}"
    }  # fmt: skip


def test_a_completion_that_is_cut_off_is_refused_by_name_or_left_out(workshop: Workshop) -> None:
    rows = make_completions(12, seed=5)
    rows[3]["prompt"] = rows[7]["prompt"] = "the cat sat on the mat " * 3
    write_rows(workshop.root / "long.jsonl", rows)
    train = {"source": {"kind": "file", "path": "long.jsonl"}}
    with pytest.raises(InvalidInput) as raised:
        workshop.run(_spec("none", "identity", train=train, model=LANGUAGE_MODEL | {"max_length": 16}))
    assert [(e.pointer, e.code) for e in raised.value.errors] == [
        (f"/train/source/rows/{row}/completion", "completion_cut_off") for row in (3, 7)
    ]
    skipping = LANGUAGE_MODEL | {"max_length": 16, "cut_completions": "skip"}
    manifest, shelf = workshop.run(_spec("none", "identity", train=train, model=skipping))
    assert [row["id"] for row in shelf.rows(TRAIN_ROWS)] == [f"r{i}" for i in range(12) if i not in (3, 7)]
    assert any("2 train row(s) were left out" in warning for warning in manifest.diagnostics.warnings)
    with pytest.raises(InvalidInput, match="nothing to learn"):
        workshop.run(_spec("none", "identity", model=skipping | {"max_length": 1}))


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path, task="causal-lm")
    path = workshop.root / "base" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in config.items() if name != "eos_token"}))
    with pytest.raises(InvalidInput) as raised:
        workshop.run(_spec("none", "identity"))
    assert raised.value.errors[0].code == "no_pad_token"


@pytest.mark.parametrize(("curvature", "solver"), [("gfim", "cholesky"), ("gauss_newton", "cg")])
def test_the_scores_of_a_completions_tokens_add_up_to_its_own(workshop: Workshop, curvature: str, solver: str) -> None:
    manifest, shelf = workshop.run(_spec(curvature, solver, output={"per_token": True}))
    assert len(manifest.tokens) == VALIDATION
    assert len(set(manifest.tokens)) > 1
    assert manifest.vectors[0] == MEAN
    for row, count in enumerate(manifest.tokens):
        completion = make_completions(TRAIN + VALIDATION)[TRAIN + row]["completion"]
        assert [token["text"] for token in shelf.rows(token_rows(row))] == completion.split()
        parts_TN = torch.stack([shelf.vector(token_vector(row, token)) for token in range(count)]).double()
        row_N = shelf.vector(validation_vector(row)).double()
        assert (parts_TN.sum(0) - row_N).norm() <= 1e-4 * row_N.norm()
        assert count == 1 or float((parts_TN[0] - row_N).norm()) > 0.1 * float(row_N.norm())
    kept = [path for path in (workshop.bench.settings.cache_dir / "gradients").iterdir() if path.is_dir()]
    rows = sorted(sum(len(load_file(file)["grad"]) for file in path.glob("shard-*.safetensors")) for path in kept)
    assert sum(manifest.tokens) in rows  # of all tokens in one entry, and none for a place where a row has no token
    example = manifest.token_examples[0]
    assert example.row.score == pytest.approx(sum(example.scores), rel=1e-3)
    assert example.row.score == max(shelf.vector(validation_vector(0)))


def test_tokens_count_against_the_limits(workshop: Workshop) -> None:
    spec = _spec("none", "identity", output={"per_token": True})
    plain = len(workshop.run(_spec("none", "identity"))[0].vectors) * TRAIN
    bench = Bench(workshop.bench.settings.model_copy(update={"max_cells": plain}))
    with pytest.raises(LimitExceeded, match="max_cells"):
        Workshop(workshop.root, bench).run(spec)
