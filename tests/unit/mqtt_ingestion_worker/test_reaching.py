"""Which addresses a tenant's choice of a name may lead to; no name is looked up here."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from sens_common.brokers import Address
from sens_mqtt_ingestion_worker.brokers.reaching import Reach
from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError


@pytest.fixture
def reach() -> Iterator[Reach]:
    """Names below example.org are a tenant's choice; one is named."""
    reach = Reach(["*.example.org:8883", "house.example.org:8883"], sessions=8)
    yield reach
    reach.close()


def leads_to(patch: pytest.MonkeyPatch, host: str) -> None:
    """Let every name lead to an address."""
    patch.setattr(socket, "getaddrinfo", lambda _name, port, **_: [(0, 0, 0, "", (host, port))])


class TestResolve:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",  # noqa: S104 - nothing listens there
            "224.0.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
        ],
    )
    async def test_refuses_what_is_not_public_where_the_pattern_has_an_asterisk(
        self, reach: Reach, monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        leads_to(monkeypatch, host)
        with pytest.raises(SourceUnavailableError, match="leads to no public address") as refused:
            await reach.resolve(Address("any.example.org", 8883, is_tls=True))
        assert refused.value.reason == "host_not_allowed"

    @pytest.mark.parametrize("host", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
    async def test_allows_what_is_public(self, reach: Reach, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
        leads_to(monkeypatch, host)
        assert await reach.resolve(Address("any.example.org", 8883, is_tls=True)) == [host]

    async def test_of_names_that_nobody_answers_for_holds_up_no_other_session(
        self, reach: Reach, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered = threading.Event()

        def look_up(name: str, port: int, **_: object) -> list[object]:
            if name.startswith("slow"):
                answered.wait()
            return [(0, 0, 0, "", ("8.8.8.8", port))]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        slow = [
            asyncio.create_task(reach.resolve(Address(f"slow{number}.example.org", 8883, is_tls=True)))
            for number in range(7)
        ]
        await asyncio.sleep(0)  # so that all of them have a thread
        try:
            async with asyncio.timeout(60):
                assert await reach.resolve(Address("fast.example.org", 8883, is_tls=True)) == ["8.8.8.8"]
            assert not any(task.done() for task in slow)
        finally:
            answered.set()
        await asyncio.gather(*slow)

    async def test_allows_a_private_address_of_a_host_that_is_named(
        self, reach: Reach, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leads_to(monkeypatch, "10.0.0.7")
        assert await reach.resolve(Address("house.example.org", 8883, is_tls=True)) == ["10.0.0.7"]
