"""The rules of queries: of which jobs one can ask more, and what job a query is."""

from __future__ import annotations

from ascribe.errors import Conflict, Expired
from ascribe.job import Job, JobState
from ascribe.ledger.base import Created, Ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.result import Provenance
from ascribe.settings import ServiceSettings
from ascribe.spec import DatasetSpec, InlineSource, JobSpec, QueryOf
from service.jobs.operations import submit
from service.queries.schemas import Query


def ask(
    job_id: str,
    query: Query,
    idempotency_key: str | None,
    *,
    ledger: Ledger,
    upkeep: Upkeep,
    settings: ServiceSettings,
) -> Created:
    """Submit the earlier job's spec with the new validation rows, as a job of its own.

    Raises NotFound, Conflict unless the job succeeded, Expired when its gradients are gone, and what submitting raises.
    """
    parent = ledger.get(job_id)
    provenance = _provenance(parent)
    if ledger.announced_gradients(provenance.gradient_fingerprint) is None:
        raise Expired(
            "The cached gradients of this job are gone: submit it again with the new validation rows, as a whole job."
        )
    spec = _spec(ledger.spec(job_id), query, job_id, provenance)
    return submit(spec, idempotency_key, ledger=ledger, upkeep=upkeep, settings=settings)


def _provenance(parent: Job) -> Provenance:
    if parent.status is not JobState.SUCCEEDED or parent.result is None:
        raise Conflict(f"The job is {parent.status}: only one that succeeded has gradients and a solution to ask.")
    return parent.result.provenance


def _spec(asked: JobSpec, query: Query, job_id: str, provenance: Provenance) -> JobSpec:
    query_of = QueryOf(
        job_id=job_id,
        base_sha256=provenance.base_sha256,
        adapter_sha256=provenance.adapter_sha256,
        train_sha256=provenance.train_sha256,
    )
    changes = {
        "name": query.name,
        "labels": query.labels,
        "validation": _validation(asked, query),
        "output": query.output or asked.output,
        "query_of": query_of,
    }
    return JobSpec.model_validate(dict(asked) | changes)


def _validation(asked: JobSpec, query: Query) -> DatasetSpec:
    """The new rows, their columns as the earlier job's files had them unless the query says otherwise."""
    if "columns" in query.validation.model_fields_set:
        return query.validation
    earlier = asked.train if isinstance(asked.validation.source, InlineSource) else asked.validation
    return query.validation.model_copy(update={"columns": earlier.columns})
