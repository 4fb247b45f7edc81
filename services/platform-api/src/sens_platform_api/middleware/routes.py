"""The paths of the application and their methods, which the layers have to know before a request reaches the application."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import Scope


class _Route(NamedTuple):
    path: re.Pattern[str]
    methods: frozenset[str]
    takes_body: bool


class RouteTable:
    """The methods of each path, and which of them take a body."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        self._routes = [
            _Route(route.path_regex, frozenset(route.methods or ()), _takes_body(route))
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute)
        ]
        self._routes.append(_Route(re.compile(r"^/openapi\.json$"), frozenset({"GET"}), takes_body=False))

    def methods(self, path: str) -> list[str]:
        """Return the methods that a path takes, none for a path that does not exist."""
        methods = {method for route in self._routes if route.path.match(path) for method in route.methods}
        if not methods:
            return []
        return sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()))

    def takes_body(self, method: str, path: str) -> bool:
        """Tell whether a request has a body that is read."""
        return any(route.takes_body and method in route.methods and route.path.match(path) for route in self._routes)


def _takes_body(route: APIRoute) -> bool:
    """Tell whether a route has a body: a document, or bytes that its documentation names."""
    return route.body_field is not None or "requestBody" in (route.openapi_extra or {})


def route_template(scope: Scope) -> str:
    """Return the template of the route that has answered, such as ``/api/v1/devices/{device}``."""
    template = getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) else "none"
