"""Canonical JSON and content hashes: the only source of cache keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """One byte string for one JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(folder: Path, names: Iterable[str]) -> str:
    """One hash for a set of files: their names and contents, whatever the order.

    A process reads a file once: again only when it was written to, replaced or had its times changed.
    """
    return fingerprint({name: _sha256_once(folder / name) for name in names})


def _sha256_once(path: Path) -> str:
    stat = path.stat()
    return _sha256_as_of(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=256)
def _sha256_as_of(path: Path, *_identity: int) -> str:
    return file_sha256(path)


def gradient_fingerprint(
    *,
    base_sha256: str,
    adapter_sha256: str | None,
    rows_sha256: str,
    max_length: int,
    dtype: str,
    blocks: Sequence[str],
    attention: str,
    token_budget: int,
    shard_rows: int,
    device: str,
    versions: Mapping[str, str],
    of: str = "loss",
) -> str:
    """Key of the per-example gradients of ordered rows under one model, of the tensors that ``blocks`` names.

    Everything that can change a bit of them is in it; curvature, damping, solver and the other dataset are not, which
    is why a later job with another question finds them. ``of`` says what was differentiated. Batches are formed by
    token budget within a shard, and the summation order inside a batch follows its shape, so both sizes count. The
    tokenizer is part of ``base_sha256``.
    """
    return fingerprint(
        {
            "kind": "gradients/4",
            "of": of,
            "base": base_sha256,
            "adapter": adapter_sha256,
            "rows": rows_sha256,
            "max_length": max_length,
            "dtype": dtype,
            "blocks": list(blocks),
            "attention": attention,
            "token_budget": token_budget,
            "shard_rows": shard_rows,
            "device": device,
            "versions": {name: versions[name] for name in ("torch", "transformers", "peft", "tokenizers")},
        }
    )


def scoring_fingerprint(*, gradients: str, sides: str) -> str:
    """Key of the scores of the train rows under this gradient fingerprint by left-hand sides of this sha256."""
    return fingerprint({"kind": "scoring/1", "gradients": gradients, "sides": sides})


def curvature_fingerprint(*, gradients: str, curvature: Mapping[str, Any]) -> str:
    """Key of the curvature of every block of the train gradients under this fingerprint."""
    return fingerprint({"kind": "curvature/3", "gradients": gradients, "curvature": curvature})


def solution_fingerprint(
    *, curvature: str, damping: Mapping[str, Any] | None, solver: Mapping[str, Any], seed: int
) -> str:
    """Key of a solver's state for every block of a curvature: an inverse, a factor, a plan."""
    return fingerprint(
        {"kind": "solution/2", "curvature": curvature, "damping": damping, "solver": solver, "seed": seed}
    )
