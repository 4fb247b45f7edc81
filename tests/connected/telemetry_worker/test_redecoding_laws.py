"""A law of decoding again: killed anywhere, and with messages stored meanwhile, it ends as if everything had been decoded with the version."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.database import connect
from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.migrations import migrate
from sens_common.settings import DatabaseSettings
from sens_payloads.frames import Fields, Frame
from sens_payloads.profiles import Codec, CodecVersion
from support.databases import Databases
from support.depth import tries
from support.redecoding import EUI, RedecodingWorker, redecoding_worker
from support.rollups import violations

FAILS: Final = 0xFF
_MINUTE: Final = st.integers(0, 90)
_BYTES: Final = st.lists(st.integers(1, 4), min_size=1, max_size=3)
_MESSAGE: Final = st.dictionaries(_MINUTE, _BYTES, min_size=1, max_size=3)
_FAILING: Final = st.builds(lambda minute, value: {minute: [value, FAILS]}, st.integers(100, 110), st.integers(1, 4))


def decoded(number: int, payload: Sequence[int]) -> dict[str, float]:
    """Return what a version makes of bytes: a value of each, whose sums are exact, and one that the other version does not have."""
    values = {f"k{byte}": byte / (8 if number == 2 else 1) for byte in payload if byte != FAILS}
    return values | ({"new": 2.0} if number == 2 else {"old": 1.0})


class PythonCodec:
    """Two versions of a codec in Python, as `frames.FrameDecoder`; the second one fails where the first does not."""

    async def decode(
        self, _tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        assert isinstance(codec, CodecVersion)
        return [
            RejectedMessageError(Reason.CODEC_ERROR, "it fails")
            if codec.number == 2 and FAILS in frame.payload
            else decoded(codec.number, frame.payload)
            for frame in frames
        ]


def as_hex(message: dict[int, list[int]]) -> dict[int, str]:
    return {minute: bytes(payload).hex() for minute, payload in message.items()}


async def killed(it: RedecodingWorker, turns: int) -> None:
    """Do a step, kill it after some turns of the loop, and let the run be taken again at once."""
    step = asyncio.create_task(it.runner.step())
    for _ in range(turns):
        await asyncio.sleep(0)
    step.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await step
    await it.execute("UPDATE sens.codec_runs SET taken_until = '-infinity'")


async def finish(it: RedecodingWorker) -> None:
    while await it.runner.step():
        pass


class TestDecodingAgain:
    @settings(max_examples=tries(8, 200))
    @given(
        st.lists(_MESSAGE | _FAILING, min_size=1, max_size=8),
        st.lists(_MESSAGE, max_size=4),
        st.booleans(),
        st.lists(st.integers(0, 400), max_size=6),
    )
    def test_ends_as_if_everything_had_been_decoded_with_the_version(
        self,
        databases: Databases,
        before: list[dict[int, list[int]]],
        meanwhile: list[dict[int, list[int]]],
        is_kept: bool,
        kills: list[int],
    ) -> None:
        with databases.new(migrate) as database:
            asyncio.run(self._hold(database, before, meanwhile, is_kept, kills))

    async def _hold(
        self,
        database: DatabaseSettings,
        before: list[dict[int, list[int]]],
        meanwhile: list[dict[int, list[int]]],
        is_kept: bool,
        kills: list[int],
    ) -> None:
        expected: dict[tuple[str, int, str], float | str] = {}
        for message in [*before, *meanwhile]:
            for minute, payload in message.items():
                values = decoded(1 if FAILS in payload else 2, payload)
                expected |= {(EUI, minute, name): value for name, value in values.items()}
        async with redecoding_worker(database, "1", "2", frames=PythonCodec()) as it:
            if not is_kept:
                await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            for message in before:
                await it.settle(as_hex(message))
            await it.refresh_rollups()
            await it.execute("UPDATE sens.profiles SET codec_version = 2")
            await it.begin(2)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._store(it, meanwhile))
                tasks.create_task(self._kill(it, kills))
            await finish(it)
            if await it.fetch("SELECT FROM sens.dead_letters"):  # what came before its time was decoded again
                await it.replay_letters()
            await it.refresh_rollups()

            assert await it.values() == expected
            assert await it.fetch("SELECT outcome FROM sens.codec_runs") == [("finished",)]
            assert await it.fetch("SELECT FROM sens.dead_letters") == []
        connection = await connect(database, "test")
        try:
            assert await violations(connection) == []
        finally:
            await connection.close()

    async def _store(self, it: RedecodingWorker, messages: list[dict[int, list[int]]]) -> None:
        for message in messages:
            await it.settle(as_hex(message))

    async def _kill(self, it: RedecodingWorker, kills: list[int]) -> None:
        for turns in kills:
            await killed(it, turns)
