"""The whole OpenAPI document under schemathesis: examples, coverage, fuzzing and stateful links, with every check.

Bounded and seeded, so that it ends in time and tells the same tale twice; ``make fuzz`` takes longer and other seeds.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.fuzzing import run

EXAMPLES, SEED = 4, 1


def test_nothing_in_the_document_fails(tmp_path: Path) -> None:
    outcome = run(tmp_path, examples=EXAMPLES, seed=SEED)

    assert not outcome.problems, "\n\n".join(outcome.problems)
    assert [answer for answer in outcome.answers if answer[1] >= 500] == []
    assert set(outcome.phases.values()) == {"success"}, outcome.phases
    assert outcome.phases.keys() >= {"examples", "coverage", "fuzzing", "stateful"}
    succeeded = {operation for operation, status in outcome.answers if status < 300}
    assert succeeded >= {
        "POST /v1/jobs",
        "POST /v1/jobs:validate",
        "GET /v1/jobs/{job_id}",
        "GET /v1/jobs/{job_id}/scores",
        "GET /v1/jobs/{job_id}/summary",
        "GET /v1/jobs/{job_id}/report",
        "GET /v1/jobs/{job_id}/events",
        "DELETE /v1/jobs/{job_id}",
        "GET /v1/limits",
    }, "links lead to finished jobs"
