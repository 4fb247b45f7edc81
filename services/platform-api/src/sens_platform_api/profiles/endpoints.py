"""``/api/v1/profiles``, and the profile that a device was given by hand."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from sens_platform_api.current_caller import CallersDatabase, CurrentCaller
from sens_platform_api.errors import InUseError, NotFoundError, TooManyError
from sens_platform_api.fields import PageParameters
from sens_platform_api.pages import page_by_name
from sens_platform_api.parameters import canonical_device, no_parameters
from sens_platform_api.path_parameters import DevicePath, NamePath
from sens_platform_api.problems import data_responses
from sens_platform_api.profiles import schemas, service
from sens_platform_api.profiles.repository import TenantProfiles

router = APIRouter(prefix="/api/v1", tags=["profiles"])


async def _profiles(database: CallersDatabase, caller: CurrentCaller) -> service.Profiles:
    return TenantProfiles(database, caller)


OwnProfiles = Annotated[service.Profiles, Depends(_profiles)]


@router.get("/profiles", operation_id="list_profiles", summary="List profiles", responses=data_responses())
async def list_profiles(profiles: OwnProfiles, query: Annotated[PageParameters, Query()]) -> schemas.ProfileList:
    """A profile is a kind of device: its codec, and what its fields are called. They are listed by name, in pages."""
    page = await page_by_name(profiles.by_name, query.cursor, query.limit)
    return schemas.ProfileList(
        profiles=[schemas.ProfileDocument.of(profile) for profile in page.items],
        next=page.next,
    )


@router.get(
    "/profiles/{name}",
    operation_id="get_profile",
    summary="Show a profile",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_profile(profiles: OwnProfiles, name: NamePath) -> schemas.ProfileDocument:
    """Its codec and its rules."""
    return schemas.ProfileDocument.of(await service.get(profiles, name))


@router.put(
    "/profiles/{name}",
    operation_id="put_profile",
    summary="Make or replace a profile",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(TooManyError),
)
async def put_profile(profiles: OwnProfiles, name: NamePath, body: schemas.ProfileChange) -> schemas.ProfileDocument:
    """Messages that are read from now on have the new names; what is stored stays as it is."""
    return schemas.ProfileDocument.of(await service.put(profiles, body.profile(name)))


@router.delete(
    "/profiles/{name}",
    operation_id="delete_profile",
    summary="Delete a profile",
    status_code=HTTPStatus.NO_CONTENT,
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError, InUseError),
)
async def delete_profile(profiles: OwnProfiles, name: NamePath) -> None:
    """One that a source or a device uses can't be deleted."""
    await service.delete(profiles, name)


@router.get(
    "/devices/{device}/profile",
    operation_id="get_device_profile",
    summary="Show the profile that a device was given by hand",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def get_device_profile(profiles: OwnProfiles, device: DevicePath) -> schemas.DeviceProfile:
    """It counts before all rules of sources."""
    profile = await service.of_device(profiles, device)
    return schemas.DeviceProfile(device=canonical_device(device), profile=profile)


@router.put(
    "/devices/{device}/profile",
    operation_id="set_device_profile",
    summary="Give a device a profile by hand",
    dependencies=[Depends(no_parameters)],
    responses=data_responses(NotFoundError),
)
async def set_device_profile(
    profiles: OwnProfiles, device: DevicePath, body: schemas.DeviceProfileChange
) -> schemas.DeviceProfile:
    """It counts before all rules of sources, from the next message on."""
    name = await service.give(profiles, device, body.profile)
    return schemas.DeviceProfile(device=name, profile=body.profile)
