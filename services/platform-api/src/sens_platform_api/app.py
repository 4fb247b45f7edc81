"""The API as an ASGI application."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from sens_common.https import HttpsOnly
from sens_common.settings import HttpsSettings
from sens_common.version import product_version
from sens_platform_api.audit.endpoints import router as audit
from sens_platform_api.dead_letters.endpoints import router as dead_letters
from sens_platform_api.devices.endpoints import router as devices
from sens_platform_api.errors import ReadOnlyKeyError
from sens_platform_api.gate import READING_METHODS, Gate
from sens_platform_api.limits import Limits
from sens_platform_api.live.endpoints import router as live
from sens_platform_api.measurements.endpoints import router as measurements
from sens_platform_api.measurements.schemas import MeasurementList
from sens_platform_api.metrics import PLAIN_HTTP
from sens_platform_api.operations.endpoints import router as operations
from sens_platform_api.overview.endpoints import router as overview
from sens_platform_api.problems import Problem, install_handlers, problem_documentation
from sens_platform_api.registry.endpoints import router as registry
from sens_platform_api.routes import RouteTable
from sens_platform_api.services import Services
from sens_platform_api.settings import HttpSettings

_TITLE = "SENS Platform API"
_DESCRIPTION = """Devices, measurements, live data and dead letters of one tenant: the one that the key belongs to.

Data are below `/api/v1` and need `Authorization: Bearer sens_…`. Times are RFC 3339 in UTC. Errors are problem details (RFC 9457,
`application/problem+json`) whose `code` is for programs and whose `detail` is for people.
"""
_TAGS = [
    {"name": "devices", "description": "Devices, and the latest value of each of their metrics."},
    {"name": "measurements", "description": "Measurements over time."},
    {"name": "live", "description": "Newly stored readings, as they come."},
    {"name": "dead letters", "description": "Messages that could not be stored, and their replay."},
    {"name": "overview", "description": "What the tenant has, and what came of its messages."},
    {"name": "audit", "description": "Who changed what."},
    {"name": "operations", "description": "Health, readiness, version, metrics; open."},
]


_ROUTERS = (devices, registry, measurements, live, dead_letters, overview, audit, operations)


def create_app(services: Services, http: HttpSettings) -> ASGIApp:
    """Return the application."""
    app = _routes()
    app.state.services = services
    gate = Gate(services.authenticator, services.limits)
    limited: ASGIApp = Limits(app, services.limits, gate, RouteTable(_ROUTERS))
    if not http.cors_origins:
        return limited
    return CORSMiddleware(
        limited,
        allow_origins=http.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
        expose_headers=["Retry-After", "X-Request-Id"],
    )


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document; it needs no settings and no server."""
    document: dict[str, Any] = _routes().openapi()
    return document


def public_app(services: Services, http: HttpSettings, https: HttpsSettings) -> ASGIApp:
    """Return the application as it is served: what came over plain HTTP does not reach it, nor is its body read."""
    return HttpsOnly(create_app(services, http), https, lambda outcome: PLAIN_HTTP.labels(outcome).inc())


def _routes() -> FastAPI:
    app = FastAPI(
        title=_TITLE,
        version=product_version(),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        # The reference is part of the documentation; the interactive page would load its scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_handlers(app)
    for router in _ROUTERS:
        app.include_router(router)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                tags=app.openapi_tags,
                routes=app.routes,
            )
            for model in (Problem, MeasurementList):  # answers that FastAPI does not see
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
                document["components"]["schemas"] |= schema.pop("$defs", {}) | {model.__name__: schema}
            for path, operations_of_path in document["paths"].items():
                for method, operation in operations_of_path.items():
                    if path.startswith("/api/") and method.upper() not in READING_METHODS:
                        operation["responses"]["403"] = problem_documentation(ReadOnlyKeyError)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI documentation, "Extending OpenAPI"
    return app
