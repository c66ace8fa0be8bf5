"""Canonical JSON and content hashes: the only source of cache keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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
    """One hash for a set of files: their names and contents, whatever the order."""
    return fingerprint({name: file_sha256(folder / name) for name in names})


def gradient_fingerprint(
    *,
    base_sha256: str,
    adapter_sha256: str,
    rows_sha256: str,
    max_length: int,
    dtype: str,
    select: str,
    attention: str,
    token_budget: int,
    shard_rows: int,
    device: str,
    versions: Mapping[str, str],
) -> str:
    """Key of the per-example gradients of ordered rows under one model.

    Everything that can change a bit of them is in it; curvature, damping, solver and the other dataset are not, which
    is why a later job with another question finds them. Batches are formed by token budget within a shard, and the
    summation order inside a batch follows its shape, so both sizes count. The tokenizer is part of ``base_sha256``.
    """
    return fingerprint(
        {
            "kind": "gradients/1",
            "base": base_sha256,
            "adapter": adapter_sha256,
            "rows": rows_sha256,
            "max_length": max_length,
            "dtype": dtype,
            "select": select,
            "attention": attention,
            "token_budget": token_budget,
            "shard_rows": shard_rows,
            "device": device,
            "versions": {name: versions[name] for name in ("torch", "transformers", "peft", "tokenizers")},
        }
    )
