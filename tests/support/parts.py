"""What a telemetry worker's transaction writes, made by hand."""

import itertools
from collections.abc import Sequence
from typing import Any, Final

from sens_common.envelope import Message
from sens_telemetry_worker.accounting import Batch, Envelope, Part
from sens_telemetry_worker.columns import Rejected
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.routing import Routed
from sens_telemetry_worker.rows import Prepared
from support.memory import MemoryEntry

NO_QUOTA: Final = Quota(1_000_000, 1 << 40, 0, 0)
AT: Final = 1_700_000_000_000_000

_sequences = itertools.count(1000)


def part_of(
    prepared: Prepared,
    messages: int,
    *,
    envelopes: Sequence[Envelope] | None = None,
    only: Sequence[int] | None = None,
    rejected: Sequence[Rejected] = (),
    payload: bytes = b"{}",
    **entry: Any,
) -> Part:
    """Return a part with rows, of one new envelope with so many messages of no tenant unless envelopes are given."""
    if envelopes is None:
        topics = [Message("elsewhere", payload, AT)] * messages
        envelopes = [Envelope.of(MemoryEntry(entry.pop("sequence", next(_sequences)), topics, **entry))]
    batch = Batch(envelopes)
    count = len(batch.messages)
    batch.take(Routed(batch.messages, [None] * count, prepared.numbers, prepared.texts, [], 1), {})
    gone = {each.message for each in rejected}
    return Part(
        batch,
        prepared,
        [n for n in only if n not in gone] if only is not None else [n for n in range(count) if n not in gone],
        rejected,
        AT,
    )
