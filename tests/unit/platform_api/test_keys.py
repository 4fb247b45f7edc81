"""Keys: their form, and for how long an answer of the database is believed."""

import asyncio

import pytest

from sens_common.errors import UnavailableError
from sens_common.keys import is_key, key_hash
from sens_platform_api.caller import Caller
from sens_platform_api.errors import UnauthenticatedError
from sens_platform_api.keys import authenticator as module
from sens_platform_api.keys.authenticator import Authenticator
from support.clocks import Clock
from support.keys import MemoryKeys

KEY = f"sens_{'k' * 43}"
CALLER = Caller(1, 2, "demo")


def kept(*keys: str) -> MemoryKeys:
    return MemoryKeys({key_hash(key): CALLER for key in keys})


class TestForm:
    @pytest.mark.parametrize("text", ["", "sens_", KEY + "k", KEY[:-1], KEY.upper(), KEY[:-1] + "=", KEY + "\n"])
    def test_of_anything_else_is_no_key(self, text: str) -> None:
        assert is_key(KEY)
        assert not is_key(text)


class TestAuthenticator:
    async def test_asks_once_within_the_time_and_again_after_it(self) -> None:
        keys, clock = kept(KEY), Clock(0.0)
        authenticator = Authenticator(keys, clock)
        assert await authenticator.caller(KEY) == CALLER
        assert await authenticator.caller(KEY) == CALLER
        assert keys.questions == 1
        keys.callers.clear()
        clock.now = module.CACHE_SECONDS
        with pytest.raises(UnauthenticatedError, match="revoked"):
            await authenticator.caller(KEY)

    async def test_asks_nothing_about_what_has_not_the_form_of_a_key(self) -> None:
        keys = kept()
        with pytest.raises(UnauthenticatedError):
            await Authenticator(keys).caller("x" * 10_000)
        assert keys.questions == 0

    async def test_remembers_a_bounded_number_of_keys(self) -> None:
        many = [f"sens_{index:043}" for index in range(5)]
        authenticator = Authenticator(kept(*many), cache_size=2)
        for key in many:
            await authenticator.caller(key)
        assert len(authenticator._cache) == 2

    async def test_remembers_no_unknown_key(self) -> None:
        authenticator = Authenticator(kept())
        with pytest.raises(UnauthenticatedError):
            await authenticator.caller(KEY)
        assert not authenticator._cache

    async def test_notes_the_use_of_a_key_once_a_minute(self) -> None:
        keys, clock = kept(KEY), Clock(0.0)
        authenticator = Authenticator(keys, clock)
        for now in (0.0, 3.0, 59.0, 60.0, 63.0):
            clock.now = now
            await authenticator.caller(KEY)
        assert keys.noted == [1, 1]

    async def test_finds_the_caller_though_the_use_can_not_be_noted(self) -> None:
        keys = kept(KEY)
        keys.problem = UnavailableError("the database can only be read")
        assert await Authenticator(keys).caller(KEY) == CALLER

    async def test_asks_once_for_requests_at_the_same_time(self) -> None:
        keys = kept(KEY)

        authenticator = Authenticator(keys)
        assert (await asyncio.gather(*(authenticator.caller(KEY) for _ in range(20)))) == [CALLER] * 20
        assert keys.questions == 1
