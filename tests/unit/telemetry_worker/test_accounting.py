"""Conservation: whatever fails, and however often envelopes come again, every message is stored and counted once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.envelope import Message
from sens_common.topics import TOPICS
from sens_telemetry_worker.accounting import WrittenPart
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.storing import StoreTooSlowError, StoreUnavailableError
from sens_telemetry_worker.tenants import Tenant
from support.memory import MemoryEnvelope, MemoryInbox, MemoryRegistry, MemoryStore
from support.pipelines import pipeline_of

NOW = 1_700_000_000_000_000
DAY = 86_400.0
TENANTS = ("demo", "acme", "nobody")


class FailingStore(MemoryStore):
    """A database whose connection is lost now and then: before the commit, or after it, when nobody knows."""

    def __init__(self, failures: Sequence[str], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # those of MemoryStore
        self._next = list(failures)

    async def write(self, part: BatchPart) -> WrittenPart:
        failure = self._next.pop(0) if self._next else "none"
        if failure == "before":
            raise StoreUnavailableError("the connection was lost before the commit")
        if failure == "slow":
            raise StoreTooSlowError("it takes too long")
        written = await super().write(part)
        if failure == "after":
            raise StoreUnavailableError("the connection was lost after the commit")
        return written


async def settle(store: MemoryStore, *batches: list[MemoryEnvelope]) -> None:
    """Let a new worker settle batches, until it is killed by the end."""

    stop = asyncio.Event()
    pipeline = pipeline_of(
        MemoryInbox(batches, stop),
        registry=MemoryRegistry({"demo": Tenant(1, "demo"), "acme": Tenant(2, "acme")}, device_limit=10),
        store=store,
        guard=DeadLetterGuard(1, 1),
    )
    await asyncio.wait_for(pipeline.run(stop), 20)


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


def envelope(sequence: int, kinds: list[tuple[str, str]], day: int, discarded: dict[str, int]) -> MemoryEnvelope:
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
    received = Counter(TOPICS.count_by_tenant([message.topic for message in messages])) + Counter(discarded)
    return MemoryEnvelope(sequence, messages, says_received=received, discarded=discarded, stored_at=day * DAY + 5)


@settings(max_examples=300, deadline=None)
@given(ENVELOPES, FAILURES, st.data())
def test_every_message_is_counted_once_whatever_fails(
    given_: list[tuple[list[tuple[str, str]], int, dict[str, int]]], failures: list[str], data: st.DataObject
) -> None:
    envelopes = [envelope(number, *each) for number, each in enumerate(given_, 1)]
    store = FailingStore(
        failures,
        poison={666.0},
        suspected=lambda message: message if data.draw(st.booleans()) else None,
        quota=Quota(data.draw(st.integers(0, 8)), 1000, 0, 0),
    )
    # The envelopes come in other batches each time, as after kills; some of them again and again.
    for _ in range(data.draw(st.integers(1, 3))):
        order = data.draw(st.permutations(envelopes))
        cut = data.draw(st.integers(0, len(order)))
        asyncio.run(settle(store, *(batch for batch in (order[:cut], order[cut:]) if batch)))
    assert unaccounted(store) == {}
    assert store.settled == {taken.position: None for taken in envelopes}
    received = sum(sum(taken.received.values()) for taken in envelopes)
    assert sum(store.counted("received").values()) == received
    assert sum(store.counted("dead_lettered").values()) == len(store.letters)
    # Every message whose values are new is counted as stored, no more: all have one value.
    assert sum(store.counted("stored").values()) == len(store.values)


class TestLaw:
    async def test_fails_where_an_envelope_says_that_more_was_received_than_it_brings(self) -> None:
        store = MemoryStore()
        taken = envelope(1, [("good", "demo")], 0, {})
        taken.says_received = {"demo": 2}
        await settle(store, [taken])
        assert list(unaccounted(store).values()) == [1]


class TestEnvelopeWithoutMessages:
    async def test_books_what_was_discarded_before_it(self) -> None:
        store = MemoryStore()
        await settle(store, [envelope(1, [], 1, {"demo": 3, "nobody": 1, "~": 1})])
        assert store.counted("received") == store.counted("discarded") == {1: 3, 0: 2}


class TestDay:
    async def test_is_that_on_which_the_stream_took_the_envelope(self) -> None:
        store = MemoryStore()
        await settle(store, [envelope(1, [("good", "demo")], 0, {}), envelope(2, [("good", "demo")], 365, {})])
        days = {str(day) for (_, day, word), amount in store.counts.items() if word == "received" and amount}
        assert days == {"1970-01-01", "1971-01-01"}
