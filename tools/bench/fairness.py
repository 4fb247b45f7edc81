"""Two tenants: how long the messages of one take while a codec of the other one decodes, and while that codec never ends."""

import asyncio
import threading
import time
from typing import Final

from tools.bench.format_figures import Beside, Fairness
from tools.bench.formats import FORMATS, JAVASCRIPT, Sent
from tools.bench.load import Shape, publish_packet, publish_steadily
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import latency
from tools.bench.tenant_sources import make_source
from tools.stack.server import HOST

OTHER: Final = "other"
"""The tenant with the codecs."""
_GOOD: Final = "good"
_ENDLESS: Final = "endless"
_CODECS: Final = {_GOOD: JAVASCRIPT, _ENDLESS: "function decodeUplink(input) { while (true); }"}
_RATE: Final = 200.0
_OTHER_RATE: Final = 50.0
_BEFORE_SECONDS: Final = 10.0
"""What a codec may waste at first is gone then."""
_DEVICES: Final = 20


def measure(path: MeasuredPath, seconds: float, rounds: int, before_seconds: float = _BEFORE_SECONDS) -> Fairness:
    """Measure so many rounds.

    Args:
        path: With a second tenant, `OTHER`.
        seconds: Length of a run.
        rounds: How many.
        before_seconds: For so long a codec is at work when the first message is looked at.

    Raises:
        StackError: A source is refused, or a message was not stored.
    """
    for name, codec in _CODECS.items():
        source = {
            "topic_filter": _topic(name, "+"),
            "format": FORMATS["javascript"].format,
            "settings": {},
            "default_profile": name,
        }
        make_source(path.stack, OTHER, name, source, codec)
    runs = [
        Beside(*(_beside(path, seconds, before_seconds, codec) for codec in (_GOOD, _ENDLESS))) for _ in range(rounds)
    ]
    return Fairness(_RATE, _OTHER_RATE, seconds, runs)


def _beside(path: MeasuredPath, seconds: float, before_seconds: float, codec: str) -> dict[str, float]:
    """Return percentiles of one tenant's messages, milliseconds, while the other one's go through a codec."""
    stop = threading.Event()
    load = threading.Thread(target=_publish, args=(path.stack.mqtt_port, codec, stop), name=f"load of {codec}")
    load.start()
    try:
        time.sleep(before_seconds)
        return latency(path, _RATE, seconds, Shape(1, devices=100, connections=2)).milliseconds
    finally:
        stop.set()
        load.join()


def _publish(port: int, codec: str, stop: threading.Event) -> None:
    """Publish the other tenant's messages until the stop, a second's at a time."""
    shape = Shape(int(_OTHER_RATE), connections=1, tenant=codec)
    while not stop.is_set():
        asyncio.run(
            publish_steadily(HOST, port, shape, _OTHER_RATE, lambda number, index: _packet(codec, number, index))
        )


def _packet(codec: str, number: int, index: int) -> bytes:
    sent = Sent(number, number % _DEVICES, time.time_ns() // 1_000_000)
    return publish_packet(_topic(codec, sent.eui), index, FORMATS["javascript"].body(sent))


def _topic(codec: str, device: str) -> str:
    return f"application/{codec}/device/{device}/event/up"
