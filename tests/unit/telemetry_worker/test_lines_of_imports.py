"""Lines of imports may be as old as the operator has allowed; messages of devices in the same batch may not."""

from sens_common.envelope import Message
from sens_telemetry_worker.batch import EnvelopeProgress, UndecidedMessages
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.decoding import decode
from sens_telemetry_worker.layouts import KnownLayouts
from sens_telemetry_worker.tenants import Device, Tenant
from support.memory import MemoryEnvelope

RECEIVED_AT = 1_785_000_000_000_000
OLD, OLDER = (Message("t", b'{"ts": "%d-01-01T00:00:00Z", "t": 1}' % year, RECEIVED_AT) for year in (2017, 2001))


def test_lines_of_imports_may_be_as_old_as_their_envelope_says() -> None:
    undecided = UndecidedMessages.of(
        [
            EnvelopeProgress.of(MemoryEnvelope(1, [OLD])),
            EnvelopeProgress.of(MemoryEnvelope(2, [OLD, OLDER, OLD], import_days=5000)),
        ]
    )
    payload_format, device = decoder("native"), Device(1, "d", Tenant(1, "demo"), 0)

    found = decode(undecided.messages, [device] * 4, payload_format, KnownLayouts(payload_format), undecided.imported())

    assert {index for shape in found.shapes for index in shape.message_index} | {
        each.message_index for each in found.single
    } == {1, 3}
    assert [(each.message_index, each.reason) for each in found.rejections] == [(0, "too_old"), (2, "too_old")]
    assert "more than 400 days" in found.rejections[0].detail
    assert "more than 5,000 days" in found.rejections[1].detail
