"""``/api/v1/dead-letters``."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from sens_common.dead_letters import Reason
from sens_platform_api import metrics
from sens_platform_api.dead_letters import schemas, service
from sens_platform_api.errors import AlreadyExistsError, NotFoundError
from sens_platform_api.keys.endpoints import Owner
from sens_platform_api.parameters import (
    EPOCH,
    canonical_device,
    cursor_number,
    decode_cursor,
    encode_cursor,
    no_parameters,
    parse_time,
)
from sens_platform_api.problems import data_responses
from sens_platform_api.services import ServicesOf

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"])

LetterId = Annotated[int, Path(description="Number of the dead letter.", ge=1, le=2**53, examples=[17003])]


@router.get("", operation_id="list_dead_letters", summary="List dead letters", responses=data_responses())
async def list_dead_letters(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.DeadLetterListParameters, Query()]
) -> schemas.DeadLetterList:
    """Messages with this tenant in their topic that could not be decoded or stored, oldest first."""
    following = cursor_number(decode_cursor(query.cursor, 1)[0]) if query.cursor else 1
    wanted = _filter(query.reason, query.device, query.before)
    page = await service.list_page(services.dead_letters, owner.tenant, wanted, following=following, limit=query.limit)
    return schemas.DeadLetterList(
        dead_letters=[schemas.DeadLetterSummary.of(stored) for stored in page.letters],
        next=None if page.following is None else encode_cursor(str(page.following)),
    )


@router.get(
    "/{dead_letter:int}",
    operation_id="get_dead_letter",
    summary="Show a dead letter with its payload",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_dead_letter(owner: Owner, services: ServicesOf, dead_letter: LetterId) -> schemas.DeadLetterDetails:
    """The payload comes as base64, and as text when it is UTF-8."""
    [stored] = (await services.dead_letters.get(owner.tenant, dead_letter)).letters
    return schemas.DeadLetterDetails.of(stored)


@router.post(
    "/{dead_letter:int}/replay",
    operation_id="replay_dead_letter",
    summary="Replay a dead letter",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, AlreadyExistsError),
)
async def replay_dead_letter(owner: Owner, services: ServicesOf, dead_letter: LetterId) -> schemas.ReplayedOne:
    """The message goes through the platform again, with the time of its first receipt; the dead letter goes away.

    If its cause is still there, it comes back as a new dead letter. What is stored already is not stored twice.
    """
    stored = await service.replay_one(services.dead_letters, owner.tenant, dead_letter)
    metrics.REPLAYED.inc()
    return schemas.ReplayedOne(id=stored.id)


@router.post(
    "/replay",
    operation_id="replay_dead_letters",
    summary="Replay the dead letters that match",
    responses=data_responses(),
)
async def replay_dead_letters(
    owner: Owner, services: ServicesOf, query: Annotated[schemas.ReplayParameters, Query()]
) -> schemas.ReplayedMany:
    """Without a filter, all of them. One call replays about `limit`; call again with `next` as `cursor` while there is one.

    What comes back meanwhile, because its cause is still there, is not replayed again by these calls.
    """
    parts = decode_cursor(query.cursor, 2) if query.cursor else None
    done = await service.replay_page(
        services.dead_letters,
        owner.tenant,
        _filter(query.reason, query.device, query.before),
        following=cursor_number(parts[0]) if parts else 1,
        until=cursor_number(parts[1]) if parts else None,
        limit=query.limit,
    )
    metrics.REPLAYED.inc(done.replayed)
    return schemas.ReplayedMany(
        replayed=done.replayed,
        unreadable=done.unreadable,
        next=None if done.following is None else encode_cursor(str(done.following), str(done.until)),
        remaining=done.remaining,
    )


def _filter(reason: Reason | None, device: str | None, before: str | None) -> service.Filter:
    return service.Filter(
        reason,
        canonical_device(device) if device is not None else None,
        (parse_time("before", before) - EPOCH) // timedelta(microseconds=1) if before is not None else None,
    )
