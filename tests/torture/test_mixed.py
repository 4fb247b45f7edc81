"""What the torture sends in the formats of others is read as it is meant."""

import asyncio

import pytest

from sens_common.dead_letters import Reason
from sens_payloads.codecs import javascript
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.explaining import Explanation, explain
from sens_payloads.formats import format_settings, network_format
from sens_payloads.frame_decoding import Codecs
from sens_payloads.profiles import Profile
from sens_payloads.sources import Source
from sens_payloads.uplinks import Received
from tools.torture.messages import DEVICES, FIRST_TIME_MILLISECONDS, MALFORMED_EVERY, POISON, POISON_EVERY, values
from tools.torture.mixed import CODEC, FORMATS, Format, MixedMessages

MESSAGES = MixedMessages()


def number(index: int, divisor: int = 1) -> int:
    """Return the number of a message in a format."""
    return next(n for n in range(divisor, 1_000_000, divisor) if n // 3 % DEVICES % (len(FORMATS) + 1) == index)


def explained(its_format: Format, numbers: list[int]) -> list[Explanation]:
    """Return what is read of messages of one tenant."""

    async def run() -> list[Explanation]:
        async with Sandbox() as sandbox:
            frames = Codecs(JavascriptCodecs(sandbox))
            found = []
            for each in map(MESSAGES.message, numbers):
                profile = Profile("frame", codec=javascript.unsaved(CODEC)) if its_format.has_frame else None
                source = Source(
                    its_format.name,
                    network_format(its_format.format),
                    format_settings(its_format.format, its_format.settings(each.tenant)),
                    default_profile=profile,
                )
                received = Received(each.payload, (FIRST_TIME_MILLISECONDS + 10_000_000) * 1000, each.topic)
                found.append(await explain(source, received, tenant_id=1, assigned=nobody, frames=frames))
            return found

    async def nobody(_devices: object) -> dict[str, Profile]:
        return {}

    return asyncio.run(run())


@pytest.mark.parametrize("index", range(len(FORMATS)), ids=[each.name for each in FORMATS])
class TestMessage:
    def test_in_a_format_says_what_all_say(self, index: int) -> None:
        good, poison = number(index), number(index, POISON_EVERY)

        for explanation, each in zip(explained(FORMATS[index], [good, poison]), (good, poison), strict=True):
            sent = MESSAGES.message(each)
            [uplink] = explanation.uplinks
            assert sent.time_milliseconds is not None
            assert (explanation.refusal, uplink.refusal) == (None, None)
            assert uplink.uplink.device == sent.device
            assert uplink.uplink.measured_at == sent.time_milliseconds * 1000
            assert uplink.metrics == values(each) | ({"poison": POISON} if each == poison else {})
            assert MESSAGES.number_of(sent.payload) == each

    def test_that_is_malformed_is_refused_as_such(self, index: int) -> None:
        malformed = number(index, MALFORMED_EVERY)

        [explanation] = explained(FORMATS[index], [malformed])

        assert explanation.refusal is not None
        assert explanation.refusal.reason == Reason.MALFORMED_PAYLOAD
        assert MESSAGES.number_of(MESSAGES.message(malformed).payload) == malformed


def test_messages_of_one_device_are_in_one_format() -> None:
    topics: dict[tuple[str, str], str] = {}
    for each in map(MESSAGES.message, range(1, 2000)):
        assert topics.setdefault((each.tenant, each.device), each.topic) == each.topic
