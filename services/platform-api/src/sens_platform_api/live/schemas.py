"""How live data look: server-sent events (WHATWG HTML, "Server-sent events")."""

from datetime import timedelta
from typing import Annotated

import orjson
from pydantic import Field

from sens_common.live import Reading
from sens_platform_api.live.service import Batch
from sens_platform_api.parameters import DEVICE_PATTERN, EPOCH, Parameters, time_text

HELLO = b"retry: 2000\n: you see what is stored from now on\n\n"
KEEP_ALIVE = b": nothing new\n\n"
MEDIA_TYPE = "text/event-stream"

EXAMPLE = (
    "event: reading\n"
    'data: {"device":"sensor-0001","metric":"temperature","time":"2026-11-24T22:15:00Z","value":21.5}\n\n'
    'event: dropped\ndata: {"count":17}\n\n'
)


class LiveParameters(Parameters):
    """What to see."""

    device: Annotated[
        list[Annotated[str, Field(pattern=DEVICE_PATTERN, max_length=63)]],
        Field(
            description="Only readings of this device; may be repeated. Without it, all devices.",
            max_length=100,
            examples=[["sensor-0001"]],
        ),
    ] = Field(default_factory=list)


def render(batch: Batch) -> bytes:
    """Return the events of a batch."""
    events = [_event(b"dropped", {"count": batch.dropped})] if batch.dropped else []
    events += [_event(b"reading", _reading(reading)) for reading in batch.readings]
    return b"".join(events)


def _reading(reading: Reading) -> dict[str, object]:
    return {
        "device": reading.device,
        "metric": reading.metric,
        "time": time_text(EPOCH + timedelta(microseconds=reading.measured_at)),
        "value": reading.value,
    }


def _event(name: bytes, data: dict[str, object]) -> bytes:
    return b"event: " + name + b"\ndata: " + orjson.dumps(data) + b"\n\n"
