"""``/api/v1/dead-letters``."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query

from sens_platform_api import metrics
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.dead_letters import schemas, service
from sens_platform_api.dead_letters.filters import Filter
from sens_platform_api.dead_letters.repository import Actor, DeadLetters
from sens_platform_api.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from sens_platform_api.parameters import (
    canonical_device,
    cursor_number,
    decode_cursor,
    encode_cursor,
    no_parameters,
    parse_time,
)
from sens_platform_api.problems import data_responses
from sens_platform_api.state import Part

router = APIRouter(prefix="/api/v1/dead-letters", tags=["dead letters"])

LetterId = Annotated[int, Path(description="Number of the dead letter.", ge=1, le=2**53, examples=[17])]


STREAM: Final = Part[service.Stream]("stream")


async def _letters(caller: CurrentCaller, database: CallersDatabase) -> DeadLetters:
    return DeadLetters(
        lambda readonly: database.transaction(readonly=readonly),
        Actor(caller.actor, caller.tenant_id, caller.address, caller.request_id),
    )


OwnLetters = Annotated[DeadLetters, Depends(_letters)]
TheStream = Annotated[service.Stream, Depends(STREAM)]


@router.get("", operation_id="list_dead_letters", summary="List dead letters", responses=data_responses())
async def list_dead_letters(
    letters: OwnLetters, query: Annotated[schemas.DeadLetterListParameters, Query()]
) -> schemas.DeadLetterList:
    """Messages with this tenant in their topic that could not be decoded or stored, newest first."""
    below = cursor_number(decode_cursor(query.cursor, 1)[0]) if query.cursor else None
    page = await service.list_page(letters, _filter(query), below=below, limit=query.limit)
    return schemas.DeadLetterList(
        dead_letters=[schemas.DeadLetterSummary.of(summary) for summary in page.letters],
        next=None if page.below is None else encode_cursor(str(page.below)),
    )


@router.get(
    "/{dead_letter:int}",
    operation_id="get_dead_letter",
    summary="Show a dead letter with its payload",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_dead_letter(letters: OwnLetters, dead_letter: LetterId) -> schemas.DeadLetterDetails:
    """The payload comes as base64, and as text when it is UTF-8."""
    return schemas.DeadLetterDetails.with_payload(await letters.get(dead_letter))


@router.delete(
    "/{dead_letter:int}",
    operation_id="delete_dead_letter",
    summary="Delete a dead letter",
    dependencies=[Depends(no_parameters)],
    status_code=HTTPStatus.NO_CONTENT,
    responses=data_responses(NotFoundError),
)
async def delete_dead_letter(letters: OwnLetters, dead_letter: LetterId) -> None:
    """Its message can't be replayed any more."""
    await letters.delete(dead_letter)


@router.delete(
    "", operation_id="delete_dead_letters", summary="Delete the dead letters that match", responses=data_responses()
)
async def delete_dead_letters(
    letters: OwnLetters, query: Annotated[schemas.DeleteParameters, Query()]
) -> schemas.DeletedMany:
    """Their messages can't be replayed any more. One call deletes up to `limit`, the oldest first; call again while some remain.

    Without a filter, `all=true` is needed.
    """
    wanted = _filter(query)
    if wanted.is_everything and not query.all:
        raise InvalidRequestError.in_query("all", "give a filter, or all=true to delete all dead letters")
    done = await service.delete_page(letters, wanted, limit=query.limit)
    return schemas.DeletedMany(deleted=done.deleted, remaining=done.remaining)


@router.post(
    "/{dead_letter:int}/replay",
    operation_id="replay_dead_letter",
    summary="Replay a dead letter",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, AlreadyExistsError),
)
async def replay_dead_letter(letters: OwnLetters, stream: TheStream, dead_letter: LetterId) -> schemas.ReplayedOne:
    """The message goes through the platform again, with the time of its first receipt; the dead letter goes away.

    If its cause is still there, it comes back. What is stored already is not stored twice. A message of which only the beginning is kept is
    read from the stream; where that no longer has it, the answer is 409.
    """
    replayed = await service.replay_one(letters, stream, dead_letter)
    metrics.REPLAYED.inc()
    return schemas.ReplayedOne(id=replayed)


@router.post(
    "/replay",
    operation_id="replay_dead_letters",
    summary="Replay the dead letters that match",
    responses=data_responses(),
)
async def replay_dead_letters(
    letters: OwnLetters, stream: TheStream, query: Annotated[schemas.ReplayParameters, Query()]
) -> schemas.ReplayedMany:
    """Without a filter, all of them, oldest first. One call replays up to `limit`; call again with `next` as `cursor` while there is one.

    What comes back meanwhile, because its cause is still there, is not replayed again by these calls.
    """
    parts = decode_cursor(query.cursor, 2) if query.cursor else None
    done = await service.replay_page(
        letters,
        stream,
        _filter(query),
        above=cursor_number(parts[0]) if parts else 0,
        until=cursor_number(parts[1]) if parts else None,
        limit=query.limit,
    )
    metrics.REPLAYED.inc(done.replayed)
    return schemas.ReplayedMany(
        replayed=done.replayed,
        incomplete=done.incomplete,
        next=None if done.above is None else encode_cursor(str(done.above), str(done.until)),
        remaining=done.remaining,
    )


def _filter(query: schemas.DeadLetterFilter) -> Filter:
    return Filter(
        query.reason,
        canonical_device(query.device) if query.device is not None else None,
        query.topic,
        _time("since", query.since),
        _time("before", query.before),
    )


def _time(name: str, text: str | None) -> datetime | None:
    return parse_time(name, text) if text is not None else None
