"""``/api/v1/sources``."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from sens_common.source_states import SourceState
from sens_payloads.frames import FrameDecoder
from sens_payloads.uplinks import Received, query_of
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InUseError, NotFoundError, OverlapError, TooManyError
from sens_platform_api.fields import PageParameters
from sens_platform_api.pages import page_by_name
from sens_platform_api.parameters import EPOCH, no_parameters, parse_time
from sens_platform_api.path_parameters import NamePath
from sens_platform_api.problems import data_responses
from sens_platform_api.sources import schemas, service, trial_schemas
from sens_platform_api.sources.repository import TenantSources
from sens_platform_api.state import Part

FRAMES = Part[FrameDecoder]("frames")
STATES = Part[service.States]("states")

router = APIRouter(prefix="/api/v1/sources", tags=["sources"])


async def _sources(database: CallersDatabase, caller: CurrentCaller) -> service.Sources:
    return TenantSources(database, caller)


async def _bench(database: CallersDatabase, caller: CurrentCaller) -> service.Bench:
    return TenantSources(database, caller)


OwnSources = Annotated[service.Sources, Depends(_sources)]


async def _told(
    states: Annotated[service.States, Depends(STATES)], caller: CurrentCaller
) -> Mapping[str, SourceState] | None:
    return await service.states(states, caller.tenant)


Told = Annotated[Mapping[str, SourceState] | None, Depends(_told)]
OwnBench = Annotated[service.Bench, Depends(_bench)]


@router.get("", operation_id="list_sources", summary="List sources", responses=data_responses())
async def list_sources(
    sources: OwnSources, told: Told, query: Annotated[PageParameters, Query()]
) -> schemas.SourceList:
    """A source is how a stream of other people's messages comes in. They are listed by name, in pages."""
    page = await page_by_name(sources.by_name, query.cursor, query.limit)
    return schemas.SourceList(
        sources=[schemas.SourceDocument.of(source, told) for source in page.items],
        next=page.next,
    )


@router.get(
    "/{name}",
    operation_id="get_source",
    summary="Show a source",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_source(sources: OwnSources, told: Told, name: NamePath) -> schemas.SourceDocument:
    """Its address, format and profiles, and how it does."""
    return schemas.SourceDocument.of(await service.get(sources, name), told)


@router.put(
    "/{name}",
    operation_id="put_source",
    summary="Make or replace a source",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(OverlapError, TooManyError),
)
async def put_source(
    sources: OwnSources, told: Told, name: NamePath, body: schemas.SourceChange
) -> schemas.SourceDocument:
    """What the body leaves out gets its default. The workers know of the change within seconds; the state in the answer is that of before."""
    return schemas.SourceDocument.of(await service.put(sources, body.source(name)), told)


@router.delete(
    "/{name}",
    operation_id="delete_source",
    summary="Delete a source",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, InUseError),
)
async def delete_source(sources: OwnSources, name: NamePath) -> None:
    """One that is enabled can't be deleted. Its devices and their measurements stay."""
    await service.delete(sources, name)


@router.post(
    "/{name}/try",
    operation_id="try_source",
    summary="Try a message on a source",
    responses=data_responses(NotFoundError),
    openapi_extra={
        "requestBody": {
            "description": "The message's body, as it is published or posted.",
            "required": False,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def try_source(
    *,
    bench: OwnBench,
    caller: CurrentCaller,
    frames: Annotated[FrameDecoder, Depends(FRAMES)],
    name: NamePath,
    query: Annotated[trial_schemas.TryParameters, Query()],
    request: Request,
) -> trial_schemas.TriedMessage:
    """What each step makes of it: uplinks of the format, fields of the codec, metrics of the profile. Nothing is stored.

    Whether devices are known and times too old is not looked at.
    """
    now = datetime.now(UTC)
    at = now if query.received_at is None else parse_time("received_at", query.received_at, now)
    received = Received(
        await request.body(), (at - EPOCH) // timedelta(microseconds=1), query.topic, query_of(query.query)
    )
    return trial_schemas.TriedMessage.of(await service.try_message(bench, name, received, caller.tenant_id, frames))
