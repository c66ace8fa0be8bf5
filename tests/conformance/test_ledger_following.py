"""What a ledger tells those who follow its jobs: events, pulses, revisions, counts. On memory and on a real server."""

from __future__ import annotations

import math
from itertools import pairwise

from ascribe.event import MAX_EVENTS
from ascribe.job import JobState, Phase
from ascribe.ledger import totals
from ascribe.ledger.base import JobFilter, Ledger, Policy, Pulse
from ascribe.ledger.ids import new_job_id
from ascribe.result import CacheUse
from tests.conformance.conftest import MakeBench
from tests.support.ledger import (
    ERROR,
    LEASE_SECONDS,
    PROGRESS,
    Bench,
    claim,
    create,
    manifest,
    running,
    spec,
    succeed,
)


def steps(ledger: Ledger, job_id: str) -> list[tuple[str, int]]:
    return [(event.type.value, event.attempt) for event in ledger.events(job_id)]


# -- events ---------------------------------------------------------------------------------------------------


def test_each_step_of_a_job_is_an_event(ledger: Ledger) -> None:
    owner = running(ledger)
    scoring = PROGRESS.model_copy(update={"phase": Phase.SCORING})
    for progress in (PROGRESS, PROGRESS, scoring, scoring):
        ledger.progress(owner, progress)
    ledger.renew(owner)
    succeed(ledger, owner)
    ledger.commit(owner, manifest())

    events = ledger.events(owner.job_id)
    assert [event.type for event in events] == ["created", "started", "phase", "phase", "succeeded"]
    assert [event.id for event in events] == [1, 2, 3, 4, 5]
    assert [event.phase for event in events if event.phase] == [Phase.SOLVING, Phase.SCORING]
    assert {event.job_id for event in events} == {owner.job_id}
    times = [event.created_at for event in events]
    job = ledger.get(owner.job_id)
    assert times == sorted(times)
    assert (times[0], times[1], times[-1]) == (job.created_at, job.started_at, job.finished_at)


def test_events_go_on_after_the_last_one_seen(ledger: Ledger) -> None:
    owner = running(ledger)
    ledger.request_cancel(owner.job_id)
    ledger.cancelled(owner)

    assert [event.id for event in ledger.events(owner.job_id, after=2)] == [3, 4]
    assert [event.id for event in ledger.events(owner.job_id, after=1, limit=2)] == [2, 3]
    assert ledger.events(owner.job_id, after=4) == []
    assert ledger.events(owner.job_id, after=2**53) == []


def test_cancelling_and_failing_are_events(ledger: Ledger) -> None:
    queued, cancelled, failed = create(ledger), running(ledger), running(ledger)
    for job_id in (queued, cancelled.job_id, cancelled.job_id):
        ledger.request_cancel(job_id)
    ledger.commit(cancelled, manifest())
    ledger.fail(failed, ERROR)

    assert steps(ledger, queued) == [("created", 1), ("cancelled", 1)]
    assert steps(ledger, cancelled.job_id)[2:] == [("cancel_requested", 1), ("cancelled", 1)]
    last = ledger.events(failed.job_id)[-1]
    assert (last.type, last.code) == ("failed", ERROR.code)
    assert "internal error" in last.message


def test_a_lost_lease_is_an_event_of_the_attempt_that_lost_it(make_bench: MakeBench) -> None:
    bench = make_bench(Policy(lease_seconds=LEASE_SECONDS, max_attempts=2, retry_backoff_seconds=0))
    job_id = create(bench.ledger)
    for attempt in (1, 2):
        owner = claim(bench.ledger, job_id, attempt)
        bench.ledger.progress(owner, PROGRESS)
        bench.advance(LEASE_SECONDS)
        bench.ledger.reconcile()

    assert steps(bench.ledger, job_id) == [
        ("created", 1),
        ("started", 1),
        ("phase", 1),
        ("lease_lost", 1),
        ("requeued", 2),
        ("started", 2),
        ("phase", 2),
        ("lease_lost", 2),
        ("failed", 2),
    ]
    assert bench.ledger.events(job_id)[-1].code == "worker_lost"


def test_only_the_latest_events_are_kept(ledger: Ledger) -> None:
    owner = running(ledger)
    phases = list(Phase)
    for number in range(MAX_EVENTS + 10):
        ledger.progress(owner, PROGRESS.model_copy(update={"phase": phases[number % 2]}))

    kept = ledger.events(owner.job_id, limit=2 * MAX_EVENTS)
    assert [event.id for event in kept] == list(range(13, MAX_EVENTS + 13))


# -- pulses and revisions -------------------------------------------------------------------------------------


def test_a_pulse_moves_with_every_change_and_with_nothing_else(bench: Bench) -> None:
    ledger = bench.ledger
    job_id = create(ledger)
    seen: list[Pulse] = []

    def beat() -> Pulse:
        (pulse,) = ledger.pulses([job_id])
        assert pulse is not None
        assert pulse.revision == ledger.get(job_id).revision
        seen.append(pulse)
        return pulse

    assert beat().status == JobState.QUEUED
    owner = claim(ledger, job_id)
    assert beat().status == JobState.RUNNING
    ledger.progress(owner, PROGRESS)
    first = beat()
    ledger.progress(owner, PROGRESS.model_copy(update={"done": 2}))
    assert beat().events == first.events, "the same phase is no new event"
    still = beat().revision
    ledger.renew(owner)
    ledger.stage(owner, "mean", [b"1234"])
    ledger.reconcile()
    assert seen.pop().revision == beat().revision == still
    seen.pop()
    ledger.request_cancel(job_id)
    assert beat().status == JobState.CANCELLING
    ledger.cancelled(owner)
    assert beat().status == JobState.CANCELLED
    assert all(a.revision < b.revision for a, b in pairwise(seen))


def test_a_job_that_is_gone_has_no_pulse(ledger: Ledger) -> None:
    job_id, gone = create(ledger), new_job_id()

    here, nothing = ledger.pulses([job_id, gone])

    assert here == Pulse(JobState.QUEUED, 1, 1)
    assert nothing is None
    assert list(ledger.pulses([])) == []


# -- inline rows ----------------------------------------------------------------------------------------------


def test_a_record_counts_inline_rows_and_the_spec_has_them(ledger: Ledger) -> None:
    rows = [{"text": f"row {number}", "label": 0} for number in range(50)]
    asked = spec(train={"source": {"kind": "inline", "rows": rows}})
    job_id = create(ledger, asked)

    seen = ledger.get(job_id).spec.train.source

    assert seen.kind == "inline"
    assert (seen.rows, seen.row_count) == ((), 50)
    assert ledger.list(JobFilter()).jobs[0].spec.train.source == seen
    assert ledger.spec(job_id) == asked
    assert claim(ledger, job_id).spec == asked


# -- counts ---------------------------------------------------------------------------------------------------


def test_jobs_are_counted_by_state(ledger: Ledger) -> None:
    assert set(ledger.counts().jobs.values()) == {0}
    create(ledger)
    done, failed, gone = running(ledger), running(ledger), running(ledger)
    running(ledger)
    succeed(ledger, done)
    ledger.fail(failed, ERROR)
    ledger.fail(gone, ERROR)
    ledger.delete(gone.job_id)

    jobs = ledger.counts().jobs

    assert jobs == {status: int(status in ("queued", "running", "succeeded", "failed")) for status in JobState}


def oldest(ledger: Ledger) -> float:
    return ledger.counts().queues["cpu"].oldest_queued_seconds


def test_the_oldest_queued_job_is_known(bench: Bench) -> None:
    assert oldest(bench.ledger) == 0
    first, second = create(bench.ledger), create(bench.ledger)
    bench.advance(LEASE_SECONDS)
    assert LEASE_SECONDS <= oldest(bench.ledger) < 10 * LEASE_SECONDS

    claim(bench.ledger, first)
    bench.ledger.request_cancel(second)
    assert oldest(bench.ledger) == 0
    bench.advance(LEASE_SECONDS)
    bench.ledger.reconcile()
    assert oldest(bench.ledger) < LEASE_SECONDS, "queued again is queued anew"


def test_ended_jobs_are_counted_once_and_for_good(bench: Bench) -> None:
    ledger = bench.ledger
    done, failed = running(ledger), running(ledger)
    for _ in range(2):
        ledger.commit(done, manifest())
        ledger.fail(failed, ERROR)
    ledger.request_cancel(create(ledger))
    lost = running(ledger)
    bench.advance(LEASE_SECONDS)
    ledger.reconcile()
    ledger.request_cancel(lost.job_id)
    ledger.delete(done.job_id)

    found = ledger.counts().totals

    assert dict(totals.labelled(found, totals.FINISHED)) == {
        ("schulz", "succeeded"): 1,
        ("schulz", "failed"): 1,
        ("schulz", "cancelled"): 2,
    }
    assert found[totals.LEASE_LOST] == 1


def test_a_result_adds_its_figures_and_a_discarded_one_does_not(ledger: Ledger) -> None:
    plain = manifest()
    diagnostics = plain.diagnostics.model_copy(
        update={
            "seconds": {"solving": 0.05, "total": 40000.0},
            "worst_relative_residual": 3e-9,
            "cache": {"train": CacheUse(hit_rows=3, rows=4), "validation": CacheUse(hit_rows=0, rows=2)},
        }
    )
    for _ in range(2):
        ledger.commit(running(ledger), plain.model_copy(update={"diagnostics": diagnostics}))
    cancelled = running(ledger)
    ledger.request_cancel(cancelled.job_id)
    ledger.commit(cancelled, plain)

    found = ledger.counts().totals

    assert (found[totals.CACHE_HITS], found[totals.CACHE_ROWS]) == (6, 12)
    solving, total = totals.histograms(found, totals.PHASE_SECONDS, totals.SECONDS_BOUNDS)
    assert (solving.labels, total.labels) == (("schulz", "solving"), ("schulz", "total"))
    assert (dict(solving.buckets)[0.1], solving.total) == (2, 0.1)
    assert (dict(total.buckets)[30000.0], dict(total.buckets)[math.inf]) == (0, 2)
    (residual,) = totals.histograms(found, totals.RESIDUAL, totals.RESIDUAL_BOUNDS)
    assert (dict(residual.buckets)[1e-10], dict(residual.buckets)[1e-8]) == (0, 2)
