"""Profiles: listing, making, deleting those that nothing uses, giving one to a device by hand."""

from typing import Protocol

from sens_platform_api.errors import InUseError, InvalidRequestError, NotFoundError, TooManyError
from sens_platform_api.parameters import canonical_device
from sens_platform_api.profiles.repository import Profile, Users


class Profiles(Protocol):
    """The profiles of one tenant, changed in the name of one caller."""

    async def by_name(self, *, after: str, limit: int) -> list[Profile]:
        """Return profiles by name: those after a name."""

    async def get(self, name: str) -> Profile | None:
        """Return a profile, None when the tenant has none with this name."""

    async def users(self, name: str) -> Users:
        """Return who uses a profile; of devices, the first ones."""

    async def put(self, profile: Profile) -> str:
        """Make or replace a profile; return ``created``, ``changed``, ``unchanged``, ``unknown_codec``, or ``too_many``."""

    async def delete(self, name: str) -> str:
        """Delete a profile; return ``deleted``, ``unknown``, or ``used``."""

    async def of_device(self, device: str) -> tuple[bool, str | None]:
        """Tell whether there is a device, and return the profile that it was given by hand, None where it has none."""

    async def give(self, device: str, profile: str | None) -> str:
        """Give a device a profile by hand, or none; return ``changed``, ``unchanged``, ``unknown_device``, or ``unknown_profile``."""


async def get(profiles: Profiles, name: str) -> Profile:
    """Return a profile.

    Raises:
        NotFoundError: The tenant has none with this name.
    """
    found = await profiles.get(name)
    if found is None:
        raise NotFoundError(f"there is no profile {name}")
    return found


async def put(profiles: Profiles, profile: Profile) -> Profile:
    """Make or replace a profile; return it.

    Raises:
        InvalidRequestError: There is no such codec.
        TooManyError: The tenant has too many profiles.
    """
    match await profiles.put(profile):
        case "unknown_codec":
            raise InvalidRequestError.in_body(
                "codec", f"there is no codec {profile.codec_text}; codecs have a version, for example dragino@3"
            )
        case "too_many":
            raise TooManyError("a tenant may have 1,000 profiles; delete some first")
    return await get(profiles, profile.name)


async def delete(profiles: Profiles, name: str) -> None:
    """Delete a profile.

    Raises:
        NotFoundError: The tenant has none with this name.
        InUseError: A source or a device uses it.
    """
    match await profiles.delete(name):
        case "unknown":
            raise NotFoundError(f"there is no profile {name}")
        case "used":
            users = await profiles.users(name)
            names = [f"source {source}" for source in users.sources] + [f"device {device}" for device in users.devices]
            raise InUseError(f"profile {name} is used by {', '.join(names)}; give them another profile first")


async def of_device(profiles: Profiles, device: str) -> str | None:
    """Return the profile that a device was given by hand, None where it has none.

    Raises:
        NotFoundError: The tenant has no such device.
    """
    name = canonical_device(device)
    is_known, profile = await profiles.of_device(name)
    if not is_known:
        raise _no_device(name)
    return profile


async def give(profiles: Profiles, device: str, profile: str | None) -> str:
    """Give a device a profile by hand, or none; return the device's canonical name.

    Raises:
        NotFoundError: The tenant has no such device or profile.
    """
    name = canonical_device(device)
    match await profiles.give(name, profile):
        case "unknown_device":
            raise _no_device(name)
        case "unknown_profile":
            raise NotFoundError(f"there is no profile {profile}")
    return name


def _no_device(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no device {name}; a device is known from its first stored message on, and a rule of its source gives it a profile before that"
    )
