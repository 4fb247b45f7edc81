"""The dead letters as they lie in their stream."""

from nats.js import JetStreamContext

from sens_common import dead_letters
from sens_common.dead_letters import DeadLetter
from sens_common.names import DEAD_LETTERS_STREAM


async def letters_in_messages(jetstream: JetStreamContext) -> list[list[DeadLetter]]:
    """Return the dead letters of each message, oldest first."""
    state = (await jetstream.stream_info(DEAD_LETTERS_STREAM)).state
    messages = []
    sequence = 1
    for _ in range(state.messages):
        message = await jetstream.get_msg(DEAD_LETTERS_STREAM, seq=sequence, subject=">", next=True)
        messages.append([placed.letter for placed in dead_letters.decode(message.data or b"")])
        sequence = (message.seq or 0) + 1
    return messages


async def count_letters(jetstream: JetStreamContext) -> int:
    """Return how many dead letters there are."""
    return sum(map(len, await letters_in_messages(jetstream)))
