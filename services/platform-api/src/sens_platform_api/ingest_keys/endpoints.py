"""``/api/v1/ingest-keys``."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InvalidRequestError, NotFoundError, TooManyError
from sens_platform_api.fields import PageParameters
from sens_platform_api.ingest_keys import schemas, service
from sens_platform_api.ingest_keys.repository import TenantIngestKeys
from sens_platform_api.parameters import decode_cursor, encode_cursor, no_parameters
from sens_platform_api.problems import data_responses

router = APIRouter(prefix="/api/v1/ingest-keys", tags=["sources"])

_MAX_ID = 2**31 - 1


async def _keys(database: CallersDatabase, caller: CurrentCaller) -> service.IngestKeys:
    return TenantIngestKeys(database, caller)


OwnKeys = Annotated[service.IngestKeys, Depends(_keys)]


@router.get("", operation_id="list_ingest_keys", summary="List ingest keys", responses=data_responses())
async def list_ingest_keys(keys: OwnKeys, query: Annotated[PageParameters, Query()]) -> schemas.IngestKeyList:
    """With an ingest key messages are posted to one source, or to the native topics; it can do nothing else."""
    page = await service.list_page(keys, after=_number(query.cursor), limit=query.limit)
    return schemas.IngestKeyList(
        keys=[schemas.IngestKeyDocument.of(key) for key in page.keys],
        next=encode_cursor(str(page.after)) if page.after is not None else None,
    )


def _number(cursor: str | None) -> int:
    text = decode_cursor(cursor, 1)[0] if cursor else "0"
    if not text.isascii() or not text.isdigit() or int(text) > _MAX_ID:
        raise InvalidRequestError.in_query("cursor", "take it from the answer before, as it is")
    return int(text)


@router.post(
    "",
    operation_id="create_ingest_key",
    summary="Make an ingest key",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(TooManyError),
)
async def create_ingest_key(keys: OwnKeys, body: schemas.NewIngestKey) -> schemas.CreatedIngestKey:
    """The key is in this answer and nowhere else: the database keeps its hash. It works after ten seconds at most."""
    stored, key = await service.create(keys, body.wanted())
    return schemas.CreatedIngestKey(key=key, created=schemas.IngestKeyDocument.of(stored))


@router.delete(
    "/{key_id}",
    operation_id="revoke_ingest_key",
    summary="Revoke an ingest key",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def revoke_ingest_key(
    keys: OwnKeys, key_id: Annotated[int, Path(description="Its number.", ge=1, le=_MAX_ID, examples=[7])]
) -> None:
    """It stops working after ten seconds at most, and stays in the list."""
    await service.revoke(keys, key_id)
