"""Whatever a sensor sends ends up stored or in the dead letters, and the next good message is stored."""

import json
import random

from support.servers import wait_until
from support.workers import Publisher, TelemetryPath

TOPIC = "sens/v1/demo/d1/telemetry"

PAYLOADS: list[bytes] = [
    b"",
    b"\x00",
    b"\xff\xfe\x00garbage",
    b"null",
    b"1",
    b'"text"',
    b"[]",
    b"{}",
    b"[[]]",
    b"[{}]",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -1e999}',
    b'{"a": null}',
    b'{"a": [[1], 2]}',
    b'{"a": 1, "a": 2}',
    b'{"a": 9007199254740993}',
    b'{"a": 123456789012345678901234567890}',
    b'{"a": "\\u0000"}',
    b'{"": 1}',
    b'{"a.b": 1, "a": {"b": 2}}',
    b'{"ts": "yesterday", "a": 1}',
    b'{"ts": 1, "a": 1}',
    b'{"ts": 99999999999999999999, "a": 1}',
    b'{"ts": "1999-12-31T23:59:59Z", "a": 1}',
    b'{"ts": "2999-01-01T00:00:00Z", "a": 1}',
    b'[{"a": 1}, {"a": 2}]',
    b"[" * 5000 + b"]" * 5000,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
    json.dumps({f"m{number}": number for number in range(10_000)}).encode(),
    json.dumps({"a": "x" * 300_000}).encode(),
    b"x" * 900_000,
]

TOPICS = [
    "sens/v1/DEMO/d1/telemetry",
    "sens/v1/demo/ /telemetry",
    "sens/v1/demo/d'; DROP TABLE sens.devices; --/telemetry",
    "sens/v1/-/d1/telemetry",
    "sens/v1/demo/" + "d" * 200 + "/telemetry",
    "sens/v1/nobody/d1/telemetry",
    "sens/v1/d\u00e9mo/\u6e29\u5ea6/telemetry",
]


def conserved(path: TelemetryPath) -> bool:
    """Tell whether received = stored + duplicate + dead-lettered."""
    name = "sens_telemetry_messages_{}_total"
    received, *settled = (
        path.telemetry.metric(name.format(part)) for part in ("received", "stored", "duplicate", "dead_lettered")
    )
    return received == sum(settled)


class TestBadInput:
    def test_of_every_kind_is_stored_or_dead_lettered(self, path: TelemetryPath) -> None:
        generator = random.Random(20_261_124)
        messages = [(TOPIC, payload) for payload in PAYLOADS]
        messages += [(topic, b'{"a": 1}') for topic in TOPICS]
        for _ in range(300):
            good = bytearray(b'{"ts": 1700000000.5, "a": {"b": 1.5, "c": "x"}, "d": true}')
            for _ in range(generator.randint(1, 4)):
                good[generator.randrange(len(good))] = generator.randrange(256)
            messages.append((TOPIC, bytes(good)))
            messages.append((TOPIC, generator.randbytes(generator.randrange(200))))
        with Publisher(path.broker) as publisher:
            publisher.publish_all(messages)
            publisher.publish("sens/v1/demo/d2/telemetry", '{"ts": 1700000000, "fine": 1}')
        path.wait_until_idle()
        assert [value for value in path.values() if value[1] == "fine"] == [("d2", "fine", 1_700_000_000_000_000, 1.0)]
        wait_until(lambda: path.settled() >= len(messages) + 2, "every message is counted")
        assert conserved(path)
        assert path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") >= len(PAYLOADS) + len(TOPICS) - 1
        assert path.telemetry.process is not None
        assert path.telemetry.process.poll() is None
