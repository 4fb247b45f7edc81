"""Live data in answers: server-sent events (WHATWG HTML, "Server-sent events")."""

from datetime import timedelta
from typing import Annotated

import orjson
from pydantic import Field

from sens_common.live import LiveReading
from sens_platform_api.fields import CalibrationChoice, unit_members
from sens_platform_api.live.meanings import Meaning, as_read
from sens_platform_api.live.reader import RenderedReading, TakenEvents
from sens_platform_api.parameters import DEVICE_PATTERN, DEVICE_WORDS, EPOCH, Parameters, in_words, time_text

HELLO = b"retry: 2000\n: you see what is stored from now on\n\n"
KEEP_ALIVE = b": nothing new\n\n"
MEDIA_TYPE = "text/event-stream"

EXAMPLE = (
    "event: reading\n"
    'data: {"device":"sensor-0001","metric":"temperature","time":"2026-11-24T22:15:00Z","value":21.5,"unit":"Cel","unit_text":"°C"}\n\n'
    'event: dropped\ndata: {"count":17}\n\n'
)


class LiveParameters(Parameters):
    """Selects live data."""

    device: Annotated[
        list[
            Annotated[
                str,
                Field(max_length=63, json_schema_extra={"pattern": DEVICE_PATTERN}),
                in_words(DEVICE_PATTERN, DEVICE_WORDS),
            ]
        ],
        Field(
            description="Only readings of this device; may be repeated. Without it, all devices.",
            max_length=100,
            examples=[["sensor-0001"]],
        ),
    ] = Field(default_factory=list)
    calibration: CalibrationChoice = None


def render_events(taken: TakenEvents) -> bytes:
    """Return the events that a reader took, after the one that says how many readings are lost before them."""
    dropped = [render_dropped(taken.dropped)] if taken.dropped else []
    return b"".join(dropped + taken.events)


def render_reading(reading: LiveReading, unit: str | None = None) -> bytes:
    """Return the event of a reading."""
    return _event(b"reading", _reading(reading) | unit_members(unit))


def render(reading: LiveReading, meaning: Meaning) -> RenderedReading:
    """Return a reading on its way to readers."""
    read = as_read(reading, meaning)
    text = render_reading(read, meaning.unit)
    return RenderedReading(reading.device, text, text if read is reading else render_reading(reading, meaning.unit))


def render_dropped(count: int) -> bytes:
    """Return the event that says how many readings are lost."""
    return _event(b"dropped", {"count": count})


def _reading(reading: LiveReading) -> dict[str, object]:
    return {
        "device": reading.device,
        "metric": reading.metric,
        "time": time_text(EPOCH + timedelta(microseconds=reading.measured_at)),
        "value": reading.value,
    }


def _event(name: bytes, data: dict[str, object]) -> bytes:
    return b"event: " + name + b"\ndata: " + orjson.dumps(data) + b"\n\n"
