"""Replays of many dead letters: what goes into the log, what stays, and what happens when one is interrupted."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import pytest
from nats.aio.client import Client

from sens_common import dead_letters, envelope
from sens_common.dead_letters import DeadLetter, Reason
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import DEAD_LETTERS_STREAM, TELEMETRY_STREAM
from sens_common.settings import NatsSettings
from sens_platform_api.dead_letters import service
from sens_platform_api.dead_letters.repository import Choice, DeadLetterStream, StoredDeadLetter
from sens_platform_api.dead_letters.service import Filter
from sens_platform_api.errors import NotFoundError
from sens_telemetry_worker.columns import Tenant
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.flow import Flow
from sens_telemetry_worker.guard import DeadLetterGuard
from sens_telemetry_worker.jetstream import DeadLetterStream as DeadLetterBox
from sens_telemetry_worker.jetstream import LogEntry, LogInbox
from sens_telemetry_worker.pipeline import Pipeline
from sens_telemetry_worker.routing import Router
from sens_telemetry_worker.settings import BatchSettings
from support.api import dead_letter
from support.letters import count_letters
from support.memory import MemoryFeed, MemoryRegistry, MemoryStore
from support.servers import eventually

EVERYTHING = Filter()
REASONS = (Reason.UNKNOWN_TENANT, Reason.MALFORMED_PAYLOAD)


def letter(number: int, *, tenant: str = "demo", reason: str = Reason.UNKNOWN_TENANT) -> DeadLetter:
    return dead_letter(tenant=tenant, device=f"d{number}", reason=reason, payload=b'{"n": %d}' % number)


async def put(client: Client, letters: Sequence[DeadLetter], *, together: int = 1) -> None:
    """Put letters that are in envelopes of so many."""
    origins = ((f"c-{number // together}", number % together) for number in range(len(letters)))
    await DeadLetterBox(client).put(dict(zip(origins, letters, strict=True)))


async def replay_all(stream: DeadLetterStream, wanted: Filter = EVERYTHING, *, limit: int = 700) -> int:
    """Replay in calls of a limit until nothing is left; return how many were replayed."""
    replayed = 0
    following: int | None = 1
    until: int | None = None
    while following is not None:
        done = await service.replay_page(stream, "demo", wanted, following=following, until=until, limit=limit)
        replayed += done.replayed
        following, until = done.following, done.until
    return replayed


async def logged(client: Client) -> tuple[int, Counter[bytes]]:
    """Return how many envelopes are in the log, and the payloads of their messages."""
    jetstream = client.jetstream()
    envelopes = (await jetstream.stream_info(TELEMETRY_STREAM)).state.messages
    payloads: Counter[bytes] = Counter()
    for sequence in range(1, envelopes + 1):
        body = (await jetstream.get_msg(TELEMETRY_STREAM, seq=sequence)).data or b""
        payloads.update(message.payload for message in envelope.decode(body))
    return envelopes, payloads


async def listed(client: Client) -> list[StoredDeadLetter]:
    """Return the tenant's dead letters as they are listed, in pages that cut messages."""
    stream = DeadLetterStream(client)
    found: list[StoredDeadLetter] = []
    following: int | None = 1
    while following is not None:
        page = await service.list_page(stream, "demo", EVERYTHING, following=following, limit=7)
        found += page.letters
        following = page.following
    return found


@pytest.mark.parametrize("together", [1, 40])
class TestReplayOfMany:
    def test_sends_all_of_a_tenant_in_a_few_envelopes(self, nats: NatsSettings, together: int) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                others = [letter(number, tenant="other") for number in range(50)]
                await put(client, [*others, *map(letter, range(2500))], together=together)
                assert await replay_all(DeadLetterStream(client)) == 2500
                envelopes, payloads = await logged(client)
                assert payloads == Counter(b'{"n": %d}' % number for number in range(2500))
                assert envelopes <= 10
                assert await count_letters(client.jetstream()) == 50

        asyncio.run(work())

    def test_by_a_filter_leaves_the_others_under_their_numbers(self, nats: NatsSettings, together: int) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                letters = [letter(number, reason=REASONS[number % 2]) for number in range(600)]
                await put(client, letters, together=together)
                before = await listed(client)
                assert [stored.letter for stored in before] == letters
                stream = DeadLetterStream(client)
                assert await replay_all(stream, Filter(reason=Reason.MALFORMED_PAYLOAD)) == 300
                _, payloads = await logged(client)
                assert payloads == Counter(b'{"n": %d}' % number for number in range(1, 600, 2))
                assert sorted(await listed(client)) == before[::2]
                for stored in before[::200]:
                    assert (await stream.get("demo", stored.id)).letters == [stored]

        asyncio.run(work())


class TestReplay:
    def test_of_one_leaves_those_beside_it_under_their_numbers(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                before = await five_of_an_envelope(client, nats)
                stream = DeadLetterStream(client)
                for number in (3, 1):
                    await service.replay_one(stream, "demo", before[number].id)
                    with pytest.raises(NotFoundError):
                        await stream.get("demo", before[number].id)
                assert await listed(client) == [before[0], before[2], before[4]]
                for stored in (before[0], before[2]):
                    with pytest.raises(NotFoundError):
                        await stream.get("other", stored.id)
                assert await replay_all(stream) == 3
                assert (await logged(client))[1] == Counter(b'{"n": %d}' % number for number in range(5))
                assert await count_letters(client.jetstream()) == 0

        asyncio.run(work())

    def test_of_two_beside_each_other_at_once_leaves_neither(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                before = await five_of_an_envelope(client, nats)
                stream = DeadLetterStream(client)
                choices = [await stream.get("demo", before[number].id) for number in (1, 2)]
                await asyncio.gather(*(stream.send_again("demo", [choice]) for choice in choices))
                assert await listed(client) == [before[0], before[3], before[4]]

        asyncio.run(work())

    def test_by_a_filter_that_is_cut_short_and_given_again_leaves_the_others_once(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                await put(client, [letter(number, reason=REASONS[number % 2]) for number in range(10)], together=10)
                before = await listed(client)
                wanted = Filter(reason=Reason.MALFORMED_PAYLOAD)
                with pytest.raises(InterruptionError):
                    await replay_all(InterruptedTakingApart(client), wanted)
                assert await count_letters(client.jetstream()) == 15
                assert await replay_all(DeadLetterStream(client), wanted) == 5
                assert await listed(client) == before[::2]

        asyncio.run(work())

    def test_leaves_what_can_not_be_read_between_them(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                jetstream = client.jetstream()
                await ensure_streams(jetstream, nats)
                await put(client, [letter(0)])
                await jetstream.publish(dead_letters.single_subject("demo", ("x", None)), b"not a dead letter")
                await put(client, [letter(0), letter(1), letter(2)])
                assert await replay_all(DeadLetterStream(client), limit=1) == 3
                [unreadable] = await listed(client)
                assert unreadable.letter.reason == "unreadable"

        asyncio.run(work())

    def test_goes_on_where_the_stream_answers_no_direct_request(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                jetstream = client.jetstream()
                await ensure_streams(jetstream, nats)
                config = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).config
                await jetstream.update_stream(config.evolve(allow_direct=False))
                await put(client, [letter(number) for number in range(5)])
                assert await replay_all(DeadLetterStream(client)) == 5

        asyncio.run(work())

    def test_keeps_messages_apart_that_were_replayed_before(self, nats: NatsSettings) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                jetstream = client.jetstream()
                await ensure_streams(jetstream, nats)
                again = msgspec.structs.replace(letter(1), replays=4)
                await put(client, [letter(0), again])
                await replay_all(DeadLetterStream(client))
                headers = [(await jetstream.get_msg(TELEMETRY_STREAM, seq=number)).headers or {} for number in (1, 2)]
                assert [each["Sens-Replays"] for each in headers] == ["1", "5"]

        asyncio.run(work())


async def five_of_an_envelope(client: Client, nats: NatsSettings) -> list[StoredDeadLetter]:
    """Put five letters of one envelope; return them."""
    await ensure_streams(client.jetstream(), nats)
    await put(client, [letter(number) for number in range(5)], together=5)
    return await listed(client)


class InterruptionError(Exception):
    """What ends a replay in the middle."""


class InterruptedTakingApart(DeadLetterStream):
    """Ends after the letters that stay were stored alone, before their message is deleted."""

    async def _delete_one(self, sequence: int) -> None:  # noqa: ARG002 - the method's signature
        raise InterruptionError


class Interrupted(DeadLetterStream):
    """Ends after messages were sent, before their dead letters are deleted."""

    async def _delete(
        self,
        tenant: str | None,  # noqa: ARG002 - the method's signature
        choices: Sequence[Choice],  # noqa: ARG002 - same
        *,
        gapless: bool,  # noqa: ARG002 - same
    ) -> None:
        raise InterruptionError


@pytest.mark.parametrize("together", [1, 10])
class TestInterruption:
    """The promise is that a replay that is given again stores nothing twice, and makes no second dead letter of a message."""

    @staticmethod
    async def interrupt_and_finish(client: Client) -> None:
        with pytest.raises(InterruptionError):
            await replay_all(Interrupted(client), limit=7)
        # Other groups than before, so that it is not the log that recognises them.
        first, *_ = await listed(client)
        await service.replay_one(DeadLetterStream(client), "demo", first.id)
        assert await replay_all(DeadLetterStream(client), limit=5) == 19

    @staticmethod
    async def settle(client: Client, nats: NatsSettings, store: MemoryStore, ready: Callable[[], bool]) -> None:
        """Let a telemetry worker work until a condition holds."""
        stop = asyncio.Event()
        inbox = LogInbox(client, nats, BatchSettings(messages=10, linger_milliseconds=10))
        async with inbox.open():
            pipeline: Pipeline[LogEntry] = Pipeline(
                inbox,
                router=Router(MemoryRegistry({"demo": Tenant(1, "demo")}), decoder("native")),
                store=store,
                dead_letters=DeadLetterBox(client),
                feed=MemoryFeed(set()),
                guard=DeadLetterGuard(1, 1),
                flow=Flow(),
            )
            running = asyncio.create_task(pipeline.run(stop))

            async def settled() -> bool:
                info = await client.jetstream().consumer_info(TELEMETRY_STREAM, "telemetry-worker")
                return not info.num_pending and not info.num_ack_pending and ready()

            await eventually(settled, "the log is settled")
            stop.set()
            await running

    def test_stores_what_was_sent_twice_once(self, nats: NatsSettings, together: int) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                await put(client, [letter(number) for number in range(20)], together=together)
                await self.interrupt_and_finish(client)
                _, payloads = await logged(client)
                assert payloads.total() == (27 if together == 1 else 30)
                store = MemoryStore()
                await self.settle(client, nats, store, lambda: len(store.values) > 0)
                assert sorted(store.values.values()) == [float(number) for number in range(20)]

        asyncio.run(work())

    def test_makes_one_dead_letter_of_what_is_refused_again(self, nats: NatsSettings, together: int) -> None:
        async def work() -> None:
            async with connect(nats, "test") as client:
                await ensure_streams(client.jetstream(), nats)
                malformed = [dead_letter(payload=b'{"n": %d' % number) for number in range(20)]
                await put(client, malformed, together=together)
                await self.interrupt_and_finish(client)
                await self.settle(client, nats, MemoryStore(), lambda: True)
                again = await listed(client)
                assert sorted(stored.letter.payload for stored in again) == sorted(each.payload for each in malformed)
                assert {stored.letter.replays for stored in again} == {1}

        asyncio.run(work())
