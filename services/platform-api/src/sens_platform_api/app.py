"""The API as an ASGI application: the rooms, within the layers of `middleware`."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from sens_common.https import HttpsOnly
from sens_common.version import product_version
from sens_platform_api.errors import ReadOnlyKeyError
from sens_platform_api.measurements.schemas import MeasurementList, MeasurementsOfDevices
from sens_platform_api.metrics import PLAIN_HTTP
from sens_platform_api.middleware.authentication import READING_METHODS, Gate
from sens_platform_api.middleware.routes import RouteTable
from sens_platform_api.middleware.stack import layered
from sens_platform_api.middleware.turns import StrangersTakeTurns
from sens_platform_api.problems import Problem, install_handlers, problem_documentation
from sens_platform_api.rooms import ROOMS
from sens_platform_api.settings import ApiSettings, HttpSettings
from sens_platform_api.state import LIMITS, Provided, provide

_TITLE = "SENS Platform API"
_DESCRIPTION = """Devices, measurements, live data and dead letters of one tenant: the tenant of the key.

Paths with data begin with `/api/v1` and need `Authorization: Bearer sens_…`. Times are RFC 3339 in UTC. Errors are problem details
(RFC 9457, `application/problem+json`): their `code` is for programs, their `detail` for people.
"""


def create_app(gate: Gate, parts: Iterable[Provided], settings: ApiSettings) -> ASGIApp:
    """Return the application as it is served.

    Strangers take turns before anything is done for them; then a request over plain HTTP is refused, before its body is read.

    Args:
        gate: Decides which requests may go on.
        parts: Provided for the endpoints (`state.Part`).
        settings: Of requests, pages of other origins, and HTTPS.

    Raises:
        LookupError: A part that an endpoint needs is missing.
    """
    app = _routes()
    provide(app, [LIMITS.provided(settings.limits), *parts])
    layers = layered(app, gate, RouteTable(room.router for room in ROOMS), settings.limits)
    layers = HttpsOnly(_open_to_origins(layers, settings.http), settings.https, _note_plain_http)
    return StrangersTakeTurns(layers, gate)


def _open_to_origins(app: ASGIApp, http: HttpSettings) -> ASGIApp:
    if not http.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=http.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
        expose_headers=["Retry-After", "X-Request-Id"],
    )


def _note_plain_http(outcome: str) -> None:
    PLAIN_HTTP.labels(outcome).inc()


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document; it needs no settings and no server."""
    document: dict[str, Any] = _routes().openapi()
    return document


def _routes() -> FastAPI:
    app = FastAPI(
        title=_TITLE,
        version=product_version(),
        description=_DESCRIPTION,
        openapi_tags=[
            {"name": str(room.router.tags[0]), "description": room.description}
            for room in ROOMS
            if room.description is not None
        ],
        # The reference is part of the documentation; the interactive page would load its scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_handlers(app)
    for room in ROOMS:
        app.include_router(room.router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI documentation, "Extending OpenAPI"
    return app


def _completed(app: FastAPI) -> dict[str, Any]:
    """Return the document of FastAPI, and what it does not see: answers that are streamed, and the refusals of the middleware."""
    document: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, tags=app.openapi_tags, routes=app.routes
    )
    for model in (Problem, MeasurementList, MeasurementsOfDevices):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        document["components"]["schemas"] |= schema.pop("$defs", {}) | {model.__name__: schema}
    for path, operations_of_path in document["paths"].items():
        for method, operation in operations_of_path.items():
            if path.startswith("/api/") and method.upper() not in READING_METHODS:
                operation["responses"]["403"] = problem_documentation(ReadOnlyKeyError)
    return document
