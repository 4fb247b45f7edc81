"""Which worker serves a session: a lease in a JetStream bucket, whose keys go by themselves when nobody writes them again.

A lease only keeps two workers from taking one session from each other again and again. That nothing is stored twice does not hang on it: the
stream refuses the envelopes of a worker that was overtaken, however it came about (`jetstream.JetStreamPublisher`).
"""

import secrets
from typing import Final

import msgspec
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header, RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from sens_common.errors import UnavailableError, words_of
from sens_common.source_states import STREAM, lease_subject

_WRONG_LAST_SEQUENCE: Final = 10071  # JSStreamWrongLastSequenceErrF, nats-server server/errors.json
_TIMEOUT_SECONDS: Final = 2.0
_OPERATION: Final = "KV-Operation"  # of a key that was deleted (NATS architecture decision record 8)


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lease: a worker's client identifier, and a process of it."""

    worker: str
    process: str


_decoder = msgspec.json.Decoder(Holder)


class Leases:
    """The leases of one process."""

    def __init__(self, jetstream: JetStreamContext, worker: str) -> None:
        self._jetstream = jetstream
        self._me = Holder(worker, secrets.token_hex(8))
        self._sequences: dict[str, int] = {}
        self._lost: set[str] = set()

    async def take(self, session: str) -> bool:
        """Take a lease that is free, or of an earlier process of this worker; tell whether it is held now.

        Raises:
            UnavailableError: NATS does not answer, or refuses.
        """
        try:
            last = await self._last(session)
            if last is not None and not self._may_take(session, last):
                return False
            return await self._write(session, (last.seq or 0) if last is not None else 0)
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not tell who serves which broker: {words_of(error)}") from error

    async def renew(self, session: str) -> bool:
        """Hold a lease for longer; tell whether it is still held.

        Raises:
            UnavailableError: NATS does not answer, or refuses.
        """
        try:
            if await self._write(session, self._sequences.get(session, 0)):
                return True
            last = await self._last(session)  # none, when NATS was started again, or could not be reached for long
            if last is None and await self._write(session, 0):
                return True
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not tell who serves which broker: {words_of(error)}") from error
        self._sequences.pop(session, None)
        self._lost.add(session)
        return False

    async def is_held(self, session: str) -> bool:
        """Tell whether another worker, or another process of this one, holds a lease.

        Raises:
            UnavailableError: NATS does not answer, or refuses.
        """
        try:
            last = await self._last(session)
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not tell who serves which broker: {words_of(error)}") from error
        return last is not None and not self._may_take(session, last)

    async def release(self, session: str) -> None:
        """Give a lease back; without effect where it is not held.

        Raises:
            UnavailableError: NATS does not answer, or refuses.
        """
        sequence = self._sequences.pop(session, None)
        if sequence is None:
            return
        try:
            await self._publish(session, b"", sequence, {_OPERATION: "DEL"})
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS does not take a lease back: {words_of(error)}") from error

    def _may_take(self, session: str, last: RawStreamMsg) -> bool:
        if (last.headers or {}).get(_OPERATION) is not None:
            return True
        try:
            holder = _decoder.decode(last.data or b"")
        except msgspec.DecodeError:
            return False  # of another version; it goes by itself
        # Two workers with the same client identifier by mistake: the one that has lost it does not take it back.
        return holder == self._me or (holder.worker == self._me.worker and session not in self._lost)

    async def _write(self, session: str, expected: int) -> bool:
        try:
            self._sequences[session] = await self._publish(session, msgspec.json.encode(self._me), expected, {})
        except APIError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    async def _publish(self, session: str, value: bytes, expected: int, headers: dict[str, str]) -> int:
        headers |= {Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(expected)}
        stored = await self._jetstream.publish(
            lease_subject(session), value, timeout=_TIMEOUT_SECONDS, stream=STREAM, headers=headers
        )
        return stored.seq

    async def _last(self, session: str) -> RawStreamMsg | None:
        try:
            return await self._jetstream.get_last_msg(STREAM, lease_subject(session))
        except NotFoundError:
            return None
