"""The rules of results: what can be read when, and the summary."""

from __future__ import annotations

from ascribe.job import Job, JobState
from ascribe.ledger import messages
from ascribe.ledger.base import Ledger
from ascribe.result import Manifest
from service.results.schemas import Bin, DatasetCache, JobSummary, PhaseSeconds


def finished(job_id: str, ledger: Ledger) -> tuple[Job, Manifest]:
    """The job and its result. Raises NotFound, NotReady."""
    job = ledger.get(job_id)
    if job.status is not JobState.SUCCEEDED or job.result is None:
        raise messages.not_ready(job.status)
    return job, job.result


def summary(job_id: str, manifest: Manifest) -> JobSummary:
    """Kept as long as the job's record, longer than the scores."""
    diagnostics, histogram = manifest.diagnostics, manifest.summary.histogram
    bounds = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    return JobSummary(
        **dict(manifest.summary),
        job_id=job_id,
        sign=manifest.sign,
        train_rows=manifest.train_rows,
        validation_rows=manifest.validation_rows,
        parameters=manifest.parameters,
        status=diagnostics.status,
        diagnostics=diagnostics,
        bins=tuple(Bin(lower=lower, upper=upper, count=count) for lower, upper, count in bounds),
        phases=tuple(PhaseSeconds(phase=phase, seconds=seconds) for phase, seconds in diagnostics.seconds.items()),
        cache=tuple(DatasetCache(dataset=name, **use.model_dump()) for name, use in diagnostics.cache.items()),
    )
