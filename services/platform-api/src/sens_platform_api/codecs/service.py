"""Codecs: listing, adding versions, deleting those that nothing uses."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from sens_platform_api.codecs.repository import Addition, Codec, Version, WholeVersion
from sens_platform_api.errors import InUseError, InvalidRequestError, NotFoundError, TooManyError

MAX_NUMBER = 2**31 - 1


class Codecs(Protocol):
    """The codecs of one tenant, changed in the name of one caller."""

    async def by_name(self, *, after: str, limit: int) -> list[Codec]:
        """Return codecs by name: those after a name."""

    async def get(self, name: str) -> Codec | None:
        """Return a codec, None when the tenant has none with this name."""

    async def versions(self, name: str) -> list[Version]:
        """Return the versions of a codec, the newest first; none when there is no such codec."""

    async def version(self, name: str, number: int) -> WholeVersion | None:
        """Return a version of a codec, None when there is none."""

    async def add(self, name: str, source: str, examples: Sequence[dict[str, Any]]) -> Addition:
        """Add a version to a codec, which is made if there is none."""

    async def delete(self, name: str, number: int | None) -> str:
        """Delete a version of a codec, or all of it; return ``deleted``, ``unknown``, or ``used``."""


class CodecCheck(Protocol):
    """Looks whether a codec does what its examples say."""

    async def problems(self, tenant_id: int, source: str, examples: Sequence[dict[str, Any]]) -> list[str]:
        """Return what is wrong, nothing if it can be saved.

        Raises:
            CodecsUnavailableError: Codecs can't run here, or not now.
        """


class Added(NamedTuple):
    """A version, and whether it is new."""

    version: Version
    is_new: bool


async def get(codecs: Codecs, name: str) -> Codec:
    """Return a codec.

    Raises:
        NotFoundError: The tenant has none with this name.
    """
    found = await codecs.get(name)
    if found is None:
        raise NotFoundError(f"there is no codec {name}")
    return found


async def list_versions(codecs: Codecs, name: str) -> list[Version]:
    """Return the versions of a codec, the newest first; raises as `get`."""
    await get(codecs, name)
    return await codecs.versions(name)


async def get_version(codecs: Codecs, name: str, number: int) -> WholeVersion:
    """Return a version of a codec.

    Raises:
        NotFoundError: The tenant has no such codec, or it has no such version.
    """
    found = await codecs.version(name, number)
    if found is None:
        raise NotFoundError(f"there is no codec {name}@{number}")
    return found


async def add(
    codecs: Codecs, check: CodecCheck, *, tenant_id: int, name: str, source: str, examples: Sequence[dict[str, Any]]
) -> Added:
    """Add a version to a codec, which is made if there is none; a source that is a version already stays that one.

    Raises:
        InvalidRequestError: The codec does not do what an example says.
        CodecsUnavailableError: Codecs can't run here, or not now.
        TooManyError: The tenant has too many codecs, or the codec too many versions.
    """
    problems = await check.problems(tenant_id, source, examples)
    if problems:
        raise InvalidRequestError.in_body("source", "; ".join(problems))
    added = await codecs.add(name, source, examples)
    if added.number is None:
        raise TooManyError("a tenant may have 1,000 codecs, and a codec 1,000 versions; delete some first")
    return Added((await get_version(codecs, name, added.number)).version, added.outcome == "created")


async def delete(codecs: Codecs, name: str, number: int | None = None) -> None:
    """Delete a version of a codec, or all of it.

    Raises:
        NotFoundError: There is no such codec or version.
        InUseError: A profile uses it.
    """
    shown = name if number is None else f"{name}@{number}"
    match await codecs.delete(name, number):
        case "unknown":
            raise NotFoundError(f"there is no codec {shown}")
        case "used":
            users = [
                f"profile {profile} uses {name}@{version.number}"
                for version in await codecs.versions(name)
                if number in {None, version.number}
                for profile in version.profiles
            ]
            raise InUseError(f"codec {shown} is in use: {', '.join(users)}; give them another codec first")
