"""Whose request is this? A dependency of every path with data."""

from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sens_platform_api.errors import UnauthenticatedError
from sens_platform_api.keys.repository import KeyOwner
from sens_platform_api.keys.service import Authenticator
from sens_platform_api.services import ServicesOf

_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    bearerFormat="sens_…",
    description="A key of one tenant, as `sens keys create` makes it: `Authorization: Bearer sens_…`.",
)


async def bearer_key(credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)]) -> str:
    """Return the key that the request carries.

    Raises:
        UnauthenticatedError: It carries none.
    """
    if credentials is None:
        raise UnauthenticatedError("the header Authorization: Bearer sens_… is missing")
    return credentials.credentials


async def key_owner(key: Annotated[str, Depends(bearer_key)], services: ServicesOf) -> KeyOwner:
    """Return the owner of the request's key.

    Raises:
        UnauthenticatedError: The key is unknown or was revoked.
    """
    authenticator: Authenticator = services.authenticator
    return await authenticator.owner(key)


Owner = Annotated[KeyOwner, Depends(key_owner)]
