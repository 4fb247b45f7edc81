"""The telemetry pipeline between a log, a database and dead letters in memory."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from sens_common.dead_letters import Origin, Reason
from sens_common.envelope import Message
from sens_telemetry_worker.accounting import WrittenPart
from sens_telemetry_worker.batch import BatchPart
from sens_telemetry_worker.guard import TRIAL_SECONDS, DeadLetterGuard
from sens_telemetry_worker.status import TelemetryStatus
from sens_telemetry_worker.storing import StoreUnavailableError
from sens_telemetry_worker.tenants import Tenant
from support.clocks import Clock
from support.memory import MemoryEnvelope, MemoryFeed, MemoryInbox, MemoryRegistry, MemoryStore
from support.pipelines import pipeline_of

NOW = 1_700_000_000_000_000


@dataclass
class Result:
    inbox: MemoryInbox
    store: MemoryStore
    feed: MemoryFeed
    guard: DeadLetterGuard

    @property
    def reasons(self) -> dict[tuple[int, int], str]:
        """The reasons of dead letters, by their envelopes' sequences and their indexes in these."""
        return {(origin.sequence, origin.message_index): letter.reason for origin, letter in self.store.letters.items()}


def message(payload: str, topic: str = "sens/v1/demo/d1/telemetry", received_at: int = NOW) -> Message:
    return Message(topic, payload.encode(), received_at)


async def run(
    *batches: list[MemoryEnvelope],
    store: MemoryStore | None = None,
    guard: DeadLetterGuard | None = None,
    when_halted: Callable[[asyncio.Event], None] | None = None,
    registry: MemoryRegistry | None = None,
) -> Result:
    """Run a worker to the end of the batches; what is to happen once it has halted is given the stop."""

    stop = asyncio.Event()
    result = Result(
        MemoryInbox(batches, stop),
        store or MemoryStore(),
        MemoryFeed({"demo"}),
        guard or DeadLetterGuard(1, 10),
    )
    pipeline = pipeline_of(result.inbox, registry=registry, store=result.store, feed=result.feed, guard=result.guard)
    running = asyncio.create_task(pipeline.run(stop))
    if when_halted is not None:
        while not result.guard.is_halting and not running.done():  # noqa: ASYNC110 - the guard has no event
            await asyncio.sleep(0)
        when_halted(stop)
    await asyncio.wait_for(running, 10)
    return result


class StuckStore(MemoryStore):
    """A database that never answers for rows with the value 666."""

    async def write(self, part: BatchPart) -> WrittenPart:
        if any(666.0 in group.numbers for group in part.rows.groups):
            raise StoreUnavailableError("the database is away")
        return await super().write(part)


def malformed(tenant: str, count: int) -> MemoryEnvelope:
    return envelope(
        *(message("bad", topic=f"sens/v1/{tenant}/d1/telemetry") for _ in range(count)), sequence=sum(map(ord, tenant))
    )


def envelope(*messages: Message, sequence: int = 1) -> MemoryEnvelope:
    return MemoryEnvelope(sequence, list(messages))


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"sens_telemetry_messages_{name}_total", labels) or 0.0


class TestStoring:
    async def test_keeps_numbers_booleans_and_text_apart_by_kind(self) -> None:
        result = await run([envelope(message('{"a": 1, "b": true, "c": "x"}'))])
        assert sorted(result.store.values.items()) == [((1, 1, NOW), 1.0), ((1, 2, NOW), True), ((1, 3, NOW), "x")]
        assert result.inbox.acknowledged

    async def test_the_same_message_twice_has_no_effect(self) -> None:
        result = await run([envelope(message('{"a": 1}'))], [envelope(message('{"a": 1}'), sequence=2)])
        assert result.store.values == {(1, 1, NOW): 1.0}
        assert result.reasons == {}

    async def test_waits_for_a_database_that_is_away(self) -> None:
        result = await run([envelope(message('{"a": 1}'))], store=MemoryStore(failures=3))
        assert result.store.values == {(1, 1, NOW): 1.0}
        assert result.store.writes == 4


class TestDeadLetters:
    async def test_take_what_has_no_tenant(self) -> None:
        result = await run(
            [envelope(message("{}", topic="x"), message('{"a": 1}', topic="sens/v1/nobody/d1/telemetry"))]
        )
        assert result.reasons == {(1, 0): Reason.INVALID_TOPIC, (1, 1): Reason.UNKNOWN_TENANT}
        assert result.inbox.acknowledged

    async def test_take_what_can_not_be_decoded_and_leave_the_rest(self) -> None:
        result = await run([envelope(message('{"a": '), message('{"a": 2}'))])
        assert result.reasons == {(1, 0): Reason.MALFORMED_PAYLOAD}
        assert result.store.letters[Origin(1, 1, 0)].payload == b'{"a": '
        assert list(result.store.values.values()) == [2.0]

    async def test_make_room_in_the_batches_that_follow(self) -> None:
        result = await run(
            [envelope(message("["), *(message('{"a": 1}') for _ in range(3)))],
            [envelope(message('{"b": 2}'), sequence=2)],
        )
        assert result.inbox.rejected_shares == [0.0, 0.25, 0.0]

    async def test_are_named_after_their_index_in_their_envelope(self) -> None:
        bad, first, second, third = message("["), *(message('{"a": 1}', received_at=NOW + n) for n in range(3))
        result = await run(
            [
                envelope(first, bad, sequence=1),
                envelope(sequence=2),
                MemoryEnvelope(3, [bad, second], replays=2),
                envelope(third, first, bad, sequence=4),
            ]
        )
        assert {(o.sequence, o.message_index): letter.replays for o, letter in result.store.letters.items()} == {
            (1, 1): 0,
            (3, 0): 2,
            (4, 2): 0,
        }

    async def test_take_another_value_for_a_stored_key(self) -> None:
        result = await run([envelope(message('{"a": 1}'))], [envelope(message('{"a": 2}'), sequence=2)])
        assert result.reasons == {(2, 0): Reason.CONFLICTING_VALUE}
        assert result.store.values == {(1, 1, NOW): 1.0}

    async def test_take_another_value_for_the_same_key_in_one_batch(self) -> None:
        result = await run([envelope(message('{"a": 1}'), message('{"a": 2}'), message('{"a": 1}'))])
        assert result.reasons == {(1, 1): Reason.CONFLICTING_VALUE}

    async def test_take_the_one_message_that_the_database_refuses(self) -> None:
        messages = [message(f'{{"a": {number}}}', received_at=NOW + number) for number in range(1000)]
        store = MemoryStore(poison={617.0})
        result = await run([envelope(*messages)], store=store)
        assert result.reasons == {(1, 617): Reason.REFUSED_BY_DATABASE}
        assert len(store.values) == 999
        assert store.writes <= 2 * 10 + 1  # a pair of halves for each of log2(1000) steps, and the whole

    @pytest.mark.parametrize("refused", [[617], [0, 1, 2, 500, 999], range(300)])
    async def test_take_the_messages_whose_rows_the_database_names(self, refused: Sequence[int]) -> None:
        messages = [message(f'{{"a": {number}}}', received_at=NOW + number) for number in range(1000)]
        store = MemoryStore(poison=set(refused), suspected=lambda message: message)
        result = await run([envelope(*messages)], store=store)
        assert result.reasons == {(1, number): Reason.REFUSED_BY_DATABASE for number in refused}
        assert len(store.values) == 1000 - len(refused)
        assert store.writes <= 3 * len(refused)

    @pytest.mark.parametrize("named", [0, 5, 999, 1000])
    async def test_do_not_take_the_message_of_another_row_than_the_refused_one(self, named: int) -> None:
        messages = [message(f'{{"a": {number}}}', received_at=NOW + number) for number in range(1000)]
        store = MemoryStore(poison={617.0}, suspected=lambda _message: named)
        result = await run([envelope(*messages)], store=store)
        assert result.reasons == {(1, 617): Reason.REFUSED_BY_DATABASE}
        assert len(store.values) == 999
        assert store.writes <= 2 * 10 + 1 + 2

    async def test_of_a_refused_message_do_not_take_the_equal_value_of_another_one(self) -> None:
        refused = message('{"ts": 1700000000, "a": 1, "b": 666}')
        result = await run(
            [envelope(refused, message('{"ts": 1700000000, "a": 1}'))], store=MemoryStore(poison={666.0})
        )
        assert result.reasons == {(1, 0): Reason.REFUSED_BY_DATABASE}
        assert list(result.store.values.values()) == [1.0]

    async def test_take_what_a_limit_does_not_allow(self) -> None:
        registry = MemoryRegistry({"demo": Tenant(1, "demo")}, device_limit=1, metric_limit=1)
        result = await run(
            [envelope(message('{"a": 1}'))],
            [envelope(message('{"a": 1}', topic="sens/v1/demo/d2/telemetry"), message('{"b": 1}'), sequence=2)],
            registry=registry,
        )
        assert result.reasons == {(2, 0): Reason.LIMIT_REACHED, (2, 1): Reason.LIMIT_REACHED}


class TestAnEnvelopeThatComesTwiceAtOnce:
    async def test_is_stored_and_counted_once_and_acknowledged_twice(self) -> None:
        twice = envelope(message('{"a": 1}'), message("bad"))
        result = await run([twice, twice])
        assert list(result.store.values.values()) == [1.0]
        assert len(result.store.letters) == 1
        assert result.inbox.acknowledged == [twice, twice]
        counts = {word: amount for (_, _, word), amount in result.store.counts.items() if amount}
        assert counts == {"received": 2, "stored": 1, "dead_lettered": 1}


TENANTS = {name: Tenant(number, name) for number, name in enumerate(("demo", "acme", "quiet"), 1)}


def judging_guard(clock: Callable[[], float] = time.monotonic) -> DeadLetterGuard:
    """Return a guard that judges from ten messages on; nobody's were stored before."""
    guard = DeadLetterGuard(0.5, 10, clock)
    guard.expect([])
    return guard


class TestGuard:
    async def test_stops_the_worker_before_it_dead_letters_everything_of_all_tenants(self) -> None:
        result = await run(
            [malformed("demo", 10), malformed("acme", 10)],
            guard=judging_guard(),
            when_halted=asyncio.Event.set,
            registry=MemoryRegistry(TENANTS),
        )
        assert result.guard.is_halting
        assert result.reasons == {}
        assert result.inbox.acknowledged == []

    async def test_lets_a_stopped_worker_try_a_batch_and_go_on_by_itself(self) -> None:
        clock = Clock()
        result = await run(
            [malformed("demo", 10), malformed("acme", 10)],
            [envelope(message('{"a": 1}', topic="sens/v1/quiet/d1/telemetry"))],
            guard=judging_guard(clock),
            when_halted=lambda _stop: clock.advance(TRIAL_SECONDS),
            registry=MemoryRegistry(TENANTS),
        )
        assert len(result.reasons) == 20
        assert list(result.store.values.values()) == [1.0]
        assert not result.guard.is_halting

    async def test_finds_a_quiet_tenant_behind_what_hostile_ones_sent(self) -> None:
        """Though nothing of it was ever seen, and without waiting for a trial."""
        hostile = [[malformed("demo", 10), malformed("acme", 10)] for _ in range(20)]
        for number, batch in enumerate(hostile):
            for each in batch:
                each.sequence += 1000 * number
        result = await run(
            *hostile,
            [envelope(message('{"a": 1}', topic="sens/v1/quiet/d1/telemetry"))],
            guard=DeadLetterGuard(0.5, 10, Clock()),
            registry=MemoryRegistry(TENANTS),
        )
        assert list(result.store.values.values()) == [1.0]
        assert len(result.reasons) == 400
        assert not result.guard.is_halting

    async def test_does_not_stop_the_worker_for_one_tenant(self) -> None:
        result = await run([malformed("demo", 2000)], [envelope(message('{"a": 1}'))], guard=DeadLetterGuard(0.5, 10))
        assert len(result.reasons) == 2000
        assert list(result.store.values.values()) == [1.0]

    async def test_does_not_mind_what_has_no_tenant(self) -> None:
        without_tenant = envelope(*(message("bad", topic="x") for _ in range(20)))
        result = await run([without_tenant, malformed("nobody", 20)], guard=DeadLetterGuard(0.5, 10))
        assert len(result.reasons) == 40
        assert not result.guard.is_halting


class TestProblem:
    async def test_of_one_lane_stays_visible_while_another_works(self) -> None:
        # A lane that gives up at the stop has not halted.
        stop = asyncio.Event()
        store = StuckStore()
        inbox = MemoryInbox(
            [[envelope(message('{"a": 666}'))], [envelope(message('{"a": 2}', received_at=NOW + 1))]], stop
        )
        status = TelemetryStatus()
        status.export_metrics()
        pipeline = pipeline_of(inbox, store=store, status=status)
        lanes = [asyncio.create_task(pipeline.run(stop)) for _ in range(2)]
        await stop.wait()
        assert list(store.values.values()) == [2.0]
        problem = pipeline.problems.problem
        await asyncio.wait_for(asyncio.gather(*lanes), 10)
        assert (problem, REGISTRY.get_sample_value("sens_telemetry_lanes_count", {"state": "halted"})) == (
            "the database does not store: the database is away",
            0,
        )


class TestConservation:
    async def test_every_message_is_counted_once(self) -> None:
        names = ("received", "stored", "duplicate")
        before = {name: counted(name, tenant="demo") for name in names}
        malformed = counted("dead_lettered", tenant="demo", reason="malformed_payload")
        await run(
            [
                envelope(
                    message('{"a": 1}'), message('{"a": 1}'), message("bad"), message('{"a": 2}', received_at=NOW + 1)
                )
            ]
        )
        after = {name: counted(name, tenant="demo") - before[name] for name in names}
        assert after == {"received": 4, "stored": 2, "duplicate": 1}
        assert counted("dead_lettered", tenant="demo", reason="malformed_payload") - malformed == 1


class TestLive:
    async def test_shows_new_readings_only(self) -> None:
        result = await run([envelope(message('{"a": 1}'))], [envelope(message('{"a": 1}'), sequence=2)])
        assert [
            (tenant, reading.device, reading.metric, reading.value) for tenant, reading in result.feed.readings
        ] == [("demo", "d1", "a", 1.0)]
