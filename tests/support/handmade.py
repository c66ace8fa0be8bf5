"""A checkpoint and a finished job written by hand, in plain Python: for tests of what must not need torch."""

from __future__ import annotations

import json
import math
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from ascribe.ledger.base import Claim, Ledger
from ascribe.result import (
    MEAN,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    BlockDiagnostics,
    CacheUse,
    Diagnostics,
    Histogram,
    LabelSummary,
    Manifest,
    Provenance,
    RowInfo,
    ScoredRow,
    Spectrum,
    Summary,
    vector_names,
)
from ascribe.spec import JobSpec
from ascribe.status import SolveStatus

HIDDEN, RANK, BLOCKS = 8, 2, 4
LABELS = ("coding", "trivia", "emotion")
BLOCK_NAMES = tuple(
    f"bert.encoder.layer.{layer}.attention.self.query.lora_{side}.weight" for layer in (0, 1) for side in "AB"
)


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Float32 zeros under these names."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(position))


def write_checkpoint(root: Path) -> None:
    """``root/minilm`` and ``root/topics-lora``: two layers' query matrices and a head of three labels."""
    base, adapter = root / "minilm", root / "topics-lora"
    base.mkdir(parents=True)
    adapter.mkdir()
    layers = [f"encoder.layer.{layer}.attention.self.query" for layer in (0, 1)]
    (base / "config.json").write_text(json.dumps({"model_type": "bert"}))
    write_safetensors(base / "model.safetensors", {f"{layer}.weight": (HIDDEN, HIDDEN) for layer in layers})
    names = {str(index): name for index, name in enumerate(LABELS)}
    (adapter / "config.json").write_text(json.dumps({"model_type": "bert", "id2label": names}))
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": RANK, "base_model_name_or_path": "/home/somebody/minilm"})
    )
    write_safetensors(adapter / "adapter_model.safetensors", adapter_shapes())


def adapter_shapes(hidden: int = HIDDEN) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"base_model.model.classifier.weight": (len(LABELS), hidden)}
    for name in BLOCK_NAMES:
        shapes[f"base_model.model.{name}"] = (RANK, hidden) if "lora_A" in name else (hidden, RANK)
    return shapes


def spec_body(**fields: Any) -> dict[str, Any]:
    """A spec that the service takes, as JSON."""
    return {
        "name": "topics-noise",
        "labels": {"team": "support"},
        "model": {"base": "minilm", "adapter": "topics-lora"},
        "train": {"source": {"kind": "file", "path": "topics/train.jsonl"}},
        "validation": {
            "source": {"kind": "inline", "rows": [{"id": "q1", "text": "undo a commit", "label": "coding"}]}
        },
        "curvature": {"kind": "gfim"},
        "solver": {"kind": "schulz"},
        **fields,
    }


def write_rows(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": row.id, "text": row.text, "label": row.label} for row in train_rows(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train_rows(count: int) -> list[RowInfo]:
    return [RowInfo(id=f"t{i}", label=LABELS[i % 3], text=f"what is the answer to question {i}") for i in range(count)]


def pack_rows(rows: list[RowInfo]) -> bytes:
    return zlib.compress(b"\n".join(json.dumps(row.model_dump()).encode() for row in rows))


def scores_of(count: int, seed: int = 0) -> list[float]:
    """Scores that float32 holds exactly, with ties."""
    generator = random.Random(seed)  # noqa: S311
    return [round(generator.gauss(0.4, 1) * 64) / 64 for _ in range(count)]


def finish(ledger: Ledger, job_id: str, *, rows: int = 30, **diagnostics: Any) -> dict[str, list[float]]:
    """Play the worker for a queued job: stage every vector its spec asks for, commit. Gives the vectors back."""
    claim = ledger.claim(job_id, 1, "handmade")
    assert claim is not None
    infos = train_rows(rows)
    names = vector_names(claim.spec.output, 1, claim.spec.damping_count)
    vectors = {name: scores_of(rows, seed) for seed, name in enumerate(names)}
    stage(ledger, claim, vectors, infos, [RowInfo(id="q1", label="coding", text="undo a commit")])
    ledger.commit(claim, manifest(claim.spec, vectors, infos, **diagnostics))
    return vectors


def stage(
    ledger: Ledger, claim: Claim, vectors: dict[str, list[float]], rows: list[RowInfo], queries: list[RowInfo]
) -> None:
    for name, scores in vectors.items():
        ledger.stage(claim, name, [struct.pack(f"<{len(scores)}f", *scores)])
    packed = pack_rows(rows)
    ledger.stage(claim, TRAIN_ROWS, [packed[:50], packed[50:]])
    ledger.stage(claim, VALIDATION_ROWS, [pack_rows(queries)])


def manifest(spec: JobSpec, vectors: dict[str, list[float]], rows: list[RowInfo], **diagnostics: Any) -> Manifest:
    assert {MEAN, TRAIN_LOSS} <= vectors.keys()
    return Manifest(
        train_rows=len(rows),
        validation_rows=1,
        parameters=BLOCKS * RANK * HIDDEN,
        vectors=tuple(vectors),
        diagnostics=diagnostics_of(**diagnostics),
        provenance=Provenance(
            base_sha256="1f" * 32,
            adapter_sha256="2e" * 32,
            train_sha256="3d" * 32,
            validation_sha256="4c" * 32,
            gradient_fingerprint="5b" * 32,
            versions={"ascribe": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            attention="sdpa",
            token_budget=4096,
            device="cpu",
            seed=spec.seed,
        ),
        summary=summary_of(vectors[MEAN], rows),
    )


def diagnostics_of(
    status: SolveStatus = SolveStatus.CONVERGED,
    residual: float = 3.2e-7,
    warnings: tuple[str, ...] = (),
    spectrum: Spectrum | None = None,
    **more: Any,
) -> Diagnostics:
    blocks = tuple(
        BlockDiagnostics(
            name=name,
            rank=RANK,
            long_side=HIDDEN,
            status=status if index == 0 else SolveStatus.CONVERGED,
            damping=1.3e-6 * 3**index,
            condition_bound=41.0 * 2**index,
            relative_residual=residual / 10**index,
            iterations=9,
            products=18,
            precision="float32, refined in float64",
            spectrum=spectrum,
        )
        for index, name in enumerate(BLOCK_NAMES)
    )
    seconds = {"loading": 1.2, "caching_gradients": 14.1, "building_curvature": 0.8, "solving": 0.4, "scoring": 0.3}
    return Diagnostics(
        status=status,
        advice=status.advice,
        worst_relative_residual=residual,
        largest_condition_bound=328,
        iterations=9,
        products=72,
        blocks=blocks,
        seconds=seconds | {"total": sum(seconds.values())},
        peak_memory_bytes=812 << 20,
        cache={"train": CacheUse(hit_rows=0, rows=30), "validation": CacheUse(hit_rows=1, rows=1)},
        warnings=warnings,
        **more,
    )


def summary_of(scores: list[float], rows: list[RowInfo], bins: int = 40) -> Summary:
    order = sorted(range(len(scores)), key=scores.__getitem__)
    low, high = scores[order[0]], scores[order[-1]]
    counts = [0] * bins
    for score in scores:
        counts[min(bins - 1, int((score - low) / (high - low) * bins))] += 1
    scored = [ScoredRow(index=i, score=scores[i], **rows[i].model_dump()) for i in order]
    by_label = []
    for label in sorted({row.label for row in rows if row.label is not None}):
        mine = [score for score, row in zip(scores, rows, strict=True) if row.label == label]
        negative = sum(score < 0 for score in mine) / len(mine)
        by_label.append(
            LabelSummary(label=label, rows=len(mine), mean_score=sum(mine) / len(mine), share_negative=negative)
        )
    return Summary(
        rows=len(rows),
        minimum=low,
        median=scores[order[len(order) // 2]],
        maximum=high,
        share_negative=sum(score < 0 for score in scores) / len(scores),
        histogram=Histogram(edges=tuple(low + (high - low) * i / bins for i in range(bins + 1)), counts=tuple(counts)),
        by_label=tuple(by_label),
        proponents=tuple(reversed(scored[-50:])),
        opponents=tuple(scored[:50]),
    )
