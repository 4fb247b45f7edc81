"""The API's sources, profiles and codecs in memory, with what tenants share: their topic filters."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sens_common.brokers import address_of
from sens_common.topic_filters import overlap
from sens_platform_api.codecs.repository import Addition, Codec, Version, WholeVersion
from sens_platform_api.profiles.repository import Profile, Users
from sens_platform_api.sources.repository import Put, Source

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass
class MemoryRooms:
    """What one tenant has.

    Attributes:
        others: All tenants, this one too.
        devices: With the profile that each was given by hand.
    """

    others: "list[MemoryRooms]"
    sources: dict[str, Source] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    codecs: dict[str, dict[int, WholeVersion]] = field(default_factory=dict)
    last_numbers: dict[str, int] = field(default_factory=dict)
    devices: dict[str, str | None] = field(default_factory=dict)


def _address(source: Source) -> str | None:
    return None if source.broker is None else str(address_of(source.broker.url))


def _session(source: Source) -> str | None:
    return None if source.broker is None else source.broker.client_id


class MemorySources:
    """The sources of one tenant, as `sources.service.Sources`."""

    def __init__(self, rooms: MemoryRooms) -> None:
        self._rooms = rooms

    async def by_name(self, *, after: str, limit: int) -> list[Source]:
        return [self._rooms.sources[name] for name in sorted(self._rooms.sources) if name > after][:limit]

    async def get(self, name: str) -> Source | None:
        return self._rooms.sources.get(name)

    async def put(self, source: Source) -> Put:
        for name in [source.default_profile, *(rule.profile for rule in source.profile_rules)]:
            if name is not None and name not in self._rooms.profiles:
                return Put("unknown_profile", name)
        for rooms in sorted(self._rooms.others, key=lambda each: each is not self._rooms):
            for other in rooms.sources.values():
                if rooms is self._rooms and other.name == source.name:
                    continue
                if _address(source) != _address(other) or (source.broker is not None and rooms is not self._rooms):
                    continue
                if source.topic_filter and other.topic_filter and overlap(source.topic_filter, other.topic_filter):
                    return Put("overlap", other.name if rooms is self._rooms else None)
                if (
                    source.broker != other.broker
                    and _session(source) == _session(other)
                    and source.enabled
                    and other.enabled
                ):
                    return Put("session", other.name)
        before = self._rooms.sources.get(source.name)
        after = source._replace(created_at=NOW, changed_at=NOW)
        self._rooms.sources[source.name] = after
        return Put("created" if before is None else "unchanged" if before == after else "changed", None)

    async def delete(self, name: str) -> str:
        if name not in self._rooms.sources:
            return "unknown"
        if self._rooms.sources[name].enabled:
            return "used"
        del self._rooms.sources[name]
        return "deleted"


class MemoryProfiles:
    """The profiles of one tenant, as `profiles.service.Profiles`."""

    def __init__(self, rooms: MemoryRooms) -> None:
        self._rooms = rooms

    async def by_name(self, *, after: str, limit: int) -> list[Profile]:
        return [self._rooms.profiles[name] for name in sorted(self._rooms.profiles) if name > after][:limit]

    async def get(self, name: str) -> Profile | None:
        return self._rooms.profiles.get(name)

    async def users(self, name: str) -> Users:
        sources = [
            source.name
            for source in self._rooms.sources.values()
            if name in {source.default_profile, *(rule.profile for rule in source.profile_rules)}
        ]
        devices = [device for device, profile in self._rooms.devices.items() if profile == name]
        return Users(sorted(sources), sorted(devices))

    async def put(self, profile: Profile) -> str:
        if profile.codec is not None and profile.codec_version not in self._rooms.codecs.get(profile.codec, {}):
            return "unknown_codec"
        before = self._rooms.profiles.get(profile.name)
        after = self._rooms.profiles[profile.name] = profile._replace(changed_at=NOW)
        return "created" if before is None else "unchanged" if before == after else "changed"

    async def delete(self, name: str) -> str:
        if name not in self._rooms.profiles:
            return "unknown"
        if any(await self.users(name)):
            return "used"
        del self._rooms.profiles[name]
        return "deleted"

    async def of_device(self, device: str) -> tuple[bool, str | None]:
        return device in self._rooms.devices, self._rooms.devices.get(device)

    async def give(self, device: str, profile: str | None) -> str:
        if device not in self._rooms.devices:
            return "unknown_device"
        if profile is not None and profile not in self._rooms.profiles:
            return "unknown_profile"
        before, self._rooms.devices[device] = self._rooms.devices[device], profile
        return "unchanged" if before == profile else "changed"


class MemoryCodecs:
    """The codecs of one tenant, as `codecs.service.Codecs`."""

    def __init__(self, rooms: MemoryRooms) -> None:
        self._rooms = rooms

    async def by_name(self, *, after: str, limit: int) -> list[Codec]:
        names = [name for name in sorted(self._rooms.codecs) if name > after][:limit]
        return [self._codec(name) for name in names]

    async def get(self, name: str) -> Codec | None:
        return self._codec(name) if name in self._rooms.codecs else None

    async def versions(self, name: str) -> list[Version]:
        numbers = sorted(self._rooms.codecs.get(name, {}), reverse=True)
        return [self._whole(name, number).version for number in numbers]

    async def version(self, name: str, number: int) -> WholeVersion | None:
        return self._whole(name, number) if number in self._rooms.codecs.get(name, {}) else None

    async def add(self, name: str, source: str, examples: Sequence[dict[str, Any]]) -> Addition:
        versions = self._rooms.codecs.setdefault(name, {})
        for number, found in versions.items():
            if found.source == source:
                return Addition("exists", number)
        number = self._rooms.last_numbers[name] = self._rooms.last_numbers.get(name, 0) + 1
        content = source.encode()
        digest = hashlib.sha256(content).hexdigest()
        version = Version(number, digest, len(content), len(examples), NOW, "key 1 (unnamed)", [])
        versions[number] = WholeVersion(version, source, list(examples))
        return Addition("created", number)

    async def delete(self, name: str, number: int | None) -> str:
        versions = self._rooms.codecs.get(name)
        if versions is None or (number is not None and number not in versions):
            return "unknown"
        if any(version.profiles for version in await self.versions(name) if number in {None, version.number}):
            return "used"
        if number is None:
            del self._rooms.codecs[name]
            del self._rooms.last_numbers[name]
        else:
            del versions[number]
        return "deleted"

    def _codec(self, name: str) -> Codec:
        versions = self._rooms.codecs[name]
        return Codec(name, max(versions, default=None), len(versions), NOW)

    def _whole(self, name: str, number: int) -> WholeVersion:
        found = self._rooms.codecs[name][number]
        profiles = self._rooms.profiles.values()
        users = sorted(each.name for each in profiles if (each.codec, each.codec_version) == (name, number))
        return found._replace(version=found.version._replace(profiles=users))
