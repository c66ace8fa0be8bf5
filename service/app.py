"""The composition root: everything the service is made of, put together in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from ascribe import __version__
from ascribe.ledger.base import Doorbell, Ledger
from ascribe.ledger.upkeep import Upkeep
from ascribe.settings import ServiceSettings
from service import errors
from service.health.endpoints import router as health_router
from service.jobs.endpoints import router as jobs_router
from service.methods.endpoints import router as methods_router
from service.middleware import BearerAuth, BodyLimit, RequestContext
from service.openapi import DESCRIPTION, TAGS, document
from service.results.endpoints import router as results_router


def create_app(settings: ServiceSettings, *, ledger: Ledger, doorbell: Doorbell) -> FastAPI:
    """The ASGI application over ``ledger``. Starting it waits for nothing: readiness says whether Redis is there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.upkeep.start()
        try:
            yield
        finally:
            await run_in_threadpool(app.state.upkeep.stop)
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
    app.state.upkeep = Upkeep(ledger, doorbell, every_seconds=settings.reconcile_seconds)
    for router in (jobs_router, results_router, methods_router, health_router):
        app.include_router(router)
    errors.install(app)
    # Added last is outermost: every answer carries a request id, and no body is read before the key is seen.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.api_key is not None:
        app.add_middleware(BearerAuth, api_key=settings.api_key.get_secret_value())
    app.add_middleware(RequestContext)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # the documented way to extend it
    return app
