"""``/api/v1/live``."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from sens_platform_api import metrics
from sens_platform_api.current_caller import CallersKey, CurrentCaller
from sens_platform_api.errors import TooManyReadersError
from sens_platform_api.live import schemas, service
from sens_platform_api.parameters import canonical_device
from sens_platform_api.problems import data_responses
from sens_platform_api.settings import LimitSettings
from sens_platform_api.state import LIMITS, Part
from sens_platform_api.streaming import ClosingStream, begin

router = APIRouter(prefix="/api/v1/live", tags=["live"])

LIVE: Final = Part[service.Live]("live")
KEYS: Final = Part[service.ValidKeys]("keys")


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
    *,
    caller: CurrentCaller,
    key: CallersKey,
    live: Annotated[service.Live, Depends(LIVE)],
    keys: Annotated[service.ValidKeys, Depends(KEYS)],
    limits: Annotated[LimitSettings, Depends(LIMITS)],
    query: Annotated[schemas.LiveParameters, Query()],
) -> Response:
    """Server-sent events of newly stored readings, with units and calibrated as in all other answers.

    Live data is not kept: after a break, ask for measurements. The stream ends when the key is revoked or expires, and when its reader
    takes nothing for a minute.
    """
    devices = frozenset(canonical_device(device) for device in query.device)

    async def chunks() -> AsyncGenerator[bytes]:
        async with live.reader(caller, devices, as_stored=query.calibration is not None) as reader:
            yield schemas.HELLO
            async for taken in service.events(reader, partial(service.is_still_valid, keys, key)):
                yield schemas.KEEP_ALIVE if taken is None else schemas.render_events(taken)
                if taken is not None:
                    metrics.LIVE_READINGS.inc(len(taken.events))

    return ClosingStream(
        await begin(chunks()),
        media_type=schemas.MEDIA_TYPE,
        stall_seconds=limits.answer_seconds,
        headers={"X-Accel-Buffering": "no"},
    )
