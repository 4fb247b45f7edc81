"""The fleet's messages."""

import math
from datetime import datetime

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.topics import NATIVE
from sens_mock_mqtt_broker import series
from sens_mock_mqtt_broker.fleet import BACKLOG_LIMIT, Fleet, FleetMessage
from sens_mock_mqtt_broker.series import SECOND, Outage

START = 1_767_225_600 * SECOND


def fleet(
    *, seed: int = 1, devices: int = 10, rate: float = 10.0, malformed_share: float = 0.0, start: int = START
) -> Fleet:
    return Fleet.create(
        seed=seed, tenant="demo", devices=devices, rate=rate, malformed_share=malformed_share, start=start
    )


def messages(of: Fleet, count: int) -> list[FleetMessage]:
    return [message for number in range(count) if (message := of.message(number)) is not None]


def readings(message: FleetMessage) -> list[dict[str, object]]:
    content = orjson.loads(message.payload)
    return content if isinstance(content, list) else [content]


def microseconds(ts: object) -> int:
    if isinstance(ts, int):
        return ts
    assert isinstance(ts, str)
    return round(datetime.fromisoformat(ts).timestamp() * SECOND)


class TestReproducibility:
    def test_the_same_seed_gives_the_same_messages(self) -> None:
        one, other = (fleet(seed=3, malformed_share=0.1) for _ in range(2))
        assert messages(one, 2000) == messages(other, 2000)

    def test_another_seed_gives_others(self) -> None:
        assert messages(fleet(seed=3), 100) != messages(fleet(seed=4), 100)


class TestSchedule:
    @given(st.floats(0.001, 20_000), st.integers(0, 10_000_000))
    def test_messages_are_due_at_the_rate_from_the_start_on(self, rate: float, number: int) -> None:
        due = fleet(rate=rate).due(number)
        assert math.isclose((due - START) / SECOND, number / rate, abs_tol=1e-5, rel_tol=1e-9)

    @given(st.floats(0.001, 20_000), st.integers(0, 10_000_000))
    def test_the_next_message_is_due_later(self, rate: float, number: int) -> None:
        assert fleet(rate=rate).due(number + 1) > fleet(rate=rate).due(number)

    def test_sensors_take_turns(self) -> None:
        devices = [NATIVE.route(message.topic).device for message in messages(fleet(devices=3), 6)]
        assert devices == ["sensor-0001", "sensor-0002", "sensor-0003"] * 2


class TestPayload:
    def test_topics_are_the_tenants(self) -> None:
        assert {NATIVE.route(message.topic).tenant for message in messages(fleet(), 100)} == {"demo"}

    def test_a_reading_has_numbers_a_boolean_and_a_text(self) -> None:
        (reading,) = readings(messages(fleet(), 1)[0])
        kinds = {name: type(value) for name, value in reading.items() if name != "ts"}
        assert kinds == {
            "temperature": float,
            "humidity": float,
            "battery": float,
            "door_open": bool,
            "firmware": str,
        }

    def test_the_time_is_when_it_was_due_in_either_notation(self) -> None:
        of = fleet(rate=7.0)
        times = [readings(message)[-1]["ts"] for message in messages(of, 20)]
        assert {type(time) for time in times} == {int, str}
        assert {microseconds(time) for time in times} <= {of.due(number) for number in range(20)}

    @settings(max_examples=20)
    @given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([0.5, 10.0, 20_000.0]))
    def test_a_device_never_repeats_a_time(self, seed: int, devices: int, rate: float) -> None:
        seen: dict[str, list[int]] = {}
        for message in messages(fleet(seed=seed, devices=devices, rate=rate), 500):
            seen.setdefault(message.topic, []).extend(microseconds(reading["ts"]) for reading in readings(message))
        for times in seen.values():
            assert times == sorted(set(times))


class TestOutages:
    def run(self, rate: float = 1.0) -> tuple[Fleet, list[FleetMessage | None]]:
        of = fleet(devices=1, rate=rate)
        return of, [of.message(number) for number in range(int(4 * 3600 * rate))]

    def test_a_sensor_is_silent_in_an_outage(self) -> None:
        of, sent = self.run()
        for number, message in enumerate(sent):
            assert (message is None) == (series.outage(of.sensors[0], of.due(number)) is not None)

    def test_what_an_unreachable_sensor_measured_comes_afterwards_in_one_message(self) -> None:
        of, sent = self.run()
        arrived = {microseconds(reading["ts"]) for message in sent if message for reading in readings(message)}
        kinds = {of.due(number): series.outage(of.sensors[0], of.due(number)) for number in range(len(sent))}
        assert set(kinds.values()) == {None, Outage.OFF, Outage.UNREACHABLE}
        expected = {time for time, kind in kinds.items() if kind is not Outage.OFF}
        assert expected - arrived == set()
        assert arrived - expected == set()

    def test_a_backlog_is_an_array_in_the_order_of_time(self) -> None:
        _, sent = self.run()
        backlogs = [orjson.loads(message.payload) for message in sent if message and message.payload[:1] == b"["]
        assert backlogs
        for backlog in backlogs:
            times = [microseconds(reading["ts"]) for reading in backlog]
            assert times == sorted(times)
            assert len(backlog) > 1

    def test_a_long_backlog_keeps_the_newest_measurements(self) -> None:
        _, sent = self.run(rate=2.0)
        longest = max((readings(message) for message in sent if message), key=len)
        assert len(longest) == BACKLOG_LIMIT + 1


class TestMalformed:
    def test_the_share_is_as_asked(self) -> None:
        sent = messages(fleet(malformed_share=0.05), 20_000)
        share = sum(message.malformed for message in sent) / len(sent)
        assert 0.04 < share < 0.06

    def test_there_are_none_when_none_are_asked_for(self) -> None:
        assert not any(message.malformed for message in messages(fleet(), 2000))

    def test_they_are_broken_in_four_ways(self) -> None:
        spoiled = [message.payload for message in messages(fleet(devices=1, malformed_share=1.0), 4)]
        for payload in spoiled[:3]:
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(payload)
        assert orjson.loads(spoiled[3])["ts"] == 73
