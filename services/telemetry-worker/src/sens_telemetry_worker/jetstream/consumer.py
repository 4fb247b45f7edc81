"""The durable consumer that all telemetry workers share."""

from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from sens_common.errors import UnavailableError, words_of
from sens_common.jetstream import ensure_streams
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_common.settings import NatsSettings

ACK_WAIT_SECONDS: Final = 10.0
"""An envelope that its worker neither acknowledges nor keeps in progress for this long is given to another one."""

_MAX_ACK_PENDING: Final = 10_000


async def ensure_consumer(client: Client, settings: NatsSettings) -> int:
    """Make the stream and the consumer where they are missing; return when the stream was created, microseconds since the epoch.

    Raises:
        UnavailableError: JetStream does not answer, or refuses.
    """
    jetstream = client.jetstream()
    await ensure_streams(jetstream, settings)
    try:
        await jetstream.add_consumer(
            TELEMETRY_STREAM,
            ConsumerConfig(
                durable_name=TELEMETRY_CONSUMER,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=_MAX_ACK_PENDING,
                max_deliver=-1,
            ),
        )
        info = await jetstream.stream_info(TELEMETRY_STREAM)
    except (NatsError, TimeoutError) as error:
        raise UnavailableError(
            f"JetStream refuses or does not answer for consumer {TELEMETRY_CONSUMER}: {words_of(error)}"
        ) from error
    return int(info.created.timestamp() * 1e6) if info.created is not None else 0
