"""What `sens dead-letters` expects of where dead letters are, held by the API and by the database."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from sens_cli.administration import DEAD_LETTERS, load
from sens_cli.api import Api
from sens_cli.api_dead_letters import DeadLettersOverApi
from sens_cli.commands.dead_letters import DeadLetters
from sens_cli.target import Target
from sens_common.dead_letters import Reason
from sens_common.errors import SensError
from support.api import RunningApi, make_stream, set_environment
from support.letters import dead_letter, put_dead_letters

NO_FILTER = dict.fromkeys(("reason", "device", "topic", "since", "before"))

type Open = Callable[..., DeadLetters]


class Kept(NamedTuple):
    """A tenant with three dead letters, one of them of another device and with another reason.

    Attributes:
        tenant: Its name.
        key: A key of it.
        ids: Of the dead letters, in order.
    """

    tenant: str
    key: str
    ids: list[int]


@pytest.fixture
def kept(api: RunningApi) -> Kept:
    tenant, key = api.new_tenant()
    letters = [
        dead_letter(tenant=tenant),
        dead_letter(tenant=tenant, device="other", reason=Reason.TOO_OLD, payload=b"\xff"),
        dead_letter(tenant=tenant, payload=b"{}"),
    ]
    return Kept(tenant, key, put_dead_letters(api.database, letters))


@pytest.fixture(params=["api", "database"])
def letters(request: pytest.FixtureRequest, api: RunningApi, kept: Kept) -> Iterator[Open]:
    """What opens the tenant's dead letters, those that filters name."""
    with pytest.MonkeyPatch.context() as patch, capture_logs():
        set_environment(patch, database=api.database, nats=api.nats)

        def over_api(**filters: str) -> DeadLetters:
            return DeadLettersOverApi(Api(Target(api.url, kept.key)), NO_FILTER | filters)

        def in_database(**filters: str) -> DeadLetters:
            found: DeadLetters = load(DEAD_LETTERS)(Path("/nonexistent"), kept.tenant, NO_FILTER | filters)
            return found

        yield over_api if request.param == "api" else in_database


class TestDeadLetters:
    def test_are_listed_newest_first(self, letters: Open, kept: Kept) -> None:
        assert [each["id"] for each in letters().list(10)] == kept.ids[::-1]
        assert [each["id"] for each in letters().list(2)] == kept.ids[:0:-1]

    def test_are_listed_by_filter(self, letters: Open, kept: Kept) -> None:
        for filters in ({"device": "other"}, {"reason": "too_old"}, {"topic": f"sens/v1/{kept.tenant}/other/#"}):
            assert [each["id"] for each in letters(**filters).list(10)] == [kept.ids[1]]
        assert letters(before="2020-01-01T00:00:00Z").list(10) == []

    def test_have_the_same_form(self, letters: Open, kept: Kept) -> None:
        listed = letters().list(10)[1]
        shown = letters().get(kept.ids[1])
        assert shown == listed | {"payload_base64": "/w==", "payload_text": None}
        assert (shown["received_at"], shown["replays"]) == ("2023-11-14T22:13:20.123456Z", 0)

    def test_that_are_not_there_are_refused(self, letters: Open) -> None:
        for ask in (letters().get, lambda number: letters().delete([number])):
            with pytest.raises(SensError, match="there is no dead letter 999999999"):
                ask(999_999_999)

    def test_are_replayed_by_number_or_by_filter(self, letters: Open, kept: Kept, api: RunningApi) -> None:
        asyncio.run(make_stream(api.nats))
        steps: list[tuple[int, int, int]] = []
        letters().replay(kept.ids[:1], lambda *step: steps.append(step))
        assert steps == [(1, 0, 0)]
        letters(device="other").replay([], lambda *step: steps.append(step))
        assert [sum(column) for column in zip(*steps, strict=True)] == [2, 0, 0]
        assert [each["id"] for each in letters().list(10)] == kept.ids[2:]

    def test_are_deleted_by_number_or_by_filter(self, letters: Open, kept: Kept) -> None:
        assert letters().delete(kept.ids[:1]) == 1
        assert letters(device="other").delete([]) == 1
        assert [each["id"] for each in letters().list(10)] == kept.ids[2:]
        assert letters().delete([]) == 1
        assert letters().list(10) == []
