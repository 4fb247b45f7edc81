"""Answers with problem details when a layer or the application fails."""

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api.errors import RefusedError
from sens_platform_api.middleware.routes import route_template
from sens_platform_api.problems import internal_problem, problem_response

log = structlog.get_logger()


class ProblemsForErrors:
    """Renders errors; an answer that has begun breaks off, so that its reader sees that it is not complete."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except (RefusedError, UnavailableError, SchemaError) as error:
            if started:
                log.warning("an answer broke off", route=route_template(scope), error=str(error))
                return
            await problem_response(error)(scope, receive, send)
        except Exception:
            log.exception("unforeseen error", method=scope["method"], route=route_template(scope))
            if not started:
                await internal_problem()(scope, receive, send)
