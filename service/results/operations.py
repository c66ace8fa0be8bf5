"""The rules of results: what can be read when, in which order, page by page."""

from __future__ import annotations

import base64
import binascii
import zlib

from ascribe.errors import NotFound
from ascribe.job import Job, JobState
from ascribe.ledger import messages
from ascribe.ledger.base import Ledger
from ascribe.result import (
    MEAN,
    SELF_INFLUENCE,
    SIGN,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    Manifest,
    ScoredRow,
    validation_vector,
)
from service.errors import BadCursor
from service.results.schemas import Bin, DatasetCache, JobSummary, PhaseSeconds, ScorePage, ScoresQuery
from service.results.vectors import find_row, read_rows, read_vector, top

_SIGNS = {
    MEAN: SIGN,
    SELF_INFLUENCE: "never negative; high: the model's fit of this row rests on the row itself (rare or mislabelled)",
    TRAIN_LOSS: "loss of the train row under the model; high: the model disagrees with its label",
}


def finished(job_id: str, ledger: Ledger) -> tuple[Job, Manifest]:
    """The job and its result. Raises NotFound, NotReady."""
    job = ledger.get(job_id)
    if job.status is not JobState.SUCCEEDED or job.result is None:
        raise messages.not_ready(job.status)
    return job, job.result


def score_page(job_id: str, query: ScoresQuery, ledger: Ledger) -> ScorePage:
    """One page of scores. Raises NotFound, NotReady, Expired, BadCursor."""
    job, manifest = finished(job_id, ledger)
    name = _vector_name(job, manifest, query, ledger)
    scores = read_vector(ledger, job_id, name)
    order = query.effective_order
    cursor = _Cursor(name, order)
    total = min(len(scores), query.top_k or len(scores))
    start = cursor.decode(query.after) if query.after is not None else 0
    stop = min(start + query.limit, total)
    indices = range(start, stop) if order == "row" else top(scores, stop, lowest=order == "opponents")[start:]
    rows = read_rows(ledger, job_id, TRAIN_ROWS, set(indices))
    return ScorePage(
        job_id=job_id,
        vector=query.vector if query.validation_id is None else "validation_row",
        validation_id=query.validation_id,
        order=order,
        sign=_SIGNS.get(name, SIGN),
        data=tuple(ScoredRow(index=i, score=scores[i], **rows[i].model_dump()) for i in indices),
        has_more=stop < total,
        next_after=cursor.encode(stop) if stop < total else None,
    )


def summary(job_id: str, ledger: Ledger) -> JobSummary:
    """Kept as long as the job's record, longer than the scores."""
    _, manifest = finished(job_id, ledger)
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


def _vector_name(job: Job, manifest: Manifest, query: ScoresQuery, ledger: Ledger) -> str:
    if query.validation_id is None:
        if query.vector not in manifest.vectors:
            raise NotFound(
                "This job stored no such scores: submit it again with output.self_influence, its gradients are cached."
            )
        return query.vector
    if not job.spec.output.per_validation_row:
        raise NotFound(
            "This job stored the mean alone: submit it again with output.per_validation_row, its gradients are cached."
        )
    index = find_row(ledger, job.id, VALIDATION_ROWS, query.validation_id)
    if index is None:
        raise NotFound(
            "The job has no validation row with this id: ids are the rows' own, or numbers from 0 where they have none."
        )
    return validation_vector(index)


class _Cursor:
    """A position in one vector in one order, sealed so that it is refused in another."""

    def __init__(self, vector: str, order: str) -> None:
        self._seal = zlib.crc32(f"{vector}\n{order}".encode())

    def encode(self, position: int) -> str:
        return base64.urlsafe_b64encode(f"{position}.{self._seal}".encode()).decode().rstrip("=")

    def decode(self, text: str) -> int:
        """Raises BadCursor."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
            position, seal = map(int, raw.split("."))
        except (ValueError, binascii.Error):
            position, seal = -1, -1
        if position < 0 or seal != self._seal:
            raise BadCursor("'after' must be the next_after of a page of the same scores in the same order.")
        return position
