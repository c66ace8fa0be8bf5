"""HTTP of health, readiness and version: open without a key, for probes carry none."""

from __future__ import annotations

from fastapi import APIRouter

from ascribe import __version__
from service.dependencies import LedgerDep
from service.documentation import problems
from service.health import operations
from service.health.schemas import Health, Readiness, Version

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="health")
async def health() -> Health:
    """The process lives. Says nothing of Redis: restarting this process would not mend it."""
    return Health()


@router.get("/readyz", operation_id="ready", responses=problems(503))
def ready(ledger: LedgerDep) -> Readiness:
    """Jobs are taken now; 503 while Redis does not answer."""
    return operations.readiness(ledger)


@router.get("/version", operation_id="version")
async def version() -> Version:
    """Version of the service and of its HTTP surface."""
    return Version(version=__version__)
