"""Answers OPTIONS (RFC 9110, section 9.3.7), which needs no key."""

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sens_platform_api.middleware.routes import RouteTable


class OptionsRequests:
    """Tells the methods of a path."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        methods = self._routes.methods(scope["path"]) if scope["method"] == "OPTIONS" else []
        if methods:
            await Response(status_code=204, headers={"Allow": ", ".join(methods)})(scope, receive, send)
        else:
            await self._app(scope, receive, send)
