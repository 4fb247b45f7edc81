"""Dependencies of every path with data: the caller, and the database as the caller's tenant sees it.

They are apart from `caller` and `postgresql`, because the administration command starts without FastAPI.
"""

from typing import Annotated, Final

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from sens_platform_api.caller import Caller, bearer_key
from sens_platform_api.postgresql import Pool, TenantDatabase
from sens_platform_api.state import Part

POOL: Final = Part[Pool]("pool")
"""The connections for tenants' data."""

_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    bearerFormat="sens_…",
    description="A key of one tenant, as `sens keys create` makes it: `Authorization: Bearer sens_…`.",
)


async def _caller(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_scheme)]
) -> Caller:
    caller: Caller = request.state.caller  # the middleware `authentication` found it before the request came here
    return caller


async def _key(request: Request) -> str:
    key = bearer_key(request.scope)
    assert key is not None  # noqa: S101 - the middleware `authentication` lets no request pass without one
    return key


CurrentCaller = Annotated[Caller, Depends(_caller)]
CallersKey = Annotated[str, Depends(_key)]


async def _database(caller: CurrentCaller, pool: Annotated[Pool, Depends(POOL)]) -> TenantDatabase:
    return TenantDatabase(pool, caller.tenant_id)


CallersDatabase = Annotated[TenantDatabase, Depends(_database)]
