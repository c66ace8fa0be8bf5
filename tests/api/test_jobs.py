"""Submitting, replaying, listing, cancelling, deleting, dry runs."""

from __future__ import annotations

import time

import pytest

from ascribe.fingerprint import gradient_fingerprint
from ascribe.ledger.base import Ring, WorkerInfo
from ascribe.settings import Settings
from ascribe.sources.checkpoints import inspect_checkpoint
from ascribe.sources.rows import Labels, read_rows
from ascribe.spec import JobSpec
from tests.api.conftest import TRAIN_ROWS, Api, problem
from tests.support.handmade import BLOCKS, HIDDEN, LABELS, RANK, finish, spec_body

NO_JOB = "job_" + "0" * 32
PARAMETERS = BLOCKS * RANK * HIDDEN


def test_submit(api: Api) -> None:
    response = api.post()
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert response.headers["retry-after"] == "1"
    assert job["status"] == "queued"
    assert job["spec"]["damping"] == {"relative": 1.0}, "the default is filled in and stored"
    assert api.client.get(response.headers["location"]).json() == job


def test_the_bell_is_rung_soon(api: Api) -> None:
    job_id = api.submit()
    deadline = time.monotonic() + 5
    while not api.doorbell.rings and time.monotonic() < deadline:
        time.sleep(0.01)
    assert api.doorbell.rings == [Ring(job_id, 1)]


def test_idempotency_key_replays_the_job_in_its_present_state(api: Api) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = api.client.post("/v1/jobs", json=spec_body(), headers=headers)
    finish(api.ledger, first.json()["id"])
    # Spelling out a default is the same request.
    again = api.client.post("/v1/jobs", json=spec_body(seed=0), headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "succeeded"
    assert "retry-after" not in again.headers


def test_a_replay_is_answered_when_the_files_are_gone(api: Api) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = api.client.post("/v1/jobs", json=spec_body(), headers=headers)
    (api.root / "topics" / "train.jsonl").unlink()
    again = api.client.post("/v1/jobs", json=spec_body(), headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    problem(api.client.post("/v1/jobs", json=spec_body()), 422, "invalid_input")


def test_idempotency_key_with_another_body(api: Api) -> None:
    headers = {"Idempotency-Key": "key-1"}
    api.client.post("/v1/jobs", json=spec_body(), headers=headers)
    problem(api.client.post("/v1/jobs", json=spec_body(seed=1), headers=headers), 422, "idempotency_key_reused")


def test_a_refused_spec_is_not_remembered(api: Api) -> None:
    headers = {"Idempotency-Key": "key-1"}
    assert api.client.post("/v1/jobs", json=spec_body(seed=-1), headers=headers).status_code == 422
    assert api.client.post("/v1/jobs", json=spec_body(), headers=headers).status_code == 202


def test_list_pages_newest_first(api: Api) -> None:
    ids = [api.submit() for _ in range(5)][::-1]
    page = api.client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["data"]] == ids[:2]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[1], True)
    rest = api.client.get("/v1/jobs", params={"limit": 100, "after": page["last_id"]}).json()
    assert [job["id"] for job in rest["data"]] == ids[2:]
    assert rest["has_more"] is False


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "queued"}, 2),
        ({"status": "failed"}, 0),
        ({"model": "topics-lora"}, 2),
        ({"model": "other"}, 0),
        ({"label.team": "support"}, 1),
        ({"label.team": "support", "label.more": "x"}, 0),
    ],
)
def test_list_filters(api: Api, query: dict[str, str], found: int) -> None:
    api.submit()
    api.submit(labels={})
    page = api.client.get("/v1/jobs", params=query).json()
    assert len(page["data"]) == found
    assert (page["first_id"] is None) == (found == 0)


def test_list_refuses_a_cursor_that_is_none(api: Api) -> None:
    problem(api.client.get("/v1/jobs?after=nonsense"), 400, "bad_cursor")


@pytest.mark.parametrize("query", ["limit=101", "limit=0", "status=done", "stat=queued"])
def test_list_refuses_a_wrong_query(api: Api, query: str) -> None:
    problem(api.client.get(f"/v1/jobs?{query}"), 422, "invalid_input")


def test_cancel_is_idempotent(api: Api) -> None:
    job_id = api.submit()
    for _ in range(2):
        response = api.client.post(f"/v1/jobs/{job_id}:cancel")
        assert response.status_code == 202
        assert response.json()["status"] == "cancelled"
        assert "retry-after" not in response.headers


def test_delete_wants_an_ended_job(api: Api) -> None:
    job_id = api.submit()
    problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "conflict")
    api.client.post(f"/v1/jobs/{job_id}:cancel")
    deleted = api.client.delete(f"/v1/jobs/{job_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(api.client.get(f"/v1/jobs/{job_id}"), 404, "not_found")


@pytest.mark.parametrize("job_id", [NO_JOB, "job_1", f"{NO_JOB}:cancel", "%00", f"{NO_JOB}%0a"])
@pytest.mark.parametrize("suffix", ["", "/scores", "/summary", "/report"])
def test_no_such_job(api: Api, job_id: str, suffix: str) -> None:
    problem(api.client.get(f"/v1/jobs/{job_id}{suffix}"), 404, "not_found")


def test_validate_says_what_would_run(api: Api) -> None:
    body = api.client.post("/v1/jobs:validate", json=spec_body(output={"self_influence": True})).json()
    assert body["train"] == {"rows": TRAIN_ROWS, "gradient_bytes": TRAIN_ROWS * PARAMETERS * 4, "cached_rows": None}
    assert body["parameters"] == PARAMETERS
    assert {(block["rank"], block["long_side"]) for block in body["blocks"]} == {(RANK, HIDDEN)}
    assert body["vectors"] == 4
    assert body["cells"] == 4 * TRAIN_ROWS
    assert body["plan"]["damping"] == {"relative": 1.0}
    assert body["plan"]["exact"] is True
    assert body["labels"] == list(LABELS)
    assert body["workers"] == 0
    assert "no worker of the queue 'cpu' is alive: the job would wait until one comes" in body["warnings"]
    assert api.client.get("/v1/jobs").json()["data"] == [], "nothing was recorded"


def test_validate_says_what_memory_and_disk_it_would_take(api: Api) -> None:
    body = api.client.post("/v1/jobs:validate", json=spec_body()).json()
    memory = body["memory"]
    assert 300 << 20 < memory["least_bytes"] <= memory["needed_bytes"] <= memory["peak_bytes"] < 1 << 30
    assert memory["parts"]["shard of gradients"] == TRAIN_ROWS * PARAMETERS * 4
    assert body["disk_bytes"] > body["gradient_bytes"], "curvature and solution come on top"
    assert api.client.post("/v1/jobs:validate", json=spec_body(queue="gpu")).json()["memory"] is None


def test_validate_reads_the_rows_of_files(api: Api) -> None:
    path = api.root / "topics" / "train.jsonl"
    path.write_text(path.read_text() + '{"id": "x", "text": "no label"}\n')
    response = api.client.post("/v1/jobs:validate", json=spec_body())
    problem(response, 422, "missing_label", f"/train/source/rows/{TRAIN_ROWS}/label")
    assert api.post().status_code == 202, "submitting leaves the reading of files to the worker"


def test_validate_predicts_cache_hits(api: Api) -> None:
    worker = WorkerInfo(
        worker="w1",
        queue="cpu",
        versions={"torch": "2", "transformers": "5", "peft": "0", "tokenizers": "0"},
        attention="sdpa",
        token_budget=4096,
        shard_rows=256,
        device="cpu",
        environment="env",
    )
    api.ledger.register_worker(worker, ttl_seconds=60)
    assert _cached(api) == (0, 0)
    spec = JobSpec.model_validate(spec_body())
    checkpoint = inspect_checkpoint(api.root, spec.model, spec.parameters)
    rows = read_rows(Settings(data_root=api.root), spec.train, "/train", Labels(3, LABELS))
    key = gradient_fingerprint(
        base_sha256=checkpoint.base_sha256(),
        adapter_sha256=checkpoint.adapter_sha256(),
        rows_sha256=rows.sha256,
        max_length=spec.model.max_length,
        dtype=spec.model.dtype,
        blocks=checkpoint.block_names,
        attention=worker.attention,
        token_budget=worker.token_budget,
        shard_rows=worker.shard_rows,
        device=worker.device,
        versions=worker.versions,
    )
    api.ledger.announce_gradients(key, TRAIN_ROWS)
    assert _cached(api) == (TRAIN_ROWS, 0)
    elsewhere = api.client.post("/v1/jobs:validate", json=spec_body(queue="gpu")).json()
    assert (elsewhere["workers"], elsewhere["train"]["cached_rows"]) == (0, None)
    assert any("'gpu'" in warning for warning in elsewhere["warnings"])


def _cached(api: Api) -> tuple[int, int]:
    body = api.client.post("/v1/jobs:validate", json=spec_body()).json()
    return body["train"]["cached_rows"], body["validation"]["cached_rows"]


def test_gradients_that_are_not_kept_take_no_disk(api: Api) -> None:
    body = spec_body(gradients="recomputed")
    plan = api.client.post("/v1/jobs:validate", json=body).json()
    assert plan["train"]["gradient_bytes"] == 0
    assert plan["gradient_bytes"] == plan["validation"]["gradient_bytes"] > 0
    whole = api.client.post("/v1/jobs:validate", json=spec_body()).json()
    small = api.client.post("/v1/jobs:validate", json=spec_body(parameters={"projection": {"long_side": 4}})).json()
    assert small["gradient_bytes"] == whole["gradient_bytes"] // 2
