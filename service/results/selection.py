"""From a query to the table it selects."""

from __future__ import annotations

from ascribe.errors import NotFound
from ascribe.job import Job
from ascribe.ledger.base import Ledger
from ascribe.result import (
    MEAN,
    SELF_INFLUENCE,
    SIGN,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    Manifest,
    validation_vector,
)
from service.results.schemas import ScoresQuery
from service.results.table import Scored, Table
from service.results.vectors import StoredScores, find_row, iterate_rows, scores_of_row

_SIGNS = {
    MEAN: SIGN,
    SELF_INFLUENCE: "never negative; high: the model's fit of this row rests on the row itself (rare or mislabelled)",
    TRAIN_LOSS: "loss of the train row under the model; high: the model disagrees with its label",
}


def select(job: Job, manifest: Manifest, query: ScoresQuery, ledger: Ledger) -> Table:
    """Raises NotFound, Expired."""
    scored = _scored(job, manifest, query, ledger)
    return Table(
        ledger=ledger,
        job=job,
        manifest=manifest,
        scored=scored,
        validation_id=query.validation_id,
        train_id=query.train_id,
        order=query.effective_order,
        sign=_SIGNS.get(scored.key, SIGN),
        total=min(scored.length, query.top_k or scored.length),
    )


def _scored(job: Job, manifest: Manifest, query: ScoresQuery, ledger: Ledger) -> Scored:
    """The four kinds of scores: one stored vector, that of a validation row, all of these, one train row of them."""
    if query.train_id is not None:
        names = _validation_vectors(job, manifest)
        index = _index(ledger, job, TRAIN_ROWS, query.train_id)
        scores = scores_of_row(ledger, job.id, names, index)
        return Scored("train_row", f"train:{index}", VALIDATION_ROWS, manifest.validation_rows, scores)
    if query.validation_id is not None:
        names = _validation_vectors(job, manifest)
        name = names[_index(ledger, job, VALIDATION_ROWS, query.validation_id)]
        return Scored("validation_row", name, TRAIN_ROWS, manifest.train_rows, StoredScores(ledger, job.id, [name]))
    if query.vector == "all":
        names = _validation_vectors(job, manifest)
        ids = [row.id for row in iterate_rows(ledger, job.id, VALIDATION_ROWS)]
        return Scored("all", "all", TRAIN_ROWS, manifest.train_rows, StoredScores(ledger, job.id, names), ids)
    if query.vector not in manifest.vectors:
        raise NotFound(
            "This job stored no such scores: submit it again with output.self_influence, its gradients are cached."
        )
    stored = StoredScores(ledger, job.id, [query.vector])
    return Scored(query.vector, query.vector, TRAIN_ROWS, manifest.train_rows, stored)


def _validation_vectors(job: Job, manifest: Manifest) -> list[str]:
    if not job.spec.output.per_validation_row:
        raise NotFound(
            "This job stored the mean alone: submit it again with output.per_validation_row, its gradients are cached."
        )
    return [validation_vector(index) for index in range(manifest.validation_rows)]


def _index(ledger: Ledger, job: Job, rows_name: str, row_id: str) -> int:
    index = find_row(ledger, job.id, rows_name, row_id)
    if index is None:
        kind = "train" if rows_name == TRAIN_ROWS else "validation"
        raise NotFound(
            f"The job has no {kind} row with this id: ids are the rows' own, or numbers from 0 where they have none."
        )
    return index
