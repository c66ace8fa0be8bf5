"""/metrics: the names of the document, figures of the ledger at the time of the scrape, labels nobody can invent."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ascribe.errors import QueueUnavailable
from ascribe.job import JobState
from ascribe.ledger.base import Counts, Policy, WorkerInfo
from ascribe.ledger.memory import MemoryLedger
from tests.api.conftest import Api, StartService, problem
from tests.support.handmade import finish
from tests.support.ledger import ERROR, claim

NAMES = {
    "ascribe_http_request_duration_seconds": {"method", "route", "status"},
    "ascribe_jobs": {"status"},
    "ascribe_jobs_finished": {"solver", "status"},
    "ascribe_job_duration_seconds": {"solver", "phase"},
    "ascribe_queue_depth": {"queue"},
    "ascribe_queue_oldest_seconds": {"queue"},
    "ascribe_queue_demand": {"queue"},
    "ascribe_lease_lost": set(),
    "ascribe_handed_back": set(),
    "ascribe_solver_relative_residual": {"solver"},
    "ascribe_gradient_cache_hits": set(),
    "ascribe_gradient_cache_rows": set(),
    "ascribe_workers": {"queue"},
    "ascribe_up": set(),
}


class Scrape:
    """One reading, as Prometheus' own parser takes it."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]


def scrape(api: Api) -> Scrape:
    response = api.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Scrape(response.text)


def test_every_name_of_the_document_is_there_with_its_labels(api: Api) -> None:
    finish(api.ledger, api.submit())
    found = scrape(api).families
    for name, labels in NAMES.items():
        given = {label for sample in found[name].samples for label in sample.labels} - {"le"}
        assert given == labels, name
    ours = {name for name in found if not name.endswith("_created")}
    assert ours == set(NAMES)


def test_the_figures_are_those_of_the_ledger(api: Api) -> None:
    done, failed, _ = api.submit(), api.submit(), api.submit()
    finish(api.ledger, done)
    api.ledger.fail(claim(api.ledger, failed), ERROR)
    read = scrape(api)

    assert {s.value: read("ascribe_jobs", status=s) for s in JobState} == {
        "queued": 1,
        "running": 0,
        "cancelling": 0,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert read("ascribe_queue_depth", queue="cpu") == 1
    assert 0 < read("ascribe_queue_oldest_seconds", queue="cpu") < 60
    assert read("ascribe_jobs_finished_total", solver="schulz", status="succeeded") == 1
    assert read("ascribe_jobs_finished_total", solver="schulz", status="failed") == 1
    assert read("ascribe_lease_lost_total") == 0
    job = api.ledger.get(done)
    assert job.result is not None
    total = job.result.diagnostics.seconds["total"]
    assert read("ascribe_job_duration_seconds_sum", solver="schulz", phase="total") == pytest.approx(total)
    assert read("ascribe_solver_relative_residual_count", solver="schulz") == 1
    hits = sum(use.hit_rows for use in job.result.diagnostics.cache.values())
    assert read("ascribe_gradient_cache_hits_total") == hits
    assert read("ascribe_up") == 1


def test_each_queue_has_figures_of_its_own(api: Api) -> None:
    api.submit()
    waiting, running, back = (api.submit(queue="gpu") for _ in range(3))
    claim(api.ledger, running)
    api.ledger.hand_back(claim(api.ledger, back))
    for worker, queue in (("w1", "gpu"), ("w2", "gpu")):
        api.ledger.register_worker(WorkerInfo(worker, queue, {}, "sdpa", 4096, 256, "cuda:0", "env"), 60)
    read = scrape(api)

    def figures(queue: str) -> list[float]:
        names = ("ascribe_queue_depth", "ascribe_queue_demand", "ascribe_workers")
        return [read(name, queue=queue) for name in names]

    assert figures("gpu") == [2, 3, 2]
    assert figures("cpu") == [1, 1, 0]
    assert read("ascribe_queue_oldest_seconds", queue="gpu") > 0
    assert read("ascribe_handed_back_total") == 1
    assert api.ledger.get(waiting).status is JobState.QUEUED


def test_requests_are_measured_under_their_route(api: Api) -> None:
    api.submit()
    for path in ("/v1/jobs/job_" + "0" * 32, "/v1/jobs/nonsense", "/v1/nowhere", "/v1/nowhere/else"):
        assert api.client.get(path).status_code == 404
    api.client.request("BREW", "/v1/jobs")
    read = scrape(api)

    def count(method: str, route: str, status: int) -> float:
        return read("ascribe_http_request_duration_seconds_count", method=method, route=route, status=str(status))

    assert count("POST", "/v1/jobs", 202) == 1
    assert count("GET", "/v1/jobs/{job_id}", 404) == 2
    assert count("GET", "none", 404) == 2
    routes = {dict(labels).get("route") for _, labels in read.samples}
    assert not any("nonsense" in (route or "") for route in routes)
    methods = {dict(labels).get("method") for _, labels in read.samples}
    assert "BREW" not in methods
    assert "other" in methods


def test_without_the_ledger_requests_are_still_told(start: StartService) -> None:
    class Gone(MemoryLedger):
        def counts(self) -> Counts:
            raise QueueUnavailable("Redis does not answer.")

    client = start(Gone(Policy()))
    client.get("/healthz")
    read = Scrape(client.get("/metrics").text)
    assert read("ascribe_up") == 0
    assert read("ascribe_http_request_duration_seconds_count", method="GET", route="/healthz", status="200") == 1
    assert "ascribe_jobs" not in read.families


def test_two_applications_of_a_process_share_nothing(start: StartService) -> None:
    first, second = start(), start()
    first.get("/healthz")
    assert "/healthz" in first.get("/metrics").text
    assert "/healthz" not in second.get("/metrics").text


def test_metrics_ask_for_the_key(start: StartService) -> None:
    client = start(api_key="k" * 32)
    problem(client.get("/metrics"), 401, "unauthorized")
    assert client.get("/metrics", headers={"Authorization": "Bearer " + "k" * 32}).status_code == 200
