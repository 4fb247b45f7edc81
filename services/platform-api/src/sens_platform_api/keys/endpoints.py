"""Whose request is this? A dependency of every path with data."""

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from sens_platform_api.gate import bearer_key
from sens_platform_api.keys.repository import KeyOwner

_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    bearerFormat="sens_…",
    description="A key of one tenant, as `sens keys create` makes it: `Authorization: Bearer sens_…`.",
)


async def key_owner(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)]
) -> KeyOwner:
    """Return the owner of the request's key, as the gate has found it before the request came here."""
    owner: KeyOwner = request.state.owner
    return owner


async def own_key(request: Request) -> str:
    """Return the key that the request carries."""
    key = bearer_key(request.scope)
    assert key is not None  # noqa: S101 - the gate lets no request pass without one
    return key


Owner = Annotated[KeyOwner, Depends(key_owner)]
