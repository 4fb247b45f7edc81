"""Typed accessors of the application's state.

An endpoint that needs a part of the application declares a `Part` in its own file, and the composition root provides it. So no file but
the composition root knows all parts, and a room knows its own only.

>>> GREETING = Part[str]("greeting")
>>> GREETING.provided("hello")
Provided(name='greeting', value='hello')
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, cast

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from sens_platform_api.settings import LimitSettings


class Provided(NamedTuple):
    """A part with its name."""

    name: str
    value: object


class Part[T]:
    """One object of the application's state, by name; as a dependency of an endpoint, the object itself."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    async def __call__(self, request: Request) -> T:
        """Return the object that was provided."""
        return cast("T", request.app.state.parts[self.name])

    def provided(self, value: T) -> Provided:
        """Return what `provide` takes."""
        return Provided(self.name, value)


LIMITS: Final = Part[LimitSettings]("limits")
"""The settings of what requests may ask for."""


def provide(app: FastAPI, parts: Iterable[Provided]) -> None:
    """Put the parts into the application's state.

    Raises:
        LookupError: A part that an endpoint needs is missing.
    """
    app.state.parts = dict(parts)
    missing = {part.name for part in _needed(app)} - app.state.parts.keys()
    if missing:
        raise LookupError(f"nobody provides {', '.join(sorted(missing))}; the composition root (__main__) has to")


def _needed(app: FastAPI) -> Iterator[Part[object]]:
    for route in app.routes:
        if isinstance(route, APIRoute):
            yield from _needed_by(route.dependant)


def _needed_by(dependant: Dependant) -> Iterator[Part[object]]:
    if isinstance(dependant.call, Part):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from _needed_by(inner)
