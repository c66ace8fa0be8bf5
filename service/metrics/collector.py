"""Metrics of jobs, asked of the ledger when they are scraped: every process of the service answers the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ascribe.errors import QueueUnavailable
from ascribe.ledger import totals
from ascribe.ledger.base import Counts, Ledger, WorkerInfo


class LedgerCollector(Collector):
    """Without the ledger there is ``ascribe_up 0`` and nothing else: a gauge of last time would be a lie."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        try:
            counts, workers = self._ledger.counts(), self._ledger.workers()
        except QueueUnavailable:
            yield GaugeMetricFamily("ascribe_up", _UP, value=0)
            return
        yield GaugeMetricFamily("ascribe_up", _UP, value=1)
        yield from _gauges(counts)
        yield _workers(counts, workers)
        yield from _counters(counts)
        yield _histogram(
            "ascribe_job_duration_seconds",
            "Seconds that succeeded jobs spent in each phase, and in all ('total').",
            ["solver", "phase"],
            totals.histograms(counts.totals, totals.PHASE_SECONDS, totals.SECONDS_BOUNDS),
        )
        yield _histogram(
            "ascribe_solver_relative_residual",
            "Largest measured ||A x - v|| / ||v|| of each succeeded job.",
            ["solver"],
            totals.histograms(counts.totals, totals.RESIDUAL, totals.RESIDUAL_BOUNDS),
        )


_UP = "Whether the ledger answers: 1, or 0."


def _gauges(counts: Counts) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("ascribe_jobs", "Records of jobs in each state.", labels=["status"])
    for status, count in counts.jobs.items():
        jobs.add_metric([status], count)
    yield jobs
    depth = GaugeMetricFamily("ascribe_queue_depth", "Jobs that wait for a worker.", labels=["queue"])
    oldest = GaugeMetricFamily("ascribe_queue_oldest_seconds", "How long the first of them has.", labels=["queue"])
    demand = GaugeMetricFamily(
        "ascribe_queue_demand", "Jobs that wait or run: workers the queue could keep busy.", labels=["queue"]
    )
    for queue, found in counts.queues.items():
        depth.add_metric([queue], found.queued)
        oldest.add_metric([queue], found.oldest_queued_seconds)
        demand.add_metric([queue], found.queued + found.running)
    yield from (depth, oldest, demand)


def _workers(counts: Counts, workers: Sequence[WorkerInfo]) -> Metric:
    family = GaugeMetricFamily("ascribe_workers", "Live workers.", labels=["queue"])
    found = Counter(info.queue for info in workers)
    for queue in counts.queues:
        family.add_metric([queue], found[queue])
    return family


def _counters(counts: Counts) -> Iterator[Metric]:
    finished = CounterMetricFamily("ascribe_jobs_finished", "Jobs that ended.", labels=["solver", "status"])
    for labels, count in totals.labelled(counts.totals, totals.FINISHED):
        finished.add_metric(labels, count)
    yield finished
    for name, says, total in (
        ("ascribe_lease_lost", "Attempts whose worker went silent.", totals.LEASE_LOST),
        ("ascribe_handed_back", "Attempts whose worker was told to stop.", totals.HANDED_BACK),
        ("ascribe_gradient_cache_hits", "Rows whose gradients succeeded jobs found cached.", totals.CACHE_HITS),
        ("ascribe_gradient_cache_rows", "Rows whose gradients succeeded jobs wanted.", totals.CACHE_ROWS),
    ):
        yield CounterMetricFamily(name, says, value=counts.totals.get(total, 0))


def _histogram(name: str, says: str, labels: list[str], found: Iterator[totals.Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, says, labels=labels)
    for one in found:
        # The library's own way to write a bound, +Inf among them; it has no annotations.
        buckets = [(floatToGoString(bound), count) for bound, count in one.buckets]  # type: ignore[no-untyped-call]
        family.add_metric(one.labels, buckets, one.total)
    return family
