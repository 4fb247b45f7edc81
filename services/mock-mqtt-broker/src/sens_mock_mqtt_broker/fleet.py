"""The fleet's messages: which sensor says what, and when. Pure, as `series` is.

Message number n is due at ``start + n / rate`` and is one of sensor ``n mod devices``, so that the sensors take turns at even
distances. Whether it is sent, is a backlog or is malformed follows from its number and time alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from sens_common.topics import NATIVE_PATTERN
from sens_mock_mqtt_broker import series
from sens_mock_mqtt_broker.series import Outage, Sensor

BACKLOG_LIMIT: Final = 200
"""Measurements that a sensor's memory holds; of a longer outage it keeps the newest."""

Reading = dict[str, int | float | bool | str]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FleetMessage:
    """A message to publish."""

    topic: str
    payload: bytes
    malformed: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    """Simulated sensors that send together `rate` messages per second from `start` on (microseconds since 1970 UTC)."""

    seed: int
    tenant: str
    sensors: tuple[Sensor, ...]
    rate: float
    malformed_share: float
    start: int

    @classmethod
    def create(
        cls, *, seed: int, tenant: str, devices: int, rate: float, malformed_share: float, start: int
    ) -> "Fleet":
        """Return a fleet."""
        sensors = tuple(series.sensor(seed, number) for number in range(devices))
        return cls(seed, tenant, sensors, rate, malformed_share, start)

    @property
    def topics(self) -> list[str]:
        """Topics of its messages."""
        return [NATIVE_PATTERN.topic(self.tenant, sensor.name) for sensor in self.sensors]

    @property
    def topic_filter(self) -> str:
        """Topic filter that matches them all."""
        return NATIVE_PATTERN.topic(self.tenant, "+")

    def starting(self, start: int) -> "Fleet":
        """Return the same fleet with another start."""
        return replace(self, start=start)

    def due(self, number: int) -> int:
        """Return when the message is due."""
        return self.start + int(number * 1_000_000 / self.rate)

    def message(self, number: int) -> FleetMessage | None:
        """Return a message, or None while its sensor is silent."""
        sensor = self.sensors[number % len(self.sensors)]
        time = self.due(number)
        if series.outage(sensor, time) is not None:
            return None
        topic = NATIVE_PATTERN.topic(self.tenant, sensor.name)
        now = reading(sensor, time)
        if series.chance(self.seed, number) < self.malformed_share:
            spoil = _SPOILERS[number // len(self.sensors) % len(_SPOILERS)]
            return FleetMessage(topic, spoil(now), malformed=True)
        backlog = self._backlog(sensor, number)
        return FleetMessage(topic, orjson.dumps([*backlog, now] if backlog else now))

    def _backlog(self, sensor: Sensor, number: int) -> list[Reading]:
        """Return what the sensor measured in the outage that has just ended, oldest first."""
        missed: list[Reading] = []
        previous = number - len(self.sensors)
        while previous >= 0 and len(missed) < BACKLOG_LIMIT:
            time = self.due(previous)
            if series.outage(sensor, time) is not Outage.UNREACHABLE:
                break
            missed.append(reading(sensor, time))
            previous -= len(self.sensors)
        missed.reverse()
        return missed


def reading(sensor: Sensor, time: int) -> Reading:
    """Return what the sensor reports of one moment."""
    return {
        "ts": _timestamp(sensor, time),
        "temperature": series.temperature(sensor, time),
        "humidity": series.humidity(sensor, time),
        "battery": series.battery(sensor, time),
        "door_open": series.door_open(sensor, time),
        "firmware": series.firmware(sensor, time),
    }


def _timestamp(sensor: Sensor, time: int) -> int | str:
    """Return the time to the microsecond; sensors differ in how they write it."""
    if sensor.number % 2:
        return time
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _cut_short(now: Reading) -> bytes:
    whole = orjson.dumps(now)
    return whole[: len(whole) // 2]


def _garbled(now: Reading) -> bytes:
    return b"\xff\xfe" + orjson.dumps(now)


def _not_json(now: Reading) -> bytes:
    return ";".join(f"{name}={value}" for name, value in now.items()).encode()


def _clock_reset(now: Reading) -> bytes:
    """A clock that was never set, and counts from 1970."""
    return orjson.dumps(now | {"ts": 73})


_SPOILERS: tuple[Callable[[Reading], bytes], ...] = (_cut_short, _garbled, _not_json, _clock_reset)
