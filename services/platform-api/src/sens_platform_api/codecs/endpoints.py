"""``/api/v1/codecs`` and ``/api/v1/codec-trials``."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from sens_platform_api.codecs import schemas, service
from sens_platform_api.codecs.repository import TenantCodecs
from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InUseError, NotFoundError, TooManyError
from sens_platform_api.fields import PageParameters
from sens_platform_api.pages import page_by_name
from sens_platform_api.parameters import no_parameters
from sens_platform_api.path_parameters import NamePath
from sens_platform_api.problems import data_responses
from sens_platform_api.state import Part

CHECK = Part[service.CodecCheck]("codec_check")

router = APIRouter(prefix="/api/v1", tags=["codecs"])


async def _codecs(database: CallersDatabase, caller: CurrentCaller) -> service.Codecs:
    return TenantCodecs(database, caller)


OwnCodecs = Annotated[service.Codecs, Depends(_codecs)]
Number = Annotated[int, Path(description="Number of the version.", ge=1, le=service.MAX_NUMBER, examples=[3])]


@router.get("/codecs", operation_id="list_codecs", summary="List codecs", responses=data_responses())
async def list_codecs(codecs: OwnCodecs, query: Annotated[PageParameters, Query()]) -> schemas.CodecList:
    """A codec turns bytes of devices into values. They are listed by name, in pages."""
    page = await page_by_name(codecs.by_name, query.cursor, query.limit)
    return schemas.CodecList(
        codecs=[schemas.CodecSummary.of(codec) for codec in page.items],
        next=page.next,
    )


@router.get(
    "/codecs/{name}",
    operation_id="get_codec",
    summary="Show a codec",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_codec(codecs: OwnCodecs, name: NamePath) -> schemas.CodecSummary:
    """How many versions it has, and which is the newest."""
    return schemas.CodecSummary.of(await service.get(codecs, name))


@router.delete(
    "/codecs/{name}",
    operation_id="delete_codec",
    summary="Delete a codec with all its versions",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, InUseError),
)
async def delete_codec(codecs: OwnCodecs, name: NamePath) -> None:
    """One that a profile uses can't be deleted."""
    await service.delete(codecs, name)


@router.get(
    "/codecs/{name}/versions",
    operation_id="list_codec_versions",
    summary="List the versions of a codec",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def list_codec_versions(codecs: OwnCodecs, name: NamePath) -> schemas.CodecVersionList:
    """The newest first, without their sources."""
    versions = await service.list_versions(codecs, name)
    return schemas.CodecVersionList(versions=[schemas.CodecVersion.of(name, version) for version in versions])


@router.post(
    "/codecs/{name}/versions",
    operation_id="add_codec_version",
    summary="Add a version to a codec",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(TooManyError) | {200: {"description": "This source is a version already"}},
)
async def add_codec_version(
    *,
    codecs: OwnCodecs,
    caller: CurrentCaller,
    check: Annotated[service.CodecCheck, Depends(CHECK)],
    name: NamePath,
    body: schemas.NewVersion,
    response: Response,
) -> schemas.CodecVersion:
    """A version never changes. The codec is made with its first one. A source that is a version already stays that one, with its examples."""
    examples = [example.document() for example in body.examples]
    added = await service.add(
        codecs, check, tenant_id=caller.tenant_id, name=name, source=body.source, examples=examples
    )
    if not added.is_new:
        response.status_code = HTTPStatus.OK
    return schemas.CodecVersion.of(name, added.version)


@router.post(
    "/codec-trials",
    operation_id="try_codec",
    summary="Try a codec",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(),
)
async def try_codec(
    caller: CurrentCaller, check: Annotated[service.CodecCheck, Depends(CHECK)], body: schemas.NewVersion
) -> schemas.TriedCodec:
    """What would be wrong with it as a version: it can't be parsed, keeps something between messages, or an example fails. Nothing is stored."""
    examples = [example.document() for example in body.examples]
    return schemas.TriedCodec(problems=await check.problems(caller.tenant_id, body.source, examples))


@router.get(
    "/codecs/{name}/versions/{version}",
    operation_id="get_codec_version",
    summary="Show a version of a codec with its source",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_codec_version(codecs: OwnCodecs, name: NamePath, version: Number) -> schemas.WholeCodecVersion:
    """With its source and its examples."""
    return schemas.WholeCodecVersion.of(name, await service.get_version(codecs, name, version))


@router.delete(
    "/codecs/{name}/versions/{version}",
    operation_id="delete_codec_version",
    summary="Delete a version of a codec",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, InUseError),
)
async def delete_codec_version(codecs: OwnCodecs, name: NamePath, version: Number) -> None:
    """One that a profile uses can't be deleted. Its number is not given again."""
    await service.delete(codecs, name, version)
