"""The composition root: everything the service is made of, put together in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from ascribe import __version__
from ascribe.ledger.base import Doorbell, Ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.results.files import open_results
from ascribe.results.sweep import Sweeper
from ascribe.settings import ServiceSettings
from service import errors
from service.datasets.endpoints import router as datasets_router
from service.document import DESCRIPTION, TAGS, document
from service.events.endpoints import router as events_router
from service.health.endpoints import router as health_router
from service.jobs.endpoints import router as jobs_router
from service.limits.endpoints import router as limits_router
from service.methods.endpoints import router as methods_router
from service.metrics.collector import LedgerCollector
from service.metrics.endpoints import router as metrics_router
from service.metrics.requests import AccessLog, RequestMetrics
from service.middleware import BearerAuth, BodyLimit, LocalHosts, RequestContext
from service.queries.endpoints import router as queries_router
from service.results.endpoints import router as results_router
from service.results.ranking import Rankings
from service.selection.endpoints import router as selection_router
from service.watch import Watch

WATCH_SECONDS = 0.25
"""How late a client that waits may hear of a change."""


def create_app(settings: ServiceSettings, *, ledger: Ledger, doorbell: Doorbell) -> FastAPI:
    """The ASGI application over ``ledger``. Starting it waits for nothing: readiness says whether Redis is there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.upkeep.start()
        app.state.sweeper.start()
        try:
            yield
        finally:
            app.state.watch.stop()
            await run_in_threadpool(app.state.upkeep.stop)
            await run_in_threadpool(app.state.sweeper.stop)
            ledger.close()

    app = FastAPI(
        title="Ascribe",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    app.state.ledger = ledger
    app.state.registry = CollectorRegistry()
    app.state.registry.register(LedgerCollector(ledger))
    app.state.rankings = Rankings()
    app.state.files = open_results(settings)
    app.state.sweeper = Sweeper(ledger, app.state.files)
    app.state.watch = Watch(ledger, every_seconds=WATCH_SECONDS, most_followers=settings.max_followers)
    app.state.upkeep = Upkeep(ledger, doorbell, every_seconds=settings.reconcile_seconds)
    for router in (
        jobs_router,
        datasets_router,
        queries_router,
        events_router,
        results_router,
        selection_router,
        methods_router,
        limits_router,
        health_router,
        metrics_router,
    ):
        app.include_router(router)
    errors.install(app)
    # Added last is outermost: every answer carries a request id, and no body is read before the key is seen.
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_body_bytes, elsewhere={"/v1/datasets": settings.max_file_bytes}
    )
    if settings.api_key is not None:
        app.add_middleware(BearerAuth, api_key=settings.api_key.get_secret_value())
    else:
        app.add_middleware(LocalHosts)
    app.add_middleware(RequestContext)
    app.add_middleware(AccessLog, metrics=RequestMetrics(app.state.registry))
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # the documented way to extend it
    return app
