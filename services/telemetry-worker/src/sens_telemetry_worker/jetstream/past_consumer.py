"""The stream past the consumer that the workers share: single envelopes, what is settled, and replays.

It is `earlier_envelopes.Stream`, `timescale.unsettled.Consumer` and `timescale.explained_letters.ReplayStream`.
"""

from collections.abc import Sequence
from itertools import starmap

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from sens_common.errors import words_of
from sens_common.names import TELEMETRY_CONSUMER, TELEMETRY_STREAM
from sens_common.replays import REPLAY_SUBJECT, ReplayedMessage, envelopes
from sens_telemetry_worker.batch import StreamPosition
from sens_telemetry_worker.birth_reading import SentEarlier
from sens_telemetry_worker.jetstream.envelope import messages_in
from sens_telemetry_worker.storing import StoreUnavailableError


class StreamPastConsumer:
    """The stream of envelopes, past the consumer that the workers share."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._jetstream = client.jetstream()

    async def settled_up_to(self) -> int:
        """See `timescale.unsettled.Consumer.settled_up_to`."""
        try:
            info = await self._jetstream.consumer_info(TELEMETRY_STREAM, TELEMETRY_CONSUMER)
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailableError(f"JetStream does not say what is settled: {words_of(error)}") from error
        return info.ack_floor.stream_seq if info.ack_floor is not None else 0

    async def sent(self, position: StreamPosition) -> list[SentEarlier]:
        """See `earlier_envelopes.Stream.sent`."""
        try:
            found = await self._jetstream.get_msg(TELEMETRY_STREAM, seq=position.sequence)
        except NotFoundError:
            return []
        except (NatsError, TimeoutError) as error:
            words = f"the stream does not give envelope {position.sequence}: {words_of(error)}"
            raise StoreUnavailableError(words) from error
        return list(starmap(SentEarlier, messages_in(found.data or b"", found.headers or {}, position)))

    async def replay(self, messages: Sequence[ReplayedMessage]) -> None:
        """See `timescale.explained_letters.ReplayStream.replay`."""
        try:
            for each in envelopes(messages, self._client.max_payload):
                await self._jetstream.publish(REPLAY_SUBJECT, each.body, stream=TELEMETRY_STREAM, headers=each.headers)
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailableError(f"the stream takes no replayed messages: {words_of(error)}") from error
