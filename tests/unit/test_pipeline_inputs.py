"""The whole pipeline over every kind of input: formats, uploads, text pairs, a base without an adapter."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from ascribe.errors import InvalidInput
from ascribe.result import MEAN, TRAIN_ROWS, validation_vector
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.sources.uploads import Uploads
from ascribe.spec import ModelSpec, ParametersSpec
from tests.support.jobs import TRAIN, VALIDATION, Workshop, make_spec, make_workshop
from tests.support.tiny import LABELS
from worker.models import load_model

ALONE = {"model": {"base": "base"}}
LAST_LAYER = ["classifier", "bert.encoder.layer.1.*.weight"]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path, uploads_dir=tmp_path / "uploads")


def _rows(workshop: Workshop, name: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workshop.root / f"{name}.jsonl").read_text().splitlines()]


def _modules(*patterns: str) -> dict[str, Any]:
    return ALONE | {"parameters": {"select": "modules", "modules": list(patterns)}}


def test_csv_parquet_and_an_upload_of_the_same_rows_are_the_same_job(workshop: Workshop) -> None:
    _, expected = workshop.run(make_spec())
    rows = _rows(workshop)
    with (workshop.root / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), workshop.root / "train.parquet")
    identifier = "ds_" + "0" * 64
    uploads = Uploads(workshop.bench.settings)
    with uploads.incoming() as folder:
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
        uploads.keep(folder, identifier, b"{}")
    for source in (
        {"kind": "file", "path": "train.csv"},
        {"kind": "file", "path": "train.parquet"},
        {"kind": "dataset", "id": identifier},
    ):
        manifest, shelf = workshop.run(make_spec(train={"source": source}))
        assert manifest.diagnostics.cache["train"].hit_rows == TRAIN, "the same rows are the same gradients"
        assert shelf.staged == expected.staged


def test_an_upload_that_is_gone_fails_the_job(workshop: Workshop) -> None:
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec(train={"source": {"kind": "dataset", "id": "ds_" + "0" * 64}}))
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("not_found", "/train/source/id")


def test_pairs_reach_the_model(workshop: Workshop) -> None:
    for name in ("train", "validation"):
        rows = [row | {"second": "how do i undo commit"} for row in _rows(workshop, name)]
        (workshop.root / f"{name}-pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = {
        name: {"source": {"kind": "file", "path": f"{name}-pairs.jsonl"}, "columns": {"text_pair": "second"}}
        for name in ("train", "validation")
    }
    manifest, shelf = workshop.run(make_spec("gfim", "cholesky", **pairs))
    _, single = workshop.run(make_spec("gfim", "cholesky"))
    assert manifest.diagnostics.cache["train"].hit_rows == 0
    assert not torch.allclose(shelf.vector(MEAN), single.vector(MEAN))
    assert shelf.rows(TRAIN_ROWS)[0]["text"].endswith("⏎ how do i undo commit")

    inline = [
        {"text": row["text"], "text_pair": row["second"], "label": row["label"]}
        for row in _rows(workshop, "validation-pairs")
    ]
    again, from_inline = workshop.run(
        make_spec("gfim", "cholesky", **pairs | {"validation": {"source": {"kind": "inline", "rows": inline}}})
    )
    assert again.diagnostics.cache["validation"].hit_rows == VALIDATION
    assert from_inline.staged[MEAN] == shelf.staged[MEAN]


def test_the_loss_of_a_pair_is_the_models_own(workshop: Workshop) -> None:
    row = {"text": "the cat sat", "text_pair": "on a mat", "label": "coding"}
    rows = {"source": {"kind": "inline", "rows": [row]}}
    _, shelf = workshop.run(make_spec("none", "identity", train=rows, validation=rows))
    spec = ModelSpec(base="base", adapter="adapter")
    loaded = load_model(
        inspect_checkpoint(workshop.root, spec, ParametersSpec()), spec, attention="eager", device="cpu"
    )
    encoded = loaded.tokenizer(row["text"], row["text_pair"], return_tensors="pt")
    loss = cross_entropy(loaded.model(**encoded).logits, torch.tensor([LABELS.index("coding")]))
    torch.testing.assert_close(shelf.vector("train_loss")[0], loss.detach())


@pytest.mark.parametrize(("curvature", "solver"), [("gfim", "schulz"), ("empirical_fisher", "datainf")])
def test_a_base_alone(workshop: Workshop, curvature: str, solver: str) -> None:
    manifest, shelf = workshop.run(make_spec(curvature, solver, **_modules(*LAST_LAYER)))
    shapes = {block.name: (block.rank, block.long_side) for block in manifest.diagnostics.blocks}
    assert len(shapes) == 8
    assert shapes["classifier.weight"] == (3, 32)
    assert shapes["bert.encoder.layer.1.intermediate.dense.weight"] == (32, 48)
    assert manifest.provenance.adapter_sha256 is None
    assert shelf.vector(MEAN).abs().max() > 0


def test_scores_of_a_dense_matrix_equal_an_explicit_inverse(workshop: Workshop) -> None:
    """GFIM of a 32 x 48 matrix, stored 48 x 32 in the model or not, as for any other: D x D, short side first."""
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    _, shelf = workshop.run(make_spec("gfim", "cholesky", **_modules(name)))
    whole = [
        torch.cat([load_file(path)["grad"].double() for path in sorted(folder.glob("shard-*.safetensors"))])
        for folder in (workshop.bench.settings.cache_dir / "gradients").iterdir()
    ]
    validation, train = sorted(whole, key=len)
    rows_MD = train.reshape(-1, 48)
    matrix = rows_MD.T @ rows_MD / TRAIN / 32 + train.square().mean() * torch.eye(48).double()
    ihvp = validation.reshape(-1, 48) @ torch.linalg.inv(matrix)
    expected = ihvp.reshape(VALIDATION, -1) @ train.T
    ours = torch.stack([shelf.vector(validation_vector(q)) for q in range(VALIDATION)]).double()
    assert (ours - expected).norm() / expected.norm() < 1e-5


def test_another_selection_is_another_set_of_gradients(workshop: Workshop) -> None:
    first, _ = workshop.run(make_spec(**_modules("classifier")))
    other, _ = workshop.run(make_spec(**_modules("bert.pooler")))
    same, _ = workshop.run(make_spec(**_modules("classif*", "classifier.bias")))
    hits = [manifest.diagnostics.cache["train"].hit_rows for manifest in (first, other, same)]
    assert hits == [0, 0, TRAIN], "what counts is what is selected, not how it was said"


def test_with_and_without_its_adapter_a_base_is_another_model(workshop: Workshop) -> None:
    with_adapter, _ = workshop.run(make_spec())
    alone, _ = workshop.run(make_spec(**_modules("classifier")))
    again, _ = workshop.run(make_spec())
    assert alone.provenance.base_sha256 == with_adapter.provenance.base_sha256
    assert again.diagnostics.cache["train"].hit_rows == TRAIN


def test_a_base_alone_that_is_not_whole_is_refused(workshop: Workshop) -> None:
    weights = workshop.root / "base" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(weights).items() if ".layer.0.output.dense" not in name}
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InvalidInput) as raised:
        workshop.run(make_spec(**_modules("classifier")))
    assert (raised.value.errors[0].code, raised.value.errors[0].pointer) == ("incomplete_checkpoint", "/model/base")
