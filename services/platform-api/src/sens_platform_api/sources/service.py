"""Sources: listing, making, deleting, and trying a message on one."""

from collections.abc import Collection, Mapping
from typing import Protocol

from sens_common.errors import RejectedMessageError, SettingsError, UnavailableError
from sens_common.source_states import SourceState
from sens_common.topic_filters import checked, overlap
from sens_common.topics import NATIVE_PATTERN, SOURCES
from sens_payloads.explaining import Explanation, explain
from sens_payloads.formats import format_settings
from sens_payloads.formats.sparkplug_births import NO_BIRTHS, Birth, Births, OneBirth, Publisher
from sens_payloads.formats.sparkplug_topics import data_publisher
from sens_payloads.frames import FrameDecoder
from sens_payloads.profiles import Profile
from sens_payloads.sources import Source as CompiledSource
from sens_payloads.uplinks import Received
from sens_platform_api.errors import InUseError, InvalidRequestError, NotFoundError, OverlapError, TooManyError
from sens_platform_api.sources.repository import Put, Source


class Sources(Protocol):
    """The sources of one tenant, changed in the name of one caller."""

    async def by_name(self, *, after: str, limit: int) -> list[Source]:
        """Return sources by name: those after a name."""

    async def get(self, name: str) -> Source | None:
        """Return a source, None when the tenant has none with this name."""

    async def put(self, source: Source) -> Put:
        """Make or replace a source."""

    async def delete(self, name: str) -> str:
        """Delete a source; return ``deleted``, ``unknown``, or ``used``: it is enabled."""


class States(Protocol):
    """What the ingestion workers tell."""

    async def of(self, tenant: str) -> Mapping[str, SourceState]:
        """Return how a tenant's sources do, by name.

        Raises:
            UnavailableError: That can't be asked.
        """


class Bench(Protocol):
    """The sources of one tenant as the telemetry worker uses them."""

    async def compiled(self, name: str) -> CompiledSource | None:
        """Return a source, None when the tenant has none with this name; raise `SettingsError` where it can't be used."""

    async def profiles_by_hand(self, devices: Collection[str]) -> Mapping[str, Profile]:
        """Return the profiles that some devices were given by hand, by the devices' names."""

    async def last_birth(self, source_id: int, publisher: Publisher) -> Birth | None:
        """Return the birth that explains what a publisher of Sparkplug B sends now, None where none has come."""


async def get(sources: Sources, name: str) -> Source:
    """Return a source.

    Raises:
        NotFoundError: The tenant has none with this name.
    """
    found = await sources.get(name)
    if found is None:
        raise _no_source(name)
    return found


async def put(sources: Sources, source: Source) -> Source:
    """Make or replace a source; return it.

    Raises:
        InvalidRequestError: Its format, a setting, its topic filter or a profile is wrong.
        OverlapError: Another source, of whichever tenant, or the platform's own topics match what its topic filter matches.
        TooManyError: The tenant has too many sources.
    """
    _check(source)
    match await sources.put(source):
        case Put("unknown_profile", name):
            raise InvalidRequestError.in_body("profile_rules", f"there is no profile {name}; make it first")
        case Put("too_many", _):
            raise TooManyError("a tenant may have 200 sources; delete some first")
        case Put("session", name):
            raise OverlapError(
                f"source {name} has the same session at its broker with other settings: give this one a client_id of its own, or disable"
                " that source before you change both"
            )
        case Put("overlap", None):
            raise OverlapError(
                f"{source.topic_filter} matches topics that a source of another tenant has; narrow it to the topics of your own devices"
            )
        case Put("overlap", name):
            raise OverlapError(
                f"source {source.name} with {source.topic_filter} and source {name} match the same topics; narrow one of their topic filters"
            )
    return await get(sources, source.name)


def _check(source: Source) -> None:
    try:
        format_settings(source.format, source.settings)
    except SettingsError as error:
        raise InvalidRequestError.in_body("settings", str(error)) from None
    if source.topic_filter is None:
        if source.format == "sparkplug_b":
            raise InvalidRequestError.in_body(
                "transport", "Sparkplug B comes over MQTT: its topics say what a message is"
            )
        return
    try:
        checked(source.topic_filter)
    except ValueError as error:
        raise InvalidRequestError.in_body("topic_filter", str(error)) from None
    if source.topic_filter.startswith("$"):
        raise InvalidRequestError.in_body(
            "topic_filter",
            "topics that begin with $ are the broker's own; a shared subscription is made by the platform",
        )
    if source.broker is not None:
        return
    for taken in (NATIVE_PATTERN.filter, f"{SOURCES.root}#"):
        if overlap(source.topic_filter, taken):
            raise OverlapError(
                f"{source.topic_filter} matches topics of the platform itself, {taken}, whose messages need no source; narrow it"
            )


async def delete(sources: Sources, name: str) -> None:
    """Delete a source.

    Raises:
        NotFoundError: The tenant has none with this name.
        InUseError: It is enabled.
    """
    match await sources.delete(name):
        case "unknown":
            raise _no_source(name)
        case "used":
            found = await get(sources, name)
            where = f"on {found.topic_filter}" if found.topic_filter is not None else "over HTTP"
            raise InUseError(
                f"source {name} is enabled: messages that come {where} would be dead letters; disable it first, then delete it"
            )


async def states(told: States, tenant: str) -> Mapping[str, SourceState] | None:
    """Return how a tenant's sources do, by name; None where nobody can be asked."""
    try:
        return await told.of(tenant)
    except UnavailableError:
        return None


async def try_message(bench: Bench, name: str, received: Received, tenant_id: int, frames: FrameDecoder) -> Explanation:
    """Return what each step makes of a message; nothing is stored.

    Raises:
        NotFoundError: The tenant has no such source.
        InvalidRequestError: The source can't be used.
    """
    try:
        source = await bench.compiled(name)
    except SettingsError as error:
        raise InvalidRequestError.in_body("source", f"source {name} can't be used: {error}") from None
    if source is None:
        raise _no_source(name)
    births = await _births(bench, source, received)
    return await explain(
        source, received, tenant_id=tenant_id, assigned=bench.profiles_by_hand, frames=frames, births=births
    )


async def _births(bench: Bench, source: CompiledSource, received: Received) -> Births:
    """Return the births that explain a message now."""
    if not source.has_births:
        return NO_BIRTHS
    try:
        publisher = data_publisher(received.topic)
    except RejectedMessageError:  # which unwrapping says too
        return NO_BIRTHS
    return NO_BIRTHS if publisher is None else OneBirth(await bench.last_birth(source.id, publisher))


def _no_source(name: str) -> NotFoundError:
    return NotFoundError(f"there is no source {name}")
