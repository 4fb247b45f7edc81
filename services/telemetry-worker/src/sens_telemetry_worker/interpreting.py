"""Interprets messages: the device that a topic leads to, the measurements in a payload, and the ids by which the database knows them.

What the database has to be asked for (a tenant, a device, a metric that was not seen before) is gathered first and asked for once a
batch; after that a message costs one look-up by its topic, its decoding and one look-up a value.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from sens_common.envelope import Message
from sens_common.topics import TOPICS
from sens_payloads.frame_decoding import Codecs
from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.batch import InterpretedMessages, Rejection, UndecidedMessages
from sens_telemetry_worker.birth_reading import BirthReader
from sens_telemetry_worker.births import BirthsOfBatch
from sens_telemetry_worker.decoders.columns import ColumnFormat
from sens_telemetry_worker.decoding import decode
from sens_telemetry_worker.layouts import KnownLayouts
from sens_telemetry_worker.row_building import MetricRegistry, RowBuilder
from sens_telemetry_worker.rows import Rows
from sens_telemetry_worker.source_messages import SourceReader
from sens_telemetry_worker.tenants import Device, KeptMessage, UplinkReading
from sens_telemetry_worker.topic_resolving import (
    ERASED_BEFORE,
    MAX_CACHED_TOPICS,
    DeviceRegistry,
    ResolvedTopics,
    TopicResolver,
)


class Registry(DeviceRegistry, MetricRegistry, Protocol):
    """Tenants, devices and metrics in the database."""


class Interpreter:
    """Interprets the messages of batches, and remembers what it learned for the next one."""

    def __init__(
        self,
        registry: Registry,
        payload_format: ColumnFormat,
        frames: FrameDecoder | None = None,
        births: BirthReader | None = None,
        *,
        max_cached_topics: int = MAX_CACHED_TOPICS,
    ) -> None:
        self._topics = TopicResolver(registry, max_cached_topics=max_cached_topics)
        self._sources = SourceReader(self._topics, frames or Codecs(), births)
        self._format = payload_format
        self._layouts = KnownLayouts(payload_format)
        self._rows = RowBuilder(registry)

    async def interpret(
        self, messages: Sequence[Message], tenants: Collection[str] = (), undecided: UndecidedMessages | None = None
    ) -> InterpretedMessages:
        """Return messages as rows.

        Args:
            messages: Any.
            tenants: Names of tenants whose ids are wanted besides.
            undecided: The same messages with their places in the stream; without them no births explain any, and none is of an import.

        Raises:
            StoreUnavailableError: The database can't be asked; the messages can be interpreted again.
        """
        topics = await self._topics.resolve(messages, tenants)
        devices = [topics.devices.get(message.topic) for message in messages]
        without_device = [
            Rejection(index, *topics.refusals[message.topic])
            for index, message in enumerate(messages if topics.refusals else ())
            if message.topic in topics.refusals
        ]
        without_device += _leave_out_erased(messages, devices, topics)
        without_device += _leave_out_full(messages, devices, topics)
        imported = {} if undecided is None else undecided.imported()
        decoded = decode(messages, devices, self._format, self._layouts, imported)
        without_measurements: frozenset[int] = frozenset()
        uplink_readings: Sequence[UplinkReading] = ()
        device_names: Mapping[int, str] = {}
        births = BirthsOfBatch()
        kept: Mapping[int, KeptMessage] = {}
        if topics.senders:
            read = await self._sources.read(messages, topics.senders, undecided, imported)
            decoded = decoded.with_others(read.decoded)
            without_measurements, uplink_readings, device_names, births, kept = read[1:]
        built = await self._rows.build(decoded)
        rows, rejections = built.rows, decoded.rejections + built.rejections
        if topics.senders and rejections:
            rows, rejections = _whole(rows, rejections, len(messages))
        return InterpretedMessages(
            messages,
            devices,
            topics.routes,
            rows,
            without_device + rejections,
            topics.generation,
            topics.tenant_ids,
            topics.senders,
            without_measurements,
            uplink_readings,
            device_names,
            births,
            kept,
        )


def _whole(rows: Rows, rejections: Sequence[Rejection], message_count: int) -> tuple[Rows, list[Rejection]]:
    """Leave out the rows of messages of which a part was refused, and give each of these one rejection, the first."""
    first: dict[int, Rejection] = {}
    for rejection in rejections:
        first.setdefault(rejection.message_index, rejection)
    stays = np.ones(message_count, np.bool_)
    stays[list(first)] = False
    return rows.of_messages(stays), list(first.values())


def _leave_out_erased(
    messages: Sequence[Message], devices: list[Device | None], topics: ResolvedTopics
) -> list[Rejection]:
    """Take away the device of messages that were received before it was erased; return their rejections."""
    erased = {topic: device.erased_before for topic, device in topics.devices.items() if device.erased_before}
    if not erased:
        return []
    left_out = [index for index, message in enumerate(messages) if message.received_at < erased.get(message.topic, 0)]
    for index in left_out:
        devices[index] = None
        topics.routes[messages[index].topic] = TOPICS.route(messages[index].topic)
    return [Rejection(index, *ERASED_BEFORE) for index in left_out]


def _leave_out_full(
    messages: Sequence[Message], devices: list[Device | None], topics: ResolvedTopics
) -> list[Rejection]:
    """Take away the device of messages of tenants of which nothing more is stored; return their rejections."""
    refusals = {
        topic: device.tenant.refusal for topic, device in topics.devices.items() if device.tenant.refusal is not None
    }
    if not refusals:
        return []
    left_out = [
        Rejection(index, *refusals[message.topic])
        for index, message in enumerate(messages)
        if devices[index] is not None and message.topic in refusals
    ]
    for rejection in left_out:
        topic = messages[rejection.message_index].topic
        devices[rejection.message_index] = None
        topics.routes[topic] = TOPICS.route(topic)
    return left_out
