"""What a telemetry worker's transaction writes, made by hand."""

import itertools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sens_common.envelope import Message
from sens_common.topics import TOPICS
from sens_telemetry_worker.batch import (
    Batch,
    BatchPart,
    EnvelopeProgress,
    InterpretedMessages,
    Rejection,
    UndecidedMessages,
)
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.rows import Rows
from support.memory import MemoryEnvelope

NO_QUOTA: Final = Quota(1_000_000, 1 << 40, 0, 0)
AT: Final = 1_700_000_000_000_000

_sequences = itertools.count(1000)


def part_of(
    rows: Rows,
    messages: int,
    *,
    envelopes: Sequence[EnvelopeProgress] | None = None,
    only: Sequence[int] | None = None,
    rejected: Sequence[Rejection] = (),
    payload: bytes = b"{}",
    **envelope: Any,
) -> BatchPart:
    """Return a part with rows, of one new envelope with so many messages of no tenant unless envelopes are given."""
    if envelopes is None:
        topics = [Message("elsewhere", payload, AT)] * messages
        sequence = envelope.pop("sequence", next(_sequences))
        envelopes = [EnvelopeProgress.of(MemoryEnvelope(sequence, topics, **envelope))]
    undecided = UndecidedMessages.of(envelopes)
    count = len(undecided.messages)
    routes = {message.topic: TOPICS.route(message.topic) for message in undecided.messages}
    batch = Batch.of(undecided, InterpretedMessages(undecided.messages, [None] * count, routes, rows, [], 1, {}))
    gone = {each.message_index for each in rejected}
    with_rows = [index for index in (range(count) if only is None else only) if index not in gone]
    indexes = np.array([*with_rows, *(each.message_index for each in rejected)], np.int64)
    return BatchPart(batch, rows, indexes, list(rejected), AT)
