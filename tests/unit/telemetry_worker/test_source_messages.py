"""Messages of sources: several uplinks in one, stored as a whole or not at all."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import orjson
import pytest
from pydantic import BaseModel

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_common.errors import RejectedMessageError
from sens_common.formats import KINDS
from sens_common.topics import SOURCES
from sens_payloads.formats import sparkplug_b
from sens_payloads.frames import Fields, Frame
from sens_payloads.profiles import Codec, CodecVersion, MetricRule, Profile
from sens_payloads.sources import ProfileRule, Source
from sens_payloads.uplinks import NetworkFormat, Received, Unwrapped, Uplink, WithoutMeasurements
from sens_telemetry_worker.batch import InterpretedMessages
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.tenants import Refusal, SourceOfTenant, Tenant
from sens_telemetry_worker.topic_resolving import LONGEST_REMEMBERED_TOPIC, KnownNames
from support.memory import MemoryEnvelope, MemoryFeed, MemoryInbox, MemoryRegistry, MemoryStore
from support.pipelines import pipeline_of
from support.sparkplug import metric, payload

NOW: Final = 1_790_000_000_000_000
DAY: Final = 86_400_000_000


class Settings(BaseModel):
    """None."""


class Plain:
    """A format for these tests: a list of [device, time or null, fields or hexadecimal bytes], or a word for what is not measured."""

    Settings: type[BaseModel] = Settings

    def unwrap(self, received: Received, _settings: Any, /) -> Unwrapped:
        body = orjson.loads(received.body)
        if isinstance(body, str):
            return WithoutMeasurements(body)
        if not body:
            raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, "nothing in it")
        return [
            Uplink(device, time, frame=bytes.fromhex(what), radio={"rssi": -70})
            if isinstance(what, str)
            else Uplink(device, time, fields=what, radio={"rssi": -70})
            for device, time, what in body
        ]


class Doubling:
    """Codecs of these tests: the bytes' sum, and as often as it was called; an empty answer for a zero."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, int]] = []

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        self.calls.append((tenant_id, str(codec), len(frames)))
        return [self._one(frame) for frame in frames]

    def _one(self, frame: Frame) -> Fields | RejectedMessageError:
        if frame.payload == b"\xff":
            return RejectedMessageError("codec_error", "line 1: no")
        return {"sum": sum(frame.payload), "port": frame.f_port} if sum(frame.payload) else {}


CODEC = Profile("summed", CodecVersion("sum", 1, b"", "…"))
NAMED = Profile(
    "named", metrics={"t": MetricRule(name="temperature", unit="Cel", scale=0.1), "debug": MetricRule(ignore=True)}
)


class Platform:
    """An interpreter with a tenant, its sources and devices."""

    def __init__(self, **source: Any) -> None:
        self.tenant = Tenant(1, "demo")
        self.registry = MemoryRegistry({"demo": self.tenant})
        self.codecs = Doubling()
        known = KnownNames(1, self.registry.tenants)
        self.assigned: dict[str, Profile] = {}
        rules = [ProfileRule("bytes-*", CODEC), ProfileRule("named-*", NAMED)]
        known.sources = {
            ("demo", "house"): SourceOfTenant(
                self.tenant, Source("house", Plain(), Settings(), profile_rules=rules, **source), self.assigned
            ),
            ("demo", "broken"): Refusal(Reason.UNKNOWN_SOURCE, "source broken can't be used"),
        }
        self.registry._known = known
        self.interpreter = Interpreter(self.registry, decoder("native"), self.codecs)

    async def interpret(self, *bodies: object, source: str = "house") -> InterpretedMessages:
        messages = [
            Message(SOURCES.topic("demo", source, f"t/{index}"), orjson.dumps(body), NOW + index)
            for index, body in enumerate(bodies)
        ]
        return await self.interpreter.interpret(messages)

    def values(self, found: InterpretedMessages) -> dict[tuple[str, int], dict[str, object]]:
        """Return what is to be stored: by device and time the values by name."""
        metrics = {metric_id: key[1] for key, metric_id in self.registry.metric_ids.items()}
        devices = {device_id: key[1] for key, device_id in self.registry.device_ids.items()}
        stored: dict[tuple[str, int], dict[str, object]] = {}
        for group in found.rows.groups:
            for device_id, time, numbers, texts in zip(
                group.device_id.tolist(),
                group.measured_at.tolist(),
                group.numbers.tolist(),
                group.texts.tolist(),
                strict=True,
            ):
                row = stored.setdefault((devices[device_id], time), {})
                row |= {metrics[m]: value for m, value in zip(group.metric_set.number_ids, numbers, strict=True)}
                row |= {metrics[m]: value for m, value in zip(group.metric_set.text_ids, texts, strict=True)}
        return stored


def reasons(found: InterpretedMessages) -> Mapping[int, str]:
    assert len({each.message_index for each in found.rejections}) == len(found.rejections), "one rejection a message"
    return {each.message_index: each.reason for each in found.rejections}


class TestUplinks:
    async def test_of_one_message_are_stored_for_their_devices_and_times(self) -> None:
        platform = Platform()

        found = await platform.interpret([["a", NOW - 5, {"t": 21.5, "n": 3}], ["b", None, {"on": True, "word": "x"}]])

        assert platform.values(found) == {
            ("a", NOW - 5): {"t": 21.5, "n": 3},
            ("b", NOW): {"on": True, "word": "x"},
        }
        assert found.rejections == []

    async def test_are_the_same_whether_few_or_many_have_a_shape(self) -> None:
        few, many = Platform(), Platform()
        body = [[f"d{number}", NOW - number, {"t": number / 2, "n": number}] for number in range(3)]

        await_few = few.values(await few.interpret(body))
        found = many.values(await many.interpret(*[body] * 5))

        assert found == await_few
        assert set(map(KINDS.get, map(type, found["d1", NOW - 1].values()))) == {"number"}

    async def test_with_a_radio_have_its_values_where_the_source_says_so(self) -> None:
        platform = Platform(with_radio=True)

        found = await platform.interpret([["a", None, {"t": 1.5}]])

        assert platform.values(found) == {("a", NOW): {"t": 1.5, "lorawan.rssi": -70}}

    async def test_get_names_and_units_of_their_profile(self) -> None:
        platform = Platform()

        found = await platform.interpret([["named-1", None, {"t": 215, "debug": 7, "h": 40.0}]])

        assert platform.values(found) == {("named-1", NOW): {"temperature": 21.5, "h": 40.0}}

    async def test_are_decoded_by_the_codec_of_their_profile_together(self) -> None:
        platform = Platform()
        platform.assigned["by-hand"] = CODEC

        found = await platform.interpret(
            [["bytes-1", None, "0102"], ["by-hand", None, "05"]], [["bytes-2", None, "07"]]
        )

        assert platform.codecs.calls == [(1, "sum@1", 3)]
        assert platform.values(found) == {
            ("bytes-1", NOW): {"sum": 3, "port": 0},
            ("by-hand", NOW): {"sum": 5, "port": 0},
            ("bytes-2", NOW + 1): {"sum": 7, "port": 0},
        }


class TestMessage:
    @pytest.mark.parametrize(
        ("refused", "reason"),
        [
            (["bytes-1", None, "ff"], "codec_error"),
            (["no-profile", None, "01"], Reason.NO_CODEC),
            (["a", NOW - 500 * DAY, {"t": 1.0}], Reason.TOO_OLD),
        ],
    )
    async def test_is_refused_as_a_whole(self, refused: list[object], reason: str) -> None:
        platform = Platform()
        good = [[f"good-{number}", None, {"t": 1.0}] for number in range(10)]

        found = await platform.interpret([*good, refused], [["other", None, {"t": 2.0}]])

        assert reasons(found) == {0: reason}
        assert platform.values(found) == {("other", NOW + 1): {"t": 2.0}}

    async def test_names_its_device_where_it_is_of_one(self) -> None:
        platform = Platform()

        found = await platform.interpret(
            [["no-profile", None, "01"], ["no-profile", NOW - 1, "01"]], [["no-profile", None, "01"], ["b", None, "01"]]
        )

        assert reasons(found) == {0: Reason.NO_CODEC, 1: Reason.NO_CODEC}
        assert [found.device_name(index) for index in (0, 1)] == ["no-profile", None]

    async def test_is_refused_as_a_whole_where_limits_leave_no_room_for_a_part(self) -> None:
        platform = Platform()
        platform.registry.metric_limit = 1

        found = await platform.interpret([["a", None, {"t": 1.0}], ["b", None, {"new": 1.0, "newer": 2.0}]])

        assert reasons(found) == {0: Reason.LIMIT_REACHED}
        assert platform.values(found) == {}

    async def test_without_measurements_is_neither_stored_nor_refused(self) -> None:
        platform = Platform()

        found = await platform.interpret("event", [["bytes-1", None, "00"]], [["bytes-1", None, ""]], [])

        assert found.without_measurements == {0, 1, 2}
        assert reasons(found) == {3: Reason.MALFORMED_PAYLOAD}
        assert platform.values(found) == {}

    async def test_registers_no_device_where_its_source_may_not(self) -> None:
        platform = Platform(registers_devices=False)
        platform.registry.device_ids[1, "known"] = 1

        found = await platform.interpret([["known", None, {"t": 1.0}]], [["new", None, {"t": 2.0}]])

        assert reasons(found) == {1: Reason.UNKNOWN_DEVICE}
        assert platform.values(found) == {("known", NOW): {"t": 1.0}}
        assert (1, "new") not in platform.registry.device_ids

    @pytest.mark.parametrize("source", ["missing", "broken"])
    async def test_of_a_source_that_there_is_not_is_refused(self, source: str) -> None:
        platform = Platform()

        found = await platform.interpret([["a", None, {"t": 1.0}]], source=source)

        assert reasons(found) == {0: Reason.UNKNOWN_SOURCE}
        assert found.tenant_name(0) == "demo"


class TestHistoricalValues:
    async def test_are_stored_and_not_shown_live(self) -> None:
        platform, stop = Platform(), asyncio.Event()
        source = Source("plant", cast("NetworkFormat", sparkplug_b), sparkplug_b.SETTINGS)
        known = await platform.registry.known_names()
        known.sources = {("demo", "plant"): SourceOfTenant(platform.tenant, source, {})}
        body = payload(NOW // 1000, metric("past", 1.5, historical=True), metric("now", 2.5))
        topic = SOURCES.topic("demo", "plant", "spBv1.0/plant/NDATA/line1")
        store, feed = MemoryStore(), MemoryFeed({"demo"})
        inbox = MemoryInbox([[MemoryEnvelope(1, [Message(topic, body, NOW)])]], stop)

        await pipeline_of(inbox, registry=platform.registry, store=store, feed=feed).run(stop)

        assert sorted(store.values.values()) == [1.5, 2.5]
        assert [reading.metric for _, reading in feed.readings] == ["now"]


class TestTopics:
    async def test_that_are_long_are_not_remembered(self) -> None:
        platform = Platform()
        known = await platform.registry.known_names()
        sender = known.sources["demo", "house"]
        assert isinstance(sender, SourceOfTenant)
        for topic in ("a" * LONGEST_REMEMBERED_TOPIC, "b" * (LONGEST_REMEMBERED_TOPIC + 1)):
            known.remember_sender(topic, sender)

        assert {topic[0] for topic in known.senders if "/" not in topic} == {"a"}
