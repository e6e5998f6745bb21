"""The ASGI application: APIs, problems and the engine put together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from modeguard.detector import ModeguardError
from modeguard.service.api import EXAMPLE, ROUTERS
from modeguard.service.http import PROBLEM_MEDIA_TYPE, RequestEnvelope, add_error_handlers
from modeguard.service.inference import Bundles, BundleSource, Engine
from modeguard.service.settings import Settings
from modeguard.templates_store.bundles import Bundle

_log = structlog.get_logger("service")
API_VERSION = "1"
_DESCRIPTION = """\
Says of each image whether it is adversarial to the classifier being served, by the classifier's loss along the straight
paths from the image to known good images of the class that it predicts.

Errors are `application/problem+json` (RFC 9457)."""


def _ignore(_: ModeguardError | None) -> None:
    pass


def create_app(
    settings: Settings,
    bundle: Bundle | None = None,
    *,
    on_loaded: Callable[[ModeguardError | None], None] = _ignore,
) -> FastAPI:
    """The service as an ASGI application.

    The bundle is loaded when the application starts, while probes are answered already.

    Args:
        settings: see `Settings`.
        bundle: a bundle that is loaded already, served whatever `bundle_digest` says; None to load the one that the
            settings name.
        on_loaded: called on the event loop with None when the bundle is ready, or with the error that refuses it.
    """
    engine = _engine(settings, bundle)

    async def load() -> None:
        error: ModeguardError | None = None
        try:
            await engine.load()
            warning = engine.current.bundle.warning
            if warning is not None:
                _log.warning("bundle", warning=warning)
        except ModeguardError as refusal:
            error = refusal
        except Exception as unforeseen:  # noqa: BLE001 - whatever it is, a server without a bundle must not go on
            _log.debug("loading failed", exc_info=True)
            error = ModeguardError(
                f"bundle {settings.bundle} cannot be loaded: {type(unforeseen).__name__}: {unforeseen}"
            )
        on_loaded(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(load())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="modeguard",
        version=API_VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # the redirection would name the scheme and host that a proxy hides
    )
    app.state.engine, app.state.settings = engine, settings
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(RequestEnvelope)
    add_error_handlers(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the way FastAPI documents
    return app


def _engine(settings: Settings, bundle: Bundle | None) -> Engine:
    source = BundleSource(
        path=settings.bundle,
        expected_digest=settings.bundle_digest,
        device=settings.device,
        dtype=settings.dtype,
        rows_per_call=settings.rows_per_call,
        torch_threads=settings.torch_threads,
        allowed_factories=settings.allowed_factories,
        trusted_programs=settings.trusted_programs,
    )
    return Engine(
        Bundles(source, bundle),
        decode_threads=settings.decode_threads,
        max_pending=settings.max_pending,
        max_pixels=settings.max_pixels,
    )


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description of the API, with the media type that problems really have."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        # FastAPI would leave out the nulls of the example, which are what there is to explain
        app.openapi_schema["components"]["schemas"]["DetectResponse"]["examples"] = [EXAMPLE]
        for operations in app.openapi_schema["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        response["content"] = {PROBLEM_MEDIA_TYPE: response["content"]["application/json"]}
    return app.openapi_schema
