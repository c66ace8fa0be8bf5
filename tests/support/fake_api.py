"""A fake API for the client's and the command line's tests: an httpx transport with scripted replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from ascribe.client import AsyncClient, Client
from ascribe.spec import JobSpec
from ascribe.view import SpecView

JOB_ID = "job_" + "0" * 31 + "1"

SPEC: dict[str, Any] = {
    "name": "topics-noise",
    "model": {"base": "minilm", "adapter": "topics-lora"},
    "train": {"source": {"kind": "file", "path": "topics/train.jsonl"}},
    "validation": {"source": {"kind": "inline", "rows": [{"id": "q1", "text": "undo a commit", "label": "coding"}]}},
    "curvature": {"kind": "gfim"},
    "damping": {"relative": 0.1},
    "solver": {"kind": "schulz"},
}

SHOWN_SPEC: dict[str, Any] = SpecView.of(JobSpec.model_validate(SPEC)).model_dump(mode="json")
"""What the API answers where ``SPEC`` was sent: defaults filled in, inline rows counted."""

ROWS = [
    {"index": 0, "id": "a", "label": "coding", "text": "git revert", "score": 2.5},
    {"index": 1, "id": "b", "label": "trivia", "text": "bad \x1b[31mlabel\there", "score": -1.5},
]

RESULT: dict[str, Any] = {
    "train_rows": 2,
    "validation_rows": 1,
    "parameters": 64,
    "vectors": ["mean"],
    "diagnostics": {
        "status": "converged",
        "advice": "The measured residual is within the tolerance.",
        "worst_relative_residual": 3e-7,
        "largest_condition_bound": 12.5,
        "iterations": 9,
        "products": 18.0,
        "blocks": [
            {
                "name": f"layer.{number}",
                "rank": 8,
                "long_side": 64,
                "status": "converged",
                "damping": damping,
                "condition_bound": 12.5,
                "relative_residual": 3e-7,
                "iterations": 9,
                "products": 9.0,
                "precision": "float64",
            }
            for number, damping in enumerate((0.001, 0.002))
        ],
        "seconds": {"loading": 1.0, "solving": 0.5, "total": 1.5},
        "peak_memory_bytes": 2**20,
        "cache": {"train": {"hit_rows": 2, "rows": 2}, "validation": {"hit_rows": 0, "rows": 1}},
        "warnings": [],
    },
    "provenance": {
        "base_sha256": "0",
        "adapter_sha256": "0",
        "train_sha256": "0",
        "validation_sha256": "0",
        "gradient_fingerprint": "0",
        "versions": {},
        "attention": "sdpa",
        "token_budget": 4096,
        "device": "cpu",
        "seed": 0,
    },
    "summary": {
        "rows": 2,
        "minimum": -1.5,
        "median": 0.5,
        "maximum": 2.5,
        "share_negative": 0.5,
        "histogram": {"edges": [-1.5, 2.5], "counts": [2]},
        "by_label": [],
        "proponents": ROWS[:1],
        "opponents": ROWS[1:],
    },
}

PROBLEM: dict[str, Any] = {
    "type": "urn:ascribe:problems:invalid-input",
    "title": "Invalid input",
    "status": 422,
    "code": "invalid_input",
    "retryable": False,
    "detail": "1 problem",
    "request_id": "req_1",
    "errors": [{"pointer": "/solver/kind", "code": "solver_curvature_mismatch", "message": "goes with schulz"}],
}


def job(status: str = "queued", **fields: Any) -> dict[str, Any]:
    return {
        "object": "job",
        "id": JOB_ID,
        "status": status,
        "spec": SHOWN_SPEC,
        "created_at": "2026-01-01T00:00:00Z",
        "attempt": 1,
        "result": RESULT if status == "succeeded" else None,
        "error": PROBLEM if status == "failed" else None,
        **fields,
    }


def running(phase: str, fraction: float) -> dict[str, Any]:
    progress = {"phase": phase, "done": int(100 * fraction), "total": 100, "fraction": fraction, "eta_seconds": 61.0}
    return job("running", progress=progress)


def problem(status: int, code: str = "invalid_input", **headers: str) -> httpx.Response:
    return httpx.Response(status, json=PROBLEM | {"status": status, "code": code}, headers=headers)


Reply = httpx.Response | Exception | dict[str, Any]


class FakeApi(httpx.MockTransport):
    """Answers with ``replies`` in turn, the last one for ever; keeps the requests."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(self._answer)
        self.requests: list[httpx.Request] = []
        self._replies = list(replies)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(200, json=reply) if isinstance(reply, dict) else reply

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests if request.content]

    def client(self, **options: Any) -> Client:
        return Client("http://api.test", transport=self, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient("http://api.test", transport=self, **options)

    @property
    def make_client(self) -> Callable[[], Client]:
        return self.client
