"""What jobs were expected to take of memory and disk before they began, beside what they took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.language import SHORT, language_subject
from benchmarks.result import Row
from benchmarks.subject import Sizes, Subject

MIB = 2**20
GOAL = 0.25
MEAN_ALONE = {"per_validation_row": False}


def jobs(subject: Subject, sizes: Sizes) -> Iterator[tuple[str, Subject, dict[str, Any], Mapping[str, int]]]:
    """Jobs that take their memory for different things, each with its name and the worker's settings."""
    few = max(sizes.rows // 20, 16)

    def rows(count: int, tokens: int = sizes.tokens) -> dict[str, Any]:
        return {"source": {"kind": "file", "path": subject.write_rows(f"estimate-{count}-{tokens}", count, tokens)}}

    model = {"base": subject.base, "adapter": subject.adapter}
    yield "gfim, schulz", subject, {"train": rows(sizes.rows // 2)}, {}
    yield (
        "ekfac, batches of 4096 tokens",
        subject,
        {
            "train": rows(few * 2),
            "curvature": {"kind": "ekfac"},
            "solver": {"kind": "eigenbasis"},
            "output": MEAN_ALONE,
        },
        {"token_budget": 4096},
    )
    yield (
        "gauss_newton from rows, cholesky",
        subject,
        {"train": rows(few), "curvature": {"kind": "gauss_newton", "form": "rows"}, "solver": {"kind": "cholesky"}},
        {},
    )
    yield (
        "no curvature, bfloat16, long rows",
        subject,
        {
            "model": model | {"dtype": "bfloat16"},
            "train": rows(few, 4 * sizes.tokens),
            "curvature": {"kind": "none"},
            "solver": {"kind": "identity"},
        },
        {},
    )


