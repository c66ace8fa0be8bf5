"""From a query to the table it selects."""

from __future__ import annotations

from dataclasses import replace

from ascribe.errors import NotFound
from ascribe.job import Job
from ascribe.ledger.base import Ledger
from ascribe.result import (
    MEAN,
    PLAIN_PRODUCT,
    SELF_INFLUENCE,
    SIGN,
    TOP_REMOVED,
    TRAIN_LOSS,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    Manifest,
    at_damping,
    token_rows,
    token_vector,
    validation_vector,
)
from ascribe.store.remote import Remote
from service.results.schemas import ScoresQuery
from service.results.table import Scored, Table
from service.results.vectors import RelativeScores, Vectors, find_row, iterate_rows, scores_of_row

_SIGNS = {
    MEAN: SIGN,
    SELF_INFLUENCE: "never negative; high: the model's fit of this row rests on the row itself (rare or mislabelled)",
    TRAIN_LOSS: "loss of the train row under the model; high: the model disagrees with its label",
}


def select(job: Job, manifest: Manifest, query: ScoresQuery, ledger: Ledger, files: Remote) -> Table:
    """Raises NotFound, Expired."""
    place, factor = _on_the_path(job, query.damping)
    vectors = Vectors(ledger, job.id, manifest.stored, files)
    scored = _scored(job, manifest, query, place, vectors)
    if query.relative:
        scored = _relative(scored, manifest, place, vectors)
    return Table(
        ledger=ledger,
        job=job,
        manifest=manifest,
        scored=scored,
        validation_id=query.validation_id,
        token=query.token,
        train_id=query.train_id,
        damping=factor,
        relative=query.relative,
        order=query.effective_order,
        sign=_SIGNS.get(scored.key, SIGN),
        total=min(scored.length, query.top_k or scored.length),
    )


def _scored(job: Job, manifest: Manifest, query: ScoresQuery, place: int, vectors: Vectors) -> Scored:
    """The kinds of scores: a stored vector, that of a validation row or token, all rows', one train row's of them."""
    ledger = vectors.ledger
    if query.validation_id is not None and (query.token is not None or query.train_id is not None):
        return _by_token(job, manifest, query, query.validation_id, place, vectors)
    if query.train_id is not None:
        names = _validation_vectors(job, manifest, place)
        index = _index(ledger, job, TRAIN_ROWS, query.train_id)
        scores = scores_of_row(vectors.named(names), index)
        return Scored("train_row", f"train:{index}@{place}", VALIDATION_ROWS, manifest.validation_rows, scores)
    if query.validation_id is not None:
        names = _validation_vectors(job, manifest, place)
        name = names[_index(ledger, job, VALIDATION_ROWS, query.validation_id)]
        return Scored("validation_row", name, TRAIN_ROWS, manifest.train_rows, vectors.named([name]))
    if query.vector == "all":
        names = _validation_vectors(job, manifest, place)
        ids = [row.id for row in iterate_rows(ledger, job.id, VALIDATION_ROWS)]
        return Scored("all", f"all@{place}", TRAIN_ROWS, manifest.train_rows, vectors.named(names), ids)
    name = at_damping(query.vector, place if query.vector in (MEAN, SELF_INFLUENCE) else 0)
    if name not in manifest.vectors:
        option = "role_of_inverse" if query.vector in (PLAIN_PRODUCT, TOP_REMOVED) else "self_influence"
        raise NotFound(
            f"This job stored no such scores: submit it again with output.{option}, its gradients are cached."
        )
    order = query.effective_order
    top = vectors.top(order) if name == MEAN and order != "row" else None
    return Scored(query.vector, name, TRAIN_ROWS, manifest.train_rows, vectors.named([name]), top=top)


def _by_token(
    job: Job, manifest: Manifest, query: ScoresQuery, validation_id: str, place: int, vectors: Vectors
) -> Scored:
    """One token's scores of every train row, or one train row's of every token."""
    if not manifest.tokens:
        raise NotFound("This job stored no scores by token: submit it again with output.per_token.")
    row = _index(vectors.ledger, job, VALIDATION_ROWS, validation_id)
    count = manifest.tokens[row]
    names = [at_damping(token_vector(row, token), place) for token in range(count)]
    if query.train_id is not None:
        index = _index(vectors.ledger, job, TRAIN_ROWS, query.train_id)
        scores = scores_of_row(vectors.named(names), index)
        return Scored("tokens", f"tokens:{row}:{index}@{place}", token_rows(row), count, scores)
    assert query.token is not None
    if query.token >= count:
        raise NotFound(f"The completion has {count} tokens, numbered from 0.")
    name = names[query.token]
    return Scored("validation_token", name, TRAIN_ROWS, manifest.train_rows, vectors.named([name]))


def _relative(scored: Scored, manifest: Manifest, place: int, vectors: Vectors) -> Scored:
    name = at_damping(SELF_INFLUENCE, place)
    if name not in manifest.vectors:
        raise NotFound(
            "This job stored no self-influence: submit it again with output.self_influence, its gradients are cached."
        )
    relative = RelativeScores(scored.scores, vectors.named([name]))
    return replace(scored, key=f"{scored.key}/relative", scores=relative, top=None)


def _on_the_path(job: Job, wanted: float | None) -> tuple[int, float | None]:
    """Place and value on the job's damping path; the first where none is named."""
    factors = () if job.spec.damping is None else job.spec.damping.factors
    if wanted is None:
        return 0, factors[0] if len(factors) > 1 else None
    if wanted not in factors:
        raise NotFound("The job has no scores at this damping: its spec has the values there are.")
    return factors.index(wanted), wanted


def _validation_vectors(job: Job, manifest: Manifest, place: int) -> list[str]:
    if not job.spec.output.per_validation_row:
        raise NotFound(
            "This job stored the mean alone: submit it again with output.per_validation_row, its gradients are cached."
        )
    return [at_damping(validation_vector(index), place) for index in range(manifest.validation_rows)]


def _index(ledger: Ledger, job: Job, rows_name: str, row_id: str) -> int:
    index = find_row(ledger, job.id, rows_name, row_id)
    if index is None:
        kind = "train" if rows_name == TRAIN_ROWS else "validation"
        raise NotFound(
            f"The job has no {kind} row with this id: ids are the rows' own, or numbers from 0 where they have none."
        )
    return index
