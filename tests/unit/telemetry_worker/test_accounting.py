"""Conservation: whatever fails, and however often envelopes come again, every message is stored and counted once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.envelope import Message
from sens_telemetry_worker import pipeline as pipeline_module
from sens_telemetry_worker.accounting import Part, count_by_tenant
from sens_telemetry_worker.columns import Tenant
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.flow import Flow
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.pipeline import Pipeline
from sens_telemetry_worker.routing import Router
from sens_telemetry_worker.storing import StoreTooSlowError, StoreUnavailableError, Written
from support.memory import MemoryEntry, MemoryFeed, MemoryInbox, MemoryRegistry, MemoryStore

NOW = 1_700_000_000_000_000
DAY = 86_400.0
TENANTS = ("demo", "acme", "nobody")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "FIRST_RETRY_SECONDS", 0.0001)


class FailingStore(MemoryStore):
    """A database whose connection is lost now and then: before the commit, or after it, when nobody knows."""

    def __init__(self, failures: Sequence[str], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # those of MemoryStore
        self._next = list(failures)

    async def write(self, part: Part) -> Written:
        failure = self._next.pop(0) if self._next else "none"
        if failure == "before":
            raise StoreUnavailableError("the connection was lost before the commit")
        if failure == "slow":
            raise StoreTooSlowError("it takes too long")
        written = await super().write(part)
        if failure == "after":
            raise StoreUnavailableError("the connection was lost after the commit")
        return written


def settle(store: MemoryStore, *batches: list[MemoryEntry]) -> None:
    """Let a new worker settle batches, until it is killed by the end."""

    async def work() -> None:
        stop = asyncio.Event()
        pipeline = Pipeline(
            MemoryInbox(batches, stop),
            router=Router(
                MemoryRegistry({"demo": Tenant(1, "demo"), "acme": Tenant(2, "acme")}, device_limit=10),
                decoder("native"),
            ),
            store=store,
            feed=MemoryFeed(set()),
            guard=DeadLetterGuard(1, 1),
            flow=Flow(),
        )
        await asyncio.wait_for(pipeline.run(stop), 20)

    asyncio.run(work())


def unaccounted(store: MemoryStore) -> dict[tuple[int, object], int]:
    """Return what the law is broken by, by tenant and day."""
    left: Counter[tuple[int, object]] = Counter()
    for (tenant, day, word), amount in store.counts.items():
        left[tenant, day] += amount if word == "received" else -amount
    return {key: amount for key, amount in left.items() if amount}


KINDS = st.sampled_from(["good", "same", "poison", "malformed", "other value"])
ENVELOPES = st.lists(
    st.tuples(
        st.lists(st.tuples(KINDS, st.sampled_from(TENANTS)), max_size=6),
        st.integers(0, 2),  # days
        st.dictionaries(st.sampled_from([*TENANTS, "~"]), st.integers(1, 3), max_size=2),  # discarded
    ),
    min_size=1,
    max_size=5,
)
FAILURES = st.lists(st.sampled_from(["none", "none", "before", "after", "slow"]), max_size=12)


def envelope(sequence: int, kinds: list[tuple[str, str]], day: int, discarded: dict[str, int]) -> MemoryEntry:
    payloads = {
        "same": '{"ts": 1700000000, "n": 1}',
        "poison": '{"n": 666}',
        "malformed": "{",
        "other value": '{"ts": 1700000000, "n": 2}',
    }
    messages = [
        Message(
            f"sens/v1/{tenant}/d1/telemetry",
            payloads.get(kind, f'{{"n": {number}}}').encode(),
            NOW + sequence * 1000 + number,
        )
        for number, (kind, tenant) in enumerate(kinds)
    ]
    received = Counter(count_by_tenant(messages)) + Counter(discarded)
    return MemoryEntry(sequence, messages, says_received=received, discarded=discarded, logged_at=day * DAY + 5)


@settings(max_examples=300, deadline=None)
@given(ENVELOPES, FAILURES, st.data())
def test_every_message_is_counted_once_whatever_fails(
    given_: list[tuple[list[tuple[str, str]], int, dict[str, int]]], failures: list[str], data: st.DataObject
) -> None:
    entries = [envelope(number, *each) for number, each in enumerate(given_, 1)]
    store = FailingStore(
        failures,
        poison={666.0},
        suspected=lambda message: message if data.draw(st.booleans()) else None,
        quota=Quota(data.draw(st.integers(0, 8)), 1000, 0, 0),
    )
    # The envelopes come in other batches each time, as after kills; some of them again and again.
    for _ in range(data.draw(st.integers(1, 3))):
        order = data.draw(st.permutations(entries))
        cut = data.draw(st.integers(0, len(order)))
        settle(store, *(batch for batch in (order[:cut], order[cut:]) if batch))
    assert unaccounted(store) == {}
    assert store.settled == {entry.place: None for entry in entries}
    received = sum(sum(entry.received.values()) for entry in entries)
    assert sum(store.counted("received").values()) == received
    assert sum(store.counted("dead_lettered").values()) == len(store.letters)
    # Every message whose values are new is counted as stored, no more: all have one value.
    assert sum(store.counted("stored").values()) == len(store.values)


class TestLaw:
    def test_fails_where_an_envelope_says_that_more_was_received_than_it_brings(self) -> None:
        store = MemoryStore()
        entry = envelope(1, [("good", "demo")], 0, {})
        entry.says_received = {"demo": 2}
        settle(store, [entry])
        assert list(unaccounted(store).values()) == [1]


class TestEnvelopeWithoutMessages:
    def test_books_what_was_discarded_before_it(self) -> None:
        store = MemoryStore()
        settle(store, [envelope(1, [], 1, {"demo": 3, "nobody": 1, "~": 1})])
        assert store.counted("received") == store.counted("discarded") == {1: 3, 0: 2}


class TestDay:
    def test_is_that_on_which_the_log_took_the_envelope(self) -> None:
        store = MemoryStore()
        settle(store, [envelope(1, [("good", "demo")], 0, {}), envelope(2, [("good", "demo")], 365, {})])
        days = {str(day) for (_, day, word), amount in store.counts.items() if word == "received" and amount}
        assert days == {"1970-01-01", "1971-01-01"}
