"""The application: routes, errors and the middleware around them, and what runs beside the requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from epochal.ledger.values import News
from epochal.server import error_responses, openapi
from epochal.server.auth import Reader
from epochal.server.error_responses import answer
from epochal.server.middleware import API, RequestMiddleware
from epochal.server.renewals import Renewals
from epochal.server.routes import administration, agents, code, following, health, jobs, leases, overview, page, sweeps
from epochal.server.services import Services
from epochal.server.settings import ServerSettings

_THREADS = 5
"""For the ledger's other questions. With those for leases (6), tokens (2) and the reconciler (2) they are as many as
the database's pool has connections: more would wait for one, and time out."""
_TURN_SECONDS = 0.5
_STOP_SECONDS = 2.0


def create_app(settings: ServerSettings) -> FastAPI:
    """A server's application, with its database and storage opened; they are closed when it is shut down.

    Raises:
        UsageError: a setting cannot be used.
        UnreachableError: the database or the storage does not answer.
    """
    services = Services.open(settings)
    app = FastAPI(lifespan=_lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    services.metrics.watch(services.ledger, lambda: services.notifier.waiting, services.reconciler.counts)
    error_responses.install(app)
    # In the order in which they are looked through: what agents ask all the time first.
    for module in (leases, agents, following, jobs, sweeps, code, overview, administration):
        app.include_router(module.router, prefix=API)
    app.include_router(sweeps.lease_router, prefix=API)
    app.include_router(_description(app), prefix=API)
    for router in (health.router, page.router):
        app.include_router(router)
    app.add_middleware(RequestMiddleware, metrics=services.metrics)
    return app


def _description(app: FastAPI) -> APIRouter:
    router = APIRouter(tags=["overview"])
    document: dict[str, Any] = {}

    @router.get("/openapi.json", responses=openapi.answers(dict[str, Any]))
    async def describe(_who: Reader) -> Response:
        """This description."""
        if not document:
            document.update(openapi.description(app))
        return answer(document)

    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    to_thread.current_default_thread_limiter().total_tokens = _THREADS
    services.notifier.start()
    watch = asyncio.create_task(services.notifier.watch(partial(_news, services)))
    turns = asyncio.create_task(_turn(services.reconciler.renewals))
    stop = threading.Event()
    reconciler = threading.Thread(target=services.reconciler.run, args=(stop,), name="epochal-reconciler", daemon=True)
    reconciler.start()
    try:
        yield
    finally:
        stop.set()
        services.notifier.close()
        for task in (watch, turns):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(reconciler.join, _STOP_SECONDS)
        for threads in (services.lease_threads, services.decision_threads, services.storage_threads):
            threads.close()
        services.gate.close()
        services.ledger.close()


async def _news(services: Services, seen: Set[int] | None) -> News:
    return await services.lease_threads.run(partial(services.ledger.news, seen))


async def _turn(renewals: Renewals) -> None:
    while True:
        renewals.turned()
        await asyncio.sleep(_TURN_SECONDS)
