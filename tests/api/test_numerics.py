"""What a job tells of its numerics: damping paths, the role of the inverse, spectra, and what `auto` took."""

from __future__ import annotations

from typing import Any

import pytest

from ascribe.result import Candidate, Choice, InverseRole, PathPoint, Spectrum
from ascribe.status import SolveStatus
from tests.api.conftest import Api, problem
from tests.support.handmade import finish

ROWS = 30
FACTORS = (0.1, 0.01)


@pytest.fixture
def path_job(api: Api) -> tuple[str, dict[str, list[float]]]:
    job_id = api.submit(
        damping={"relative": FACTORS}, output={"self_influence": True, "role_of_inverse": {"top_directions": 4}}
    )
    points = tuple(
        PathPoint(
            factor=factor,
            status=SolveStatus.MAX_ITERATIONS if place else SolveStatus.CONVERGED,
            worst_relative_residual=0.25 if place else 1e-7,
            largest_condition_bound=3841.0,
            iterations=9,
            products=18,
            spearman=(1.0, -0.5) if not place else (-0.5, 1.0),
        )
        for place, factor in enumerate(FACTORS)
    )
    return job_id, finish(api.ledger, job_id, rows=ROWS, damping_path=points)


@pytest.mark.parametrize("query", [{}, {"vector": "self_influence"}, {"validation_id": "q1"}])
def test_the_scores_of_every_value_can_be_had(
    api: Api, path_job: tuple[str, dict[str, list[float]]], query: dict[str, Any]
) -> None:
    job_id, vectors = path_job
    name = "validation:0" if "validation_id" in query else query.get("vector", "mean")
    for damping, stored in ((None, name), (0.1, name), (0.01, f"{name}@1")):
        asked = query if damping is None else query | {"damping": damping}
        page = api.client.get(f"/v1/jobs/{job_id}/scores", params=asked).json()
        assert [row["score"] for row in page["data"]] == vectors[stored]
        assert page["damping"] == (damping or 0.1)


def test_one_train_row_at_another_damping(api: Api, path_job: tuple[str, dict[str, list[float]]]) -> None:
    job_id, vectors = path_job
    page = api.client.get(f"/v1/jobs/{job_id}/scores", params={"train_id": "t3", "damping": 0.01}).json()
    assert [row["score"] for row in page["data"]] == [vectors["validation:0@1"][3]]


def test_a_value_that_is_not_on_the_path(api: Api, path_job: tuple[str, Any]) -> None:
    response = api.client.get(f"/v1/jobs/{path_job[0]}/scores?damping=0.02")
    assert "its spec has" in problem(response, 404, "not_found")["detail"]


def test_a_file_says_its_damping_and_how_that_value_was_solved(api: Api, path_job: tuple[str, Any]) -> None:
    import io

    import pyarrow.parquet as pq

    response = api.client.get(f"/v1/jobs/{path_job[0]}/scores?damping=0.01&format=parquet")
    said = pq.read_schema(io.BytesIO(response.content)).metadata
    assert said[b"ascribe.damping"] == b"0.01"
    assert said[b"ascribe.status"] == b"max_iterations"
    assert said[b"ascribe.worst_relative_residual"] == b"0.25"


@pytest.mark.parametrize("vector", ["plain_product", "top_removed"])
def test_rankings_without_an_inverse(api: Api, path_job: tuple[str, dict[str, list[float]]], vector: str) -> None:
    job_id, vectors = path_job
    page = api.client.get(f"/v1/jobs/{job_id}/scores", params={"vector": vector}).json()
    assert [row["score"] for row in page["data"]] == vectors[vector]
    other = api.submit()
    finish(api.ledger, other, rows=ROWS)
    response = api.client.get(f"/v1/jobs/{other}/scores", params={"vector": vector})
    assert "role_of_inverse" in problem(response, 404, "not_found")["detail"]


def test_the_report_draws_the_path(api: Api, path_job: tuple[str, Any]) -> None:
    page = api.client.get(f"/v1/jobs/{path_job[0]}/report").text
    assert "How much the damping matters" in page
    assert page.count("-0.500") == 2
    assert "max iterations" in page
    assert "What the inverse is worth" not in page


def test_the_report_draws_choice_role_and_spectrum(api: Api) -> None:
    job_id = api.submit(solver={"kind": "auto"})
    spectrum = Spectrum(
        trace=1.0, trace_standard_error=0.0, largest=0.5, largest_residual=1e-4, top=(0.5, 0.1, 1e-9), top_error=0.01,
        batch_variance=None, batch_size=None, products=12,
    )  # fmt: skip
    role = InverseRole(
        top_directions=4, with_plain_product=0.123, with_top_removed=0.875, plain_with_top_removed=None,
        rows_with_plain_product=-0.25, rows_with_top_removed=1.0,
    )  # fmt: skip
    choice = Choice(
        pick="cholesky", why="cholesky: 0.4 s predicted", seconds=0.4, bytes=1 << 20,
        candidates=(Candidate(solver="cholesky", seconds=0.4, bytes=1 << 20, feasible=True, reason=None),
                    Candidate(solver="cg", seconds=None, bytes=None, feasible=False, reason="<script>")),
    )  # fmt: skip
    finish(api.ledger, job_id, rows=ROWS, spectrum=spectrum, role_of_inverse=role, choice=choice)
    page = api.client.get(f"/v1/jobs/{job_id}/report").text
    for words in ("cholesky: 0.4 s predicted", "0.123", "0.875", "-0.250", "constant", "The curvature's spectrum"):
        assert words in page
    assert page.count("<polyline") == 4
    assert "<script>" not in page
    body = api.client.get(f"/v1/jobs/{job_id}").json()["result"]["diagnostics"]
    assert body["choice"]["pick"] == "cholesky"
    assert body["blocks"][0]["spectrum"]["top"] == [0.5, 0.1, 1e-9]
