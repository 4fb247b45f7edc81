"""What simulated sensors measure: pure functions of the seed, the sensor's number and the time.

No state, no clock, no I/O: the same arguments give the same values in every run. Randomness is a hash of the arguments (SplitMix64's
output function: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), so any moment can be computed without
those before it. Times are microseconds since 1970-01-01 UTC.
"""

import math
from dataclasses import dataclass
from enum import Enum

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

OUTAGE_WINDOW = 15 * MINUTE
OUTAGE_CHANCE = 0.25
OUTAGE_SHORTEST = 30 * SECOND
OUTAGE_LONGEST = 180 * SECOND

_DOOR_SLOT = MINUTE
_DOOR_HOURS = range(7, 20)
_FIRMWARE_LIFE = 45 * DAY
_NOISE_STEP = 10 * MINUTE
_WARMEST_HOUR = 15

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Outage(Enum):
    """Why a sensor is silent."""

    OFF = "off"
    """No power: nothing is measured, and nothing comes later."""
    UNREACHABLE = "unreachable"
    """No network: what is measured meanwhile comes afterwards, as a backlog."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A simulated sensor and what distinguishes it from the others.

    Attributes:
        key: 64-bit hash of the seed and the sensor's number.
        temperature: Mean temperature, °C.
        day_swing: Amplitude of the temperature's day curve, °C.
        humidity: Relative humidity at the mean temperature, %.
        battery_life: Time from a full battery to its replacement.
        phase: Shifts battery and firmware changes against other sensors'.
    """

    number: int
    name: str
    key: int
    temperature: float
    day_swing: float
    humidity: float
    battery_life: int
    phase: int


def sensor(seed: int, number: int) -> Sensor:
    """Return a fleet's sensor."""
    key = _mix(_mix(seed & _MASK) + number * _GOLDEN)
    return Sensor(
        number=number,
        name=f"sensor-{number + 1:04d}",
        key=key,
        temperature=18 + 6 * _draw(key, 1, 0),
        day_swing=2 + 3 * _draw(key, 2, 0),
        humidity=40 + 20 * _draw(key, 3, 0),
        battery_life=int((200 + 300 * _draw(key, 4, 0)) * DAY),
        phase=int(500 * DAY * _draw(key, 5, 0)),
    )


def temperature(sensor: Sensor, time: int) -> float:
    """Return the temperature in °C: a day curve, slow weather, and the sensor's own noise."""
    return round(sensor.temperature + _warmth(sensor, time) + 0.1 * (_draw(sensor.key, 7, time) - 0.5), 2)


def humidity(sensor: Sensor, time: int) -> float:
    """Return the relative humidity in %: it falls when it gets warmer."""
    value = sensor.humidity - 2.5 * _warmth(sensor, time) + 6 * _smooth(sensor.key, 8, time)
    return round(min(100.0, max(0.0, value + _draw(sensor.key, 9, time) - 0.5)), 1)


def battery(sensor: Sensor, time: int) -> float:
    """Return the battery's charge in %: it falls slowly from 100 to 10, then the battery is replaced."""
    return round(100 - 90 * ((time + sensor.phase) % sensor.battery_life) / sensor.battery_life, 2)


def door_open(sensor: Sensor, time: int) -> bool:
    """Tell whether the door is open: now and then for a minute, and seldom at night."""
    chance = 0.1 if time % DAY // HOUR in _DOOR_HOURS else 0.01
    return _draw(sensor.key, 10, time // _DOOR_SLOT) < chance


def firmware(sensor: Sensor, time: int) -> str:
    """Return the firmware's version: an update every 45 days."""
    release = (time + sensor.phase) // _FIRMWARE_LIFE
    return f"{release // 100}.{release // 10 % 10}.{release % 10}"


def outage(sensor: Sensor, time: int) -> Outage | None:
    """Return why the sensor is silent at the time, or None when it is not.

    In one of four windows of 15 minutes there is an outage of 30 to 180 seconds, half of them of either kind.
    """
    window = time // OUTAGE_WINDOW
    if _draw(sensor.key, 11, window) >= OUTAGE_CHANCE:
        return None
    length = OUTAGE_SHORTEST + (OUTAGE_LONGEST - OUTAGE_SHORTEST) * _draw(sensor.key, 12, window)
    begin = (OUTAGE_WINDOW - length) * _draw(sensor.key, 13, window)
    if not begin <= time % OUTAGE_WINDOW < begin + length:
        return None
    return Outage.OFF if _draw(sensor.key, 14, window) < 0.5 else Outage.UNREACHABLE  # noqa: PLR2004 - a fair coin


def chance(seed: int, number: int) -> float:
    """Return an evenly distributed number from [0, 1) that follows from the seed and the number."""
    return _draw(seed & _MASK, 15, number)


def _warmth(sensor: Sensor, time: int) -> float:
    """Return the deviation from the sensor's mean temperature, °C."""
    angle = 2 * math.pi * (time % DAY - (_WARMEST_HOUR - 6) * HOUR) / DAY
    return sensor.day_swing * math.sin(angle) + 2 * _smooth(sensor.key, 6, time)


def _smooth(key: int, quantity: int, time: int) -> float:
    """Return value noise from [-0.5, 0.5): random values every ten minutes, and a smooth way between them."""
    step, rest = divmod(time, _NOISE_STEP)
    x = rest / _NOISE_STEP
    weight = x * x * (3 - 2 * x)
    return (1 - weight) * _draw(key, quantity, step) + weight * _draw(key, quantity, step + 1) - 0.5


def _draw(key: int, quantity: int, index: int) -> float:
    return (_mix(_mix(key + quantity * _GOLDEN) + index * _GOLDEN) >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
