"""Ingest keys: listing, making, revoking."""

from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from sens_common.keys import PREFIX_LENGTH, key_hash, new_key
from sens_common.names import DEVICE_RULE, device_name
from sens_platform_api.errors import InvalidRequestError, NotFoundError, TooManyError
from sens_platform_api.ingest_keys.repository import Created, IngestKey, NewKey


class IngestKeys(Protocol):
    """The ingest keys of one tenant, changed in the name of one caller."""

    async def by_id(self, *, after: int, limit: int) -> list[IngestKey]:
        """Return keys by number: those after one."""

    async def get(self, key_id: int) -> IngestKey | None:
        """Return a key, None when the tenant has none with this number."""

    async def create(self, key: NewKey) -> Created:
        """Store a new key."""

    async def revoke(self, key_id: int) -> str:
        """Revoke a key; return ``revoked``, ``unchanged``, or ``unknown``."""


class Wanted(NamedTuple):
    """What a new key is to be for.

    Attributes:
        name: For people.
        source: The source, None for the native topics.
        device: One device, None for any.
        expires_at: None for never.
    """

    name: str
    source: str | None
    device: str | None
    expires_at: datetime | None


class KeyPage(NamedTuple):
    """Some keys, and the number after which the others are; None at the end."""

    keys: list[IngestKey]
    after: int | None


async def list_page(keys: IngestKeys, *, after: int, limit: int) -> KeyPage:
    """Return keys by number."""
    found = await keys.by_id(after=after, limit=limit + 1)
    return KeyPage(found[:limit], found[limit - 1].id if len(found) > limit else None)


def made(wanted: Wanted) -> tuple[NewKey, str]:
    """Return a new key to store, and the key itself, which can't be shown again.

    Raises:
        InvalidRequestError: The device's name is none, or the time is past.
    """
    device = None
    if wanted.device is not None:
        device = device_name(wanted.device)
        if device is None:
            raise InvalidRequestError.in_body("device", f"a device's name has {DEVICE_RULE}; or it is an EUI")
    if wanted.expires_at is not None and wanted.expires_at <= datetime.now(UTC):
        raise InvalidRequestError.in_body("expires_at", "a time in the future is needed")
    key = new_key()
    return NewKey(wanted.name, wanted.source, device, key[:PREFIX_LENGTH], key_hash(key), wanted.expires_at), key


def number_of(created: Created, source: str | None) -> int:
    """Return the number of a key that was made.

    Raises:
        InvalidRequestError: It was not: there is no such source, or it takes no HTTP.
        TooManyError: The tenant has too many.
    """
    match created:
        case Created("created", int(key_id)):
            return key_id
        case Created("too_many", _):
            raise TooManyError("a tenant may have 1,000 ingest keys; revoke some first")
        case Created("wrong_source", _):
            raise InvalidRequestError.in_body(
                "source", f"source {source} takes messages by MQTT; keys are for sources of HTTP"
            )
        case _:
            raise InvalidRequestError.in_body("source", f"there is no source {source}; make it first")


async def create(keys: IngestKeys, wanted: Wanted) -> tuple[IngestKey, str]:
    """Make a key; return it, and the key itself, which can't be shown again.

    Raises:
        InvalidRequestError: The source, the device or the time is wrong.
        TooManyError: The tenant has too many.
    """
    new, key = made(wanted)
    key_id = number_of(await keys.create(new), wanted.source)
    found = await keys.get(key_id)
    if found is None:
        raise NotFoundError("the key was made, and its source was deleted at the same time")
    return found, key


async def revoke(keys: IngestKeys, key_id: int) -> None:
    """Revoke a key; one that is revoked stays so.

    Raises:
        NotFoundError: The tenant has no such key.
    """
    if await keys.revoke(key_id) == "unknown":
        raise NotFoundError(f"there is no ingest key {key_id}")
