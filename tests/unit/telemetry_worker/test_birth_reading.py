"""What explains the messages of a batch, wherever the births are: in it, in the database, or in other workers' hands."""

from collections.abc import Collection, Sequence
from typing import Final, cast

from sens_common.dead_letters import Origin
from sens_common.envelope import Message
from sens_common.topics import SOURCES
from sens_payloads.formats import sparkplug_b
from sens_payloads.formats.sparkplug_births import Birth, Publisher
from sens_payloads.formats.sparkplug_history import Announcement, History
from sens_payloads.sources import Source
from sens_payloads.uplinks import NetworkFormat, Received
from sens_telemetry_worker.batch import Envelope, EnvelopeProgress, StreamPosition, UndecidedMessages
from sens_telemetry_worker.birth_reading import BirthReader, Sent, SentEarlier
from sens_telemetry_worker.births import BirthPosition, BirthsOfBatch, EdgeNode, EdgeNodeKey, RegisteredEdgeNodes
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant, Tenant
from support.memory import MemoryEnvelope
from support.sparkplug import metric, payload

TIME: Final = 1_785_000_000_123
PUBLISHER: Final = Publisher("plant", "line1", "press7")
DEVICE: Final = "plant.line1.press7"
SENDER: Final = SourceOfTenant(
    Tenant(1, "demo"), Source("plant", cast("NetworkFormat", sparkplug_b), sparkplug_b.SETTINGS, id=3), {}
)


def message(kind: str, *metrics: bytes) -> Message:
    level = "/press7" if kind.startswith("D") else ""
    return Message(SOURCES.topic("demo", "plant", f"spBv1.0/plant/{kind}/line1{level}"), payload(TIME, *metrics), TIME)


BIRTH: Final = message("DBIRTH", metric("new", 20.0, alias=1))
DATA: Final = message("DDATA", metric(None, 22.0, alias=1))
DEATH: Final = message("NDEATH")


class Register:
    """The database: births by position, and whether there is room for more."""

    def __init__(self, *announcements: Announcement, refuses: bool = False) -> None:
        self.announcements = announcements
        self.refuses = refuses

    async def edge_nodes(
        self, wanted: Collection[EdgeNodeKey], announcing: Collection[EdgeNodeKey]
    ) -> RegisteredEdgeNodes:
        refusals = dict.fromkeys(announcing, Refusal("limit_reached", "full")) if self.refuses else {}
        return RegisteredEdgeNodes({key: EdgeNode(7, 2, History(self.announcements)) for key in wanted}, refusals)

    async def births(self, positions: Collection[BirthPosition]) -> dict[BirthPosition, Birth]:
        return {
            position: Birth(PUBLISHER, None, None, {}, {f"of {position.position.sequence}": 10})
            for position in positions
        }


class Earlier:
    """Envelopes that are not settled."""

    def __init__(self, *envelopes: MemoryEnvelope) -> None:
        self.envelopes = envelopes
        self.asked: list[int] = []

    async def announcements(
        self, own: Sequence[Envelope], until: StreamPosition
    ) -> tuple[list[SentEarlier], StreamPosition]:
        self.asked.append(until.sequence)
        found = [each for each in self.envelopes if each.position < until and each not in own]
        sent = [
            SentEarlier(each.messages[index], each.origin(index))
            for each in found
            for index in range(len(each.messages))
        ]
        return sent, min(each.position for each in (*own, *found))


async def read(register: Register, earlier: Earlier, *envelopes: MemoryEnvelope) -> BirthsOfBatch:
    undecided = UndecidedMessages.of(map(EnvelopeProgress.of, envelopes))
    sent = [
        Sent(index, SENDER, Received(each.payload, each.received_at, SOURCES.message_address(each.topic)[0]))
        for index, each in enumerate(undecided.messages)
    ]
    return await BirthReader(register, earlier).read(sent, undecided)


def metrics(found: BirthsOfBatch, index: int) -> list[str] | None:
    """Return the names of the metrics in the birth that explains a message."""
    birth = found.of(index).of(PUBLISHER)
    return None if birth is None else list(birth.datatypes)


def stored(sequence: int, *, is_birth: bool = True, device: str = DEVICE) -> Announcement:
    return Announcement(Origin(1, sequence, 0), device, is_birth)


class TestData:
    async def test_is_explained_by_the_birth_before_it_in_its_batch(self) -> None:
        found = await read(Register(stored(1)), Earlier(), MemoryEnvelope(5, [DATA, BIRTH, DATA]))

        assert [metrics(found, 0), metrics(found, 2)] == [["of 1"], ["new"]]
        assert found.noted[1].announcement == Announcement(Origin(1, 5, 1), DEVICE, True)
        assert found.noted[1].data_topic == DATA.topic
        assert found.device_names == dict.fromkeys(range(3), DEVICE)

    async def test_is_explained_by_a_birth_in_another_workers_hands(self) -> None:
        earlier = Earlier(MemoryEnvelope(3, [BIRTH]), MemoryEnvelope(9, [BIRTH]))

        found = await read(Register(stored(1)), earlier, MemoryEnvelope(5, [DATA]))

        assert metrics(found, 0) == ["new"]
        assert found.keep_from == (1, 3)
        assert earlier.asked == [5]

    async def test_that_is_replayed_has_the_position_that_it_had(self) -> None:
        replayed = MemoryEnvelope(50, [DATA], replays=1, origins=[Origin(1, 2, 0)])

        found = await read(Register(stored(1), stored(40)), Earlier(MemoryEnvelope(30, [BIRTH])), replayed)

        assert metrics(found, 0) == ["of 1"]

    async def test_is_not_explained_by_a_later_birth_before_which_a_death_is_in_another_workers_hands(self) -> None:
        death = Earlier(MemoryEnvelope(6, [DEATH]))

        found = await read(Register(stored(8)), death, MemoryEnvelope(5, [DATA]))
        without = await read(Register(stored(8)), Earlier(), MemoryEnvelope(5, [DATA]))

        assert death.asked == [5, 8]
        assert metrics(found, 0) is None
        assert found.waiting_for[0] == (7, 2)
        assert metrics(without, 0) == ["of 8"]


class TestAnnouncement:
    async def test_for_which_there_is_no_room_is_refused_and_explains_nothing(self) -> None:
        found = await read(Register(refuses=True), Earlier(), MemoryEnvelope(5, [BIRTH, DATA]))

        assert found.refused == {0: ("limit_reached", "full")}
        assert (found.noted, metrics(found, 1)) == ({}, None)

    async def test_that_can_not_be_read_is_refused(self) -> None:
        broken = BIRTH.__class__(BIRTH.topic, b"{", TIME)

        found = await read(Register(), Earlier(), MemoryEnvelope(5, [broken, DATA]))

        assert found.refused[0].reason == "malformed_payload"
        assert metrics(found, 1) is None
