"""Problem details (RFC 9457): errors become answers here, and nowhere else."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api import metrics
from sens_platform_api.errors import (
    BodyTooLargeError,
    HeadersTooLargeError,
    InvalidParameter,
    InvalidRequestError,
    RefusedError,
    TooManyRequestsError,
    TooSlowError,
    UnauthenticatedError,
)
from sens_platform_api.parameters import CURSOR_WORDS

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class ProblemParameter(BaseModel):
    """One thing that is wrong in a request."""

    model_config = ConfigDict(extra="forbid")

    location: Annotated[str, Field(description="path, query, header or body.", examples=["query"])]
    name: Annotated[str, Field(description="The parameter or member.", examples=["limit"])]
    detail: Annotated[str, Field(description="What it accepts.", examples=["input should be less than 1001"])]


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[
        str, Field(description="Always about:blank; `code` tells the kinds apart.", examples=["about:blank"])
    ]
    title: Annotated[str, Field(description="The kind of problem, for people.", examples=["Not found"])]
    status: Annotated[int, Field(description="The status of the answer.", ge=400, le=599, examples=[404])]
    code: Annotated[str, Field(description="The kind of problem, for programs.", examples=["not_found"])]
    detail: Annotated[str, Field(description="What happened and what to do.", examples=["there is no device x"])]
    errors: Annotated[
        list[ProblemParameter] | None, Field(description="What is wrong, where parameters are.", examples=[None])
    ] = None


def problem_response(error: RefusedError | UnavailableError | SchemaError) -> Response:
    """Return the answer for an error, and count a bound that was reached."""
    if isinstance(error, TooManyRequestsError):
        metrics.REFUSED.labels(error.bound).inc()
    if isinstance(error, RefusedError):
        return _render(
            error.status,
            error.code,
            error.title,
            str(error),
            headers=error.headers,
            parameters=error.parameters if isinstance(error, InvalidRequestError) else None,
        )
    # The words of a server's own error are for its operators: they are in the log, not in the answer.
    log.warning("a server that is needed can't be used", error=str(error))
    return _render(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        "Temporarily unavailable",
        "a server that this answer needs is away; try again later",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def internal_problem() -> Response:
    """Return the answer for an unforeseen error, whose words are in the log."""
    return _render(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "Internal error", "something unforeseen went wrong; it was logged"
    )


def install_handlers(app: FastAPI) -> None:
    """Let the application answer every error as problem details."""
    for error in (RefusedError, UnavailableError, SchemaError):
        app.add_exception_handler(error, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


async def _known(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError | UnavailableError | SchemaError)  # noqa: S101 - the only ones it is installed for
    return problem_response(error)


async def _unforeseen(_request: Request, _error: Exception) -> Response:
    return internal_problem()  # the framework raises the error again; the outermost layer logs it


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - same
    parameters = [_parameter(details) for details in error.errors()]
    return problem_response(InvalidRequestError(parameters))


def _parameter(details: Mapping[str, Any]) -> InvalidParameter:
    location, *path = details["loc"]
    name = ".".join(str(part) for part in path) or str(location)
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] == "string_pattern_mismatch":
        # A regular expression is for programs, which have it in the OpenAPI document.
        other = "it has not the form that this parameter takes; /openapi.json shows it with an example"
        message = CURSOR_WORDS if name == "cursor" else other
    return InvalidParameter(str(location), name[:200], message[:1].lower() + message[1:])


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - same
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "there is no such path; /openapi.json lists those that exist",
    }
    return _render(
        status,
        status.phrase.lower().replace(" ", "_"),
        status.phrase,
        details.get(status, str(error.detail)),
        headers=error.headers or {},
    )


def _render(
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    parameters: Sequence[InvalidParameter] | None = None,
) -> Response:
    document: dict[str, object] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail.encode("utf-8", "replace").decode(),
    }
    if parameters is not None:
        document["errors"] = [
            {"location": item.location, "name": item.name.encode("utf-8", "replace").decode(), "detail": item.detail}
            for item in parameters
        ]
    return Response(orjson.dumps(document), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


_REFERENCE = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_COMMON: tuple[type[RefusedError], ...] = (RefusedError, HeadersTooLargeError, BodyTooLargeError, InvalidRequestError)
_OF_DATA: tuple[type[RefusedError], ...] = (*_COMMON, UnauthenticatedError, TooManyRequestsError, TooSlowError)


def problem_documentation(error: type[RefusedError]) -> dict[str, Any]:
    """Return the documentation of a problem."""
    return {"description": error.title, "content": _REFERENCE}


def common_responses() -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the problems that every path has."""
    return {error.status: problem_documentation(error) for error in _COMMON}


def data_responses(*more: type[RefusedError]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the problems that every path with data has, and more of them."""
    documented: dict[int | str, dict[str, Any]] = {
        error.status: problem_documentation(error) for error in (*_OF_DATA, *more)
    }
    documented[503] = {
        "description": "A server that this answer needs is away; try again after `Retry-After` seconds",
        "content": _REFERENCE,
    }
    return dict(sorted(documented.items(), key=lambda item: str(item[0])))
