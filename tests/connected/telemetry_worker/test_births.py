"""Births of Sparkplug B: what explains a message is decided by positions in the stream, whichever worker reads it, and when."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.settings import DatabaseSettings
from sens_payloads.formats import sparkplug_history
from sens_payloads.formats.sparkplug_history import Announcement, History
from sens_telemetry_worker.accounting import WrittenPart
from sens_telemetry_worker.batch import BatchPart, EnvelopeProgress
from sens_telemetry_worker.timescale.birth_writing import KEPT_BIRTHS
from support.depth import tries
from support.sparkplug import metric
from support.sparkplug_world import DEVICE, EDGE_NODE, TIME, World, birth, data, made_world, message

ERASURE: Final = f"""
    INSERT INTO sens.erasures (tenant_id, device_hash, erased_at, deletion_id) SELECT id, sha256('{DEVICE}'), now(), 1 FROM sens.tenants
"""  # noqa: S608 - a constant


@pytest.fixture
async def world(database: DatabaseSettings) -> AsyncIterator[World]:
    async with made_world(database) as it:
        yield it


class TestData:
    async def test_is_read_with_the_birth_that_another_worker_has_stored(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth()))
        await world.workers[1].put(world.log.add(data(22.0, time=TIME + 1000)))

        assert await world.values() == [
            (DEVICE, "temperature", TIME, 20.0),
            (DEVICE, "temperature", TIME + 1000, 22.0),
        ]
        assert await world.letters() == []

    async def test_is_read_with_a_birth_that_another_worker_has_in_hand(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth("old")))
        newer = world.log.add(birth("new", time=TIME + 1))
        await world.workers[1].put(world.log.add(data(22.0, time=TIME + 1000)))
        await world.workers[0].put(newer)

        assert (DEVICE, "new", TIME + 1000, 22.0) in await world.values()
        assert world.log.read == [newer.sequence]

    async def test_that_comes_again_is_read_with_the_birth_before_it(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth("old")))
        late = world.log.add(data(22.0, time=TIME + 1000))
        await world.workers[1].put(world.log.add(birth("new", time=TIME + 2000)))
        await world.workers[1].put(late)

        assert (DEVICE, "old", TIME + 1000, 22.0) in await world.values()

    async def test_before_any_birth_is_a_dead_letter(self, world: World) -> None:
        await world.workers[0].put(world.log.add(data(22.0)))

        assert await world.letters() == [("unknown_alias", DEVICE, 0)]

    async def test_of_a_device_whose_edge_node_was_born_again_waits_for_the_devices_birth(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth(kind="NBIRTH"), birth()))
        await world.workers[0].put(world.log.add(birth(kind="NBIRTH", time=TIME + 1), data(1.0, time=TIME + 2)))

        assert [letter[0] for letter in await world.letters()] == ["unknown_alias"]


class TestBirth:
    async def test_that_comes_again_has_no_effect(self, world: World) -> None:
        envelope = world.log.add(birth(), data(22.0, time=TIME + 1000))
        for worker in world.workers:
            await worker.put(envelope)

        assert await world.fetch("SELECT name, births, changes FROM sens.edge_nodes") == [(EDGE_NODE, 1, 1)]
        assert len(await world.values()) == 2

    async def test_is_kept_even_where_its_values_are_refused(self, world: World) -> None:
        await world.workers[0].put(world.log.add(message("DBIRTH", metric("temperature", float("nan"), alias=1))))
        await world.workers[1].put(world.log.add(data(22.0)))

        assert [letter[0] for letter in await world.letters()] == ["unsupported_value"]
        assert await world.values() == [(DEVICE, "temperature", TIME, 22.0)]

    async def test_is_kept_as_often_as_it_may_be_needed(self, world: World) -> None:
        first = world.log.add(data(0.5, time=TIME - 1))
        for number in range(KEPT_BIRTHS + 4):
            await world.workers[0].put(world.log.add(birth(time=TIME + number)))
        kept = await world.fetch("SELECT count(*) FROM sens.births")
        await world.workers[1].put(first)
        for number in range(2):
            await world.workers[0].put(world.log.add(birth(time=TIME + 1000 + number)))

        # While the first envelope was not settled, everything after it was needed.
        assert kept == [(KEPT_BIRTHS + 4,)]
        assert await world.fetch("SELECT births, (SELECT count(*) FROM sens.births) FROM sens.edge_nodes") == [
            (KEPT_BIRTHS + 1, KEPT_BIRTHS + 1)
        ]
        assert await world.fetch("SELECT count(*) FROM sens.births WHERE follows_forgotten") == [(1,)]

    async def test_goes_with_an_erasure_of_its_device(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth(kind="NBIRTH"), birth()))
        await world.fetch(ERASURE)

        assert await world.fetch("SELECT device FROM sens.births") == [("",)]
        assert await world.fetch("SELECT births, changes FROM sens.edge_nodes") == [(1, 2)]


class TestWaiting:
    async def test_data_is_replayed_when_its_birth_has_come(self, world: World) -> None:
        early, other = data(22.0, time=TIME - 1000), message("DDATA", metric(None, 1.0, alias=1), device="press8")
        await world.workers[0].put(world.log.add(early, other))
        await world.workers[1].put(world.log.add(birth()))

        assert await world.replay() == 1
        assert (DEVICE, "temperature", TIME - 1000, 22.0) in await world.values()
        assert await world.letters() == [("unknown_alias", "plant.line1.press8", 0)]
        assert await world.fetch("SELECT count(*) FROM sens.birth_replays") == [(0,)]
        assert await world.replay() == 0

    async def test_data_that_its_birth_does_not_help_is_replayed_once(self, world: World) -> None:
        await world.workers[0].put(world.log.add(message("DDATA", metric(None, 22.0, alias=9))))
        for number in range(2):
            await world.workers[0].put(world.log.add(birth(time=TIME + number)))

        assert await world.replay() == 1
        assert await world.letters() == [("unknown_alias", DEVICE, 1)]
        assert await world.replay() == 0

    async def test_data_of_a_session_that_has_ended_stays(self, world: World) -> None:
        await world.workers[0].put(world.log.add(data(22.0, kind="NDATA")))
        await world.workers[0].put(world.log.add(message("NDEATH"), birth(kind="NBIRTH")))

        assert await world.replay() == 0
        assert await world.letters() == [("unknown_alias", EDGE_NODE, 0)]

    async def test_a_letter_is_not_written_when_its_birth_came_while_it_was_read(self, world: World) -> None:
        early, born = world.log.add(data(22.0, time=TIME - 1000)), world.log.add(birth())
        other, store = world.workers[1], world.workers[0].store
        write = store.write

        async def write_after_the_birth(part: BatchPart) -> WrittenPart:
            store.write = write  # type: ignore[method-assign] # once
            await other.put(born)
            return await write(part)

        store.write = write_after_the_birth  # type: ignore[method-assign] # a worker that is slow
        await world.workers[0].put(early)

        assert await world.letters() == []
        assert (DEVICE, "temperature", TIME - 1000, 22.0) in await world.values()


class TestDeath:
    async def test_ends_the_session(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth(kind="NBIRTH", session=1)))
        await world.workers[0].put(world.log.add(message("NDEATH", metric("bdSeq", 1, datatype=4))))
        await world.workers[1].put(world.log.add(data(22.0, kind="NDATA", time=TIME + 1)))

        assert await world.letters() == [("unknown_alias", EDGE_NODE, 0)]
        counts = "SELECT stored, dead_lettered, without_measurements, unaccounted FROM sens.conservation()"
        assert await world.fetch(counts) == [(1, 1, 1, 0)]

    async def test_of_an_earlier_session_that_comes_late_ends_nothing(self, world: World) -> None:
        await world.workers[0].put(world.log.add(birth(kind="NBIRTH", session=2)))
        await world.workers[0].put(world.log.add(message("NDEATH", metric("bdSeq", 1, datatype=4))))
        await world.workers[1].put(world.log.add(data(22.0, kind="NDATA", time=TIME + 1)))

        assert (EDGE_NODE, "temperature", TIME + 1, 22.0) in await world.values()


KINDS: Final = ("NBIRTH", "DBIRTH", "DBIRTH", "NDEATH", "DDEATH", "DDATA", "DDATA", "DDATA")
stories = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 2), st.booleans()), min_size=4, max_size=12)
"""Messages in the order of the stream: kind, session, and whether the next one is in the same envelope."""


def told(story: Sequence[tuple[str, int, bool]]) -> list[list[Message]]:
    """Return the messages of a story by envelope. Each birth calls the alias 1 otherwise, each has a time and a value of its own."""
    together: list[list[Message]] = [[]]
    for number, (kind, session, goes_on) in enumerate(story):
        time = TIME + 10 * number
        if kind == "DDATA":
            together[-1].append(data(float(number), time=time))
        elif kind.endswith("BIRTH"):
            together[-1].append(
                birth(f"m{number}", kind=kind, time=time, session=session if kind == "NBIRTH" else None)
            )
        else:
            together[-1].append(message(kind, metric("bdSeq", session, datatype=4), time=time))
        if not goes_on:
            together.append([])
    return [each for each in together if each]


def expected(story: Sequence[tuple[str, int, bool]]) -> set[tuple[object, ...]]:
    """Return what is stored in the end of the data of a story."""
    announcements = [
        Announcement(
            Origin(0, number, 0),
            sparkplug_history.EDGE_NODE if kind[0] == "N" else DEVICE,
            kind.endswith("BIRTH"),
            session if kind[0] == "N" else None,
        )
        for number, (kind, session, _) in enumerate(story)
        if kind != "DDATA"
    ]
    history = History(announcements)
    values: set[tuple[object, ...]] = set()
    for number, (kind, _, _) in enumerate(story):
        found = history.explaining(DEVICE, Origin(0, number, 0)) if kind == "DDATA" else None
        if found is not None:
            values.add((DEVICE, f"m{found.position.sequence}", TIME + 10 * number, float(number)))
    return values


class TestAnyStory:
    def test_ends_the_same_whoever_reads_which_part_of_it_when_and_how_often(self, database: DatabaseSettings) -> None:
        numbers = count(1)

        @settings(max_examples=tries(6, 100), deadline=None, suppress_health_check=list(HealthCheck))
        @given(stories, st.randoms(use_true_random=False))
        def law(story: Sequence[tuple[str, int, bool]], random: Random) -> None:
            asyncio.run(tell(database, next(numbers), story, random))

        law()


async def tell(database: DatabaseSettings, number: int, story: Sequence[tuple[str, int, bool]], random: Random) -> None:
    """Let two workers take the envelopes of a story in any order, some of them twice; one is cut short between interpreting and storing."""
    async with made_world(database, number) as world:
        envelopes = [world.log.add(*messages) for messages in told(story)]
        again = random.sample(envelopes, len(envelopes) // 2)
        shuffled = random.sample([*envelopes, *again], len(envelopes) + len(again))
        await world.workers[0].builder.build([EnvelopeProgress.of(random.choice(envelopes))])
        for envelope in shuffled:
            await random.choice(world.workers).put(envelope)
            if random.random() < 0.3:
                await world.replay()
        while await world.replay():
            pass

        values = {value for value in await world.values() if value[0] == DEVICE}
        births = {
            (DEVICE, f"m{index}", TIME + 10 * index, 20.0) for index, each in enumerate(story) if each[0] == "DBIRTH"
        }
        assert values == expected(story) | births
        left = sum(each[0] == "DDATA" for each in story) - len(expected(story))
        assert [letter[0] for letter in await world.letters()] == ["unknown_alias"] * left
        assert await world.fetch("SELECT DISTINCT unaccounted FROM sens.conservation()") == [(0,)]
