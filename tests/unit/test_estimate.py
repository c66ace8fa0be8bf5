"""Memory and disk before a job starts: what is counted, what refuses a job, and what the result says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ascribe.errors import DoesNotFit
from ascribe.limits import check_fits
from ascribe.planning.batches import Batching, Lengths
from ascribe.planning.memory import Estimate, estimate
from ascribe.settings import Settings, WorkerSettings
from ascribe.sources.checkpoints import Checkpoint, inspect_checkpoint
from ascribe.sources.model_shape import ModelShape
from ascribe.sources.row_checks import CheckedRow
from ascribe.sources.rows import Rows
from ascribe.sources.safetensors_header import TensorInfo
from ascribe.spec import PAIRS, JobSpec
from tests.support.jobs import LANGUAGE_MODEL, Workshop, make_spec, make_workshop
from tests.support.tiny import make_checkpoint
from worker.pipeline import Bench

MIB = 1 << 20
BATCHING = Batching(1024, 256, "sdpa")
MINILM: dict[str, Any] = {
    "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536,
}  # fmt: skip
SMOLLM2: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("data")
    make_checkpoint(root)
    spec = make_spec()
    return inspect_checkpoint(root, spec.model, spec.parameters)


def _lengths(rows: int, words: int = 20) -> Lengths:
    texts = Rows.of(CheckedRow(f"r{n}", "word " * words, None, 0) for n in range(rows))
    return Lengths.of(texts, max_length=128, shard_rows=BATCHING.shard_rows)


def _estimate(checkpoint: Checkpoint, spec: JobSpec, rows: int = 500, batching: Batching = BATCHING) -> Estimate:
    return estimate(spec, checkpoint, _lengths(rows), _lengths(20), batching=batching, settings=Settings())


def test_sizes_under_the_names_that_families_give_them() -> None:
    tensors = {"a": TensorInfo("F32", (3, 4)), "b": TensorInfo("F32", (5,))}
    bert = ModelShape.of(MINILM, tensors)
    assert (bert.weights, bert.kept, bert.gated) == (17, 384, False)
    assert bert.layer_weights == 4 * 384**2 + 2 * 384 * 1536
    assert ModelShape.of(MINILM, tensors | {"alias.of.a": tensors["a"]}).weights == 17, "as GGUF tensors are listed"
    distilbert = {"model_type": "distilbert", "dim": 384, "n_layers": 6, "n_heads": 12, "hidden_dim": 1536}
    assert ModelShape.of(distilbert, tensors) == bert
    llama = ModelShape.of(SMOLLM2, tensors)
    assert (llama.kept, llama.gated) == (192, True)
    assert llama.layer_weights == 2 * 576 * (576 + 192) + 3 * 576 * 1536


def test_lengths_make_the_batches_that_the_budget_allows() -> None:
    rows = Rows.of(CheckedRow(f"r{n}", "x" * (4 if n else 4000), None, 0) for n in range(10))
    lengths = Lengths.of(rows, max_length=100, shard_rows=256)
    assert (lengths.longest, lengths.shard[0]) == (100, 3)
    assert lengths.largest_batch(Batching(12, 256, "sdpa")) == (100, 4), "a long row alone, or four short ones"
    assert lengths.largest_batch(Batching(4096, 256, "sdpa")) == (127, 10), "no more than there are"


@pytest.mark.parametrize("curvature", PAIRS)
def test_more_of_anything_takes_no_less(checkpoint: Checkpoint, curvature: str) -> None:
    spec = make_spec(curvature, "identity" if curvature == "none" else PAIRS[curvature][0])
    one = _estimate(checkpoint, spec)
    rows, batches = (
        _estimate(checkpoint, spec, 1000),
        _estimate(checkpoint, spec, batching=replace(BATCHING, token_budget=8192)),
    )
    assert one.least <= one.needed <= one.peak
    assert rows.peak >= one.peak
    assert rows.disk > one.disk
    assert batches.needed >= one.needed
    assert batches.least == one.least, "smaller batches are what it counts on"


def test_half_the_precision_takes_half_the_activations(checkpoint: Checkpoint) -> None:
    large = replace(checkpoint, shape=ModelShape.of(SMOLLM2, {"w": TensorInfo("F32", (135_000_000,))}))
    whole = _estimate(large, make_spec())
    half = _estimate(large, make_spec(model={"base": "base", "adapter": "adapter", "dtype": "bfloat16"}))
    assert half.parts["model"] == 270_000_000
    assert whole.parts["model"] == 540_000_000 + 256 * MIB, "and copies in another order"
    assert half.parts["batch"] < 0.6 * whole.parts["batch"]


def test_disk_is_what_a_job_leaves(tmp_path: Path) -> None:
    for curvature, solver in (("gfim", "schulz"), ("ekfac", "eigenbasis"), ("empirical_fisher", "cholesky")):
        workshop = make_workshop(tmp_path / curvature)
        diagnostics = workshop.run(make_spec(curvature, solver))[0].diagnostics
        assert diagnostics.disk_bytes is not None
        assert diagnostics.estimated_disk_bytes is not None
        tensors = sum(f.stat().st_size for f in workshop.bench.settings.cache_dir.rglob("*.safetensors"))
        assert diagnostics.disk_bytes >= tensors
        assert tensors * 0.9 < diagnostics.estimated_disk_bytes < tensors * 1.1


@pytest.mark.parametrize(("task", "model"), [("sequence-classification", None), ("causal-lm", LANGUAGE_MODEL)])
def test_the_result_has_the_estimate_beside_what_it_took(
    tmp_path: Path, task: Any, model: dict[str, Any] | None
) -> None:
    changes = {} if model is None else {"model": model}
    diagnostics = make_workshop(tmp_path, task=task).run(make_spec(**changes))[0].diagnostics
    assert diagnostics.estimated_memory_bytes is not None
    assert diagnostics.estimated_memory_bytes > 300 * MIB, "the libraries alone"


def test_a_worker_refuses_before_it_loads_what_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = make_workshop(tmp_path)
    settings = workshop.bench.settings.model_copy(update={"max_memory_bytes": 100 * MIB})
    monkeypatch.setattr("worker.models.load_model", pytest.fail)
    with pytest.raises(DoesNotFit, match="a worker has 100 MiB") as raised:
        Workshop(workshop.root, Bench(settings)).run(make_spec())
    (problem,) = raised.value.errors
    assert problem.code == "does_not_fit"
    assert problem.pointer.startswith("/")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"weights": 70_000_000_000}, "/model/base"),
        ({"hidden": 65536, "inner": 400_000, "layers": 200}, "/model/max_length"),
    ],
)
def test_the_pointer_is_at_what_takes_the_most(checkpoint: Checkpoint, changes: Any, pointer: str) -> None:
    large = replace(checkpoint, shape=replace(checkpoint.shape, **changes))
    expected = _estimate(large, make_spec())
    with pytest.raises(DoesNotFit) as raised:
        check_fits(expected, 1 << 30)
    assert raised.value.errors[0].pointer == pointer
    check_fits(expected, expected.least)


def test_a_worker_without_a_setting_goes_by_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.memory.there_bytes", lambda: 50 * MIB)
    assert WorkerSettings().max_memory_bytes is None
    with pytest.raises(DoesNotFit, match="a worker has 50 MiB"):
        make_workshop(tmp_path).run(make_spec())
