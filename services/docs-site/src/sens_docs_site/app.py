"""The site: the built documentation's files, and the operations routes beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import URL, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_common.health import Check
from sens_common.https import HttpsOnly
from sens_common.operations import Heartbeat, Operations
from sens_common.readiness import Readiness
from sens_common.settings import HttpsSettings
from sens_docs_site.metrics import PLAIN_HTTP, RESPONSES

SERVICE: Final = "docs"
METRICS_PATH: Final = "/metrics"

_POLICY: Final = (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline'",  # Zensical's theme starts with inline scripts, another one on each page
    "style-src 'self' 'unsafe-inline'",  # and with inline styles
    "img-src 'self' data:",
    "worker-src 'self' blob:",  # its search runs in a worker
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # browsers keep a page but ask whether it changed: an upgrade shows at once
}

_NOT_FOUND: Final = """<!doctype html>
<html lang="en">
<title>Not found: SENS Platform</title>
<h1>There is no such page</h1>
<p><a href="/">Go to the start of the documentation.</a></p>
</html>
"""


def create_app(
    folder: Path, heartbeat: Heartbeat, https: HttpsSettings | None = None, *, with_metrics: bool = True
) -> Starlette:
    """Return the site of a folder, which may come later: until then the readiness check says what is wrong.

    Without metrics, ``/metrics`` is a page that is missing: `metrics_app` gives them at a port of its own.
    """
    files = StaticFiles(directory=folder, html=True, check_dir=False)

    async def page(request: Request) -> Response:
        response = await files.get_response(files.get_path(request.scope), request.scope)
        if isinstance(response, RedirectResponse):  # to the folder's path with a slash
            # Without scheme and host, which are others outside of a proxy.
            response.headers["Location"] = "/" + URL(response.headers["Location"]).path.lstrip("/")
        return response

    operations = Operations(SERVICE, Readiness({"site": site_check(folder)}), heartbeat).routes()
    return Starlette(
        routes=[
            *(route for route in operations if with_metrics or route.path != METRICS_PATH),
            Route("/{path:path}", page),
        ],
        middleware=[
            Middleware(_Responses),
            Middleware(
                HttpsOnly, settings=https or HttpsSettings(), note=lambda outcome: PLAIN_HTTP.labels(outcome).inc()
            ),
        ],
        exception_handlers={404: _not_found},
    )


def metrics_app(heartbeat: Heartbeat) -> Starlette:
    """Return what gives the metrics and nothing else."""
    return Starlette(
        routes=[route for route in Operations(SERVICE, Readiness({}), heartbeat).routes() if route.path == METRICS_PATH]
    )


def site_check(folder: Path) -> Check:
    """Return the readiness check of the folder."""
    site = folder.absolute()

    async def check() -> str | None:
        if (site / "index.html").is_file():
            return None
        return f"there is no index.html in {site}. Build the documentation, or set SENS_SITE__FOLDER."

    return check


async def _not_found(_request: Request, _error: Exception) -> Response:
    return HTMLResponse(_NOT_FOUND, 404)


class _Responses:
    """Adds the security headers to every response, and counts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                RESPONSES.labels(f"{message['status'] // 100}xx").inc()
            await send(message)

        await self._app(scope, receive, send_with_headers)
