"""``/api/v1/live``."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from sens_common.errors import SchemaError, UnavailableError
from sens_platform_api import metrics
from sens_platform_api.errors import TooManyReadersError, TooSlowError, UnauthenticatedError
from sens_platform_api.keys.endpoints import Owner, own_key
from sens_platform_api.live import schemas
from sens_platform_api.live.service import events
from sens_platform_api.parameters import canonical_device
from sens_platform_api.problems import data_responses
from sens_platform_api.services import Services, ServicesOf
from sens_platform_api.streaming import ClosingStream, begin

router = APIRouter(prefix="/api/v1/live", tags=["live"])


@router.get(
    "",
    operation_id="watch_live",
    summary="Watch readings as they are stored",
    response_class=Response,
    responses={
        200: {
            "description": "Events without end: `reading`, and `dropped` with the number of readings lost to slowness",
            "content": {schemas.MEDIA_TYPE: {"schema": {"type": "string"}, "example": schemas.EXAMPLE}},
        },
        **data_responses(TooManyReadersError),
    },
)
async def watch(
    owner: Owner,
    key: Annotated[str, Depends(own_key)],
    services: ServicesOf,
    query: Annotated[schemas.LiveParameters, Query()],
) -> Response:
    """Server-sent events of newly stored readings.

    Live data are not kept: after a break, ask for measurements. The stream ends when the key is revoked or expires, and when its reader
    takes nothing for a minute.
    """
    devices = frozenset(canonical_device(device) for device in query.device)
    body = await begin(_stream(services, owner.tenant, key, devices))
    return ClosingStream(
        body,
        media_type=schemas.MEDIA_TYPE,
        stall_seconds=services.limits.answer_seconds,
        headers={"X-Accel-Buffering": "no"},
    )


async def _stream(services: Services, tenant: str, key: str, devices: frozenset[str]) -> AsyncGenerator[bytes]:
    async def may_go_on() -> bool:
        try:
            await services.authenticator.owner(key)
        except UnauthenticatedError:
            return False
        except (UnavailableError, SchemaError, TooSlowError):
            pass  # whether the key was revoked can't be known just now
        return True

    async with services.live.reader(tenant, devices) as reader:
        yield schemas.HELLO
        async for batch in events(reader, may_go_on):
            if batch is None:
                yield schemas.KEEP_ALIVE
            else:
                dropped = [schemas.render_dropped(batch.dropped)] if batch.dropped else []
                yield b"".join(dropped + batch.events)
                metrics.LIVE_READINGS.inc(len(batch.events))
