"""What the API expects of where the ingestion workers read limits, held by those in memory and by JetStream."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
from nats.aio.client import Client
from nats.js.errors import NoKeysError

from sens_common import tenant_limits
from sens_common.errors import UnavailableError
from sens_common.jetstream import connect
from sens_common.settings import NatsSettings
from sens_common.tenant_limits import TenantLimits
from sens_platform_api.tenants.jetstream import LimitsBucket
from sens_platform_api.tenants.service import PublishedLimits
from support.memory_messaging import MemoryPublishedLimits

LIMITS = {"demo": TenantLimits(10), "plant.north": TenantLimits(2**31 - 1), "plant_north": TenantLimits(1)}


class Published(Protocol):
    """Limits that are published, and who sees and changes them besides."""

    @property
    def limits(self) -> PublishedLimits: ...

    def another(self) -> PublishedLimits:
        """Return another publisher of the same limits, as after a restart."""

    async def seen(self) -> dict[str, TenantLimits]:
        """Return what the ingestion workers read."""

    async def change(self, tenant: str, limits: TenantLimits | None) -> None:
        """Change what is published, as a restore of an older state does."""

    async def cut(self) -> None:
        """Let nothing be published any more."""


class PublishedInMemory:
    def __init__(self) -> None:
        self.limits = MemoryPublishedLimits({})

    def another(self) -> PublishedLimits:
        return MemoryPublishedLimits(self.limits.limits)

    async def seen(self) -> dict[str, TenantLimits]:
        return dict(self.limits.limits)

    async def change(self, tenant: str, limits: TenantLimits | None) -> None:
        self.limits.limits.pop(tenant, None)
        if limits is not None:
            self.limits.limits[tenant] = limits

    async def cut(self) -> None:
        self.limits.is_away = True


class PublishedInJetStream:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.limits = LimitsBucket(client)

    def another(self) -> PublishedLimits:
        return LimitsBucket(self._client)

    async def seen(self) -> dict[str, TenantLimits]:
        bucket = await self._client.jetstream().key_value(tenant_limits.BUCKET)
        try:
            keys = await bucket.keys()
        except NoKeysError:
            return {}
        return {tenant_limits.tenant(key): tenant_limits.decode((await bucket.get(key)).value or b"") for key in keys}

    async def change(self, tenant: str, limits: TenantLimits | None) -> None:
        bucket = await self._client.jetstream().key_value(tenant_limits.BUCKET)
        if limits is None:
            await bucket.delete(tenant_limits.key(tenant))
        else:
            await bucket.put(tenant_limits.key(tenant), tenant_limits.encode(limits))

    async def cut(self) -> None:
        await self._client.close()


type Opener = Callable[[], AbstractAsyncContextManager[Published]]


@pytest.fixture(params=["memory", "jetstream"])
def opened(request: pytest.FixtureRequest) -> Opener:
    if request.param == "memory":

        @asynccontextmanager
        async def open_memory() -> AsyncIterator[Published]:
            yield PublishedInMemory()

        return open_memory
    settings: NatsSettings = request.getfixturevalue("nats")

    @asynccontextmanager
    async def open_jetstream() -> AsyncIterator[Published]:
        async with connect(settings, "test") as client:
            yield PublishedInJetStream(client)

    return open_jetstream


class TestBringTo:
    async def test_publishes_what_is_given_and_says_how_much(self, opened: Opener) -> None:
        async with opened() as it:
            assert await it.limits.bring_to(LIMITS) == 3
            assert await it.seen() == LIMITS

    async def test_the_same_again_writes_nothing_also_after_a_restart(self, opened: Opener) -> None:
        async with opened() as it:
            await it.limits.bring_to(LIMITS)
            assert [await it.limits.bring_to(dict(LIMITS)), await it.another().bring_to(dict(LIMITS))] == [0, 0]

    async def test_writes_and_removes_what_differs(self, opened: Opener) -> None:
        async with opened() as it:
            await it.limits.bring_to(LIMITS)
            changed = {"demo": TenantLimits(10), "plant.north": TenantLimits(5), "new": TenantLimits(7)}
            assert await it.limits.bring_to(changed) == 3
            assert await it.seen() == changed

    async def test_nothing_removes_all(self, opened: Opener) -> None:
        async with opened() as it:
            assert await it.limits.bring_to({}) == 0
            await it.limits.bring_to(LIMITS)
            assert [await it.limits.bring_to({}) for _ in range(2)] == [3, 0]
            assert await it.seen() == {}
            assert await it.limits.bring_to(LIMITS) == 3

    async def test_puts_right_what_others_have_changed(self, opened: Opener) -> None:
        async with opened() as it:
            await it.limits.bring_to(LIMITS)
            await it.change("demo", TenantLimits(1))
            await it.change("gone", TenantLimits(1))
            await it.change("plant.north", None)
            assert await it.limits.bring_to(LIMITS) == 3
            assert await it.seen() == LIMITS

    async def test_says_that_nothing_can_be_published(self, opened: Opener) -> None:
        async with opened() as it:
            await it.limits.bring_to(LIMITS)
            await it.cut()
            with pytest.raises(UnavailableError):
                await it.limits.bring_to({})
