"""Envelopes in the stream, published by a test."""

import asyncio

from nats.aio.client import Client
from nats.errors import Error as NatsError

from sens_common import envelope
from sens_telemetry_worker.jetstream.inbox import StreamInbox

TOPIC = "sens/v1/demo/d1/telemetry"


async def publish_envelopes(client: Client, count: int) -> None:
    """Publish so many envelopes of one message each."""
    jetstream = client.jetstream()
    for _ in range(count):
        await jetstream.publish("sens.telemetry.test", envelope.encode([envelope.Message(TOPIC, b"{}", 1)]))


async def publishes_envelopes(client: Client) -> bool:
    """Publish an envelope if the stream takes it."""
    try:
        await publish_envelopes(client, 1)
    except (NatsError, TimeoutError):
        return False
    return True


async def settle_envelopes(inbox: StreamInbox, count: int) -> None:
    """Take and acknowledge so many envelopes."""
    stop = asyncio.Event()
    while count > 0:
        envelopes = await inbox.take(stop)
        await inbox.acknowledge(envelopes)
        count -= len(envelopes)
