"""The layers in their order."""

from starlette.types import ASGIApp, Receive, Scope, Send

from sens_platform_api.middleware.authentication import Authentication, Gate
from sens_platform_api.middleware.bodies import Bodies
from sens_platform_api.middleware.methods import Methods
from sens_platform_api.middleware.options import OptionsRequests
from sens_platform_api.middleware.problems_for_errors import ProblemsForErrors
from sens_platform_api.middleware.request_log import RequestLog
from sens_platform_api.middleware.routes import RouteTable
from sens_platform_api.middleware.targets import Targets
from sens_platform_api.middleware.time_limits import TimeLimits
from sens_platform_api.settings import LimitSettings


def layered(app: ASGIApp, gate: Gate, routes: RouteTable, limits: LimitSettings) -> ASGIApp:
    """Return the application within its layers; a scope that is not a request passes them by."""
    layers: ASGIApp = Bodies(app, routes, limits)
    layers = Methods(layers, routes)
    layers = Authentication(layers, gate)
    layers = OptionsRequests(layers, routes)
    layers = Targets(layers)
    layers = TimeLimits(layers, limits)
    layers = ProblemsForErrors(layers)
    layers = RequestLog(layers)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await (layers if scope["type"] == "http" else app)(scope, receive, send)

    return dispatch
