"""Migrates the dead letters of versions before 0.2 from their stream into the database.

The letters of a JetStream message are written together with a note that it was migrated, so that a migration that is cut short is continued,
and a letter that was replayed or deleted meanwhile does not come back. The stream is deleted when everything in it is migrated; if a worker
of the version before makes it again, it is migrated again.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from sens_common.attempts import Attempts
from sens_common.dead_letters import Origin
from sens_common.health import Problems
from sens_common.names import DEAD_LETTERS_STREAM
from sens_common.topics import TOPICS
from sens_telemetry_worker.jetstream.former_dead_letters import read_letters
from sens_telemetry_worker.letters import Letter
from sens_telemetry_worker.storing import RowsRefusedError, StoreUnavailableError

log = structlog.get_logger()

MESSAGES_AT_ONCE: Final = 200
_INTERVAL_SECONDS: Final = 30.0


class Destination(Protocol):
    """The database."""

    async def tenant_ids(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return the ids of those of the tenants that exist."""

    async def add(self, stream: int, messages: Mapping[int, list[Letter]]) -> int:
        """Write the letters of JetStream messages that were not migrated before, in one transaction; return how many letters.

        Args:
            stream: When the stream was created, microseconds since the epoch.
            messages: Letters by the sequence of their JetStream message.
        """

    async def finish(self, stream: int) -> None:
        """Forget which messages were migrated: the stream is deleted."""


class DeadLetterMigration:
    """The migration."""

    def __init__(
        self, jetstream: JetStreamContext, destination: Destination, *, messages_at_once: int = MESSAGES_AT_ONCE
    ) -> None:
        self._jetstream = jetstream
        self._destination = destination
        self._messages_at_once = messages_at_once

    async def keep_migrating(self, problems: Problems) -> None:
        """Migrate what there is, again and again."""
        attempts = Attempts(
            problems,
            "former dead letters",
            "dead letters of the version before can't be migrated",
            retry_on=(NatsError, TimeoutError, OSError, StoreUnavailableError, RowsRefusedError),
            interval_seconds=_INTERVAL_SECONDS,
        )
        async for attempt in attempts:
            with attempt:
                await self.migrate()

    async def migrate(self) -> int:
        """Migrate everything and delete the stream; return how many dead letters were migrated, 0 also where there is no stream.

        Raises:
            NatsError: JetStream refuses or does not answer.
            StoreUnavailableError: The database can't be used.
        """
        try:
            information = await self._jetstream.stream_info(DEAD_LETTERS_STREAM)
        except NotFoundError:
            return 0
        stream = int(information.created.timestamp() * 1e6) if information.created is not None else 0
        migrated = 0
        sequence = 1
        while messages := await self._read_from(stream, sequence):
            migrated += await self._destination.add(stream, messages)
            sequence = max(messages) + 1
            await self._jetstream.purge_stream(DEAD_LETTERS_STREAM, seq=sequence)
        await self._jetstream.delete_stream(DEAD_LETTERS_STREAM)
        await self._destination.finish(stream)
        log.info("dead letters of the version before are migrated into the database", dead_letters=migrated)
        return migrated

    async def _read_from(self, stream: int, sequence: int) -> dict[int, list[Letter]]:
        """Return the letters of some JetStream messages from a sequence on, none at the end."""
        letters: dict[int, list[Letter]] = {}
        while len(letters) < self._messages_at_once:
            try:
                found = await self._jetstream.get_msg(DEAD_LETTERS_STREAM, seq=sequence, subject=">", next=True)
            except NotFoundError:
                break
            assert found.seq is not None  # noqa: S101 - for the type checker
            letters[found.seq] = read_letters(Origin(stream, found.seq, 0), found.subject or "", found.data or b"")
            sequence = found.seq + 1
        return await self._with_tenants(letters)

    async def _with_tenants(self, letters: Mapping[int, list[Letter]]) -> dict[int, list[Letter]]:
        names = {TOPICS.tenant_of(letter.topic) for each in letters.values() for letter in each}
        ids = await self._destination.tenant_ids(sorted(names))
        return {
            sequence: [letter._replace(tenant_id=ids.get(TOPICS.tenant_of(letter.topic), 0)) for letter in each]
            for sequence, each in letters.items()
        }
