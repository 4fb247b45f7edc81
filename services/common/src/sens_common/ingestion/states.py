"""Tells the API how the sources do, by a JetStream bucket: see `sens_common.source_states`."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import NotFoundError

from sens_common.attempts import Attempts
from sens_common.errors import UnavailableError, words_of
from sens_common.health import Problems
from sens_common.settings import NatsSettings
from sens_common.source_states import (
    BUCKET,
    KEPT_SECONDS,
    STREAM,
    SourceState,
    WorkerStates,
    encode,
    state_subject,
)

_INTERVAL_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 2.0
_TELLING: Final = "tell"  # key of a problem

type States = Mapping[str, Mapping[str, SourceState]]
"""By tenant and name of the source."""


async def ensure_bucket(jetstream: JetStreamContext, replicas: int) -> None:
    """Make the bucket of states and leases where it is missing.

    Raises:
        UnavailableError: NATS does not answer, or refuses.
    """
    try:
        try:
            await jetstream.stream_info(STREAM)
        except NotFoundError:
            await jetstream.create_key_value(
                KeyValueConfig(
                    BUCKET,
                    description="How sources do at the ingestion workers, and which worker serves which of their brokers",
                    storage=StorageType.MEMORY,
                    ttl=KEPT_SECONDS,
                    replicas=replicas,
                )
            )
    except (NatsError, TimeoutError, OSError) as error:
        raise UnavailableError(f"NATS does not keep the states of sources: {words_of(error)}") from error


class StatesBucket:
    """Writes what has changed every second, and what has not every few seconds, so that it is not taken for that of a worker that is gone.

    Attributes:
        problems: What is wrong with that; the sources themselves do not need it.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        worker: str,
        parts: Iterable[Callable[[], States]],
        nats: NatsSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take who knows states: no two of them the same source's."""
        self._jetstream = jetstream
        self._worker = worker
        self._parts = list(parts)
        self._replicas = nats.replicas
        self._clock = clock
        self._told: dict[str, tuple[bytes, float]] = {}
        self.problems = Problems("source_states")

    async def keep_telling(self) -> None:
        """Tell again and again."""
        attempts = Attempts(
            self.problems,
            _TELLING,
            "the states of sources can't be told; the API does not know them",
            retry_on=(NatsError, TimeoutError, OSError, UnavailableError),
            interval_seconds=_INTERVAL_SECONDS,
        )
        async for attempt in attempts:
            with attempt:
                if attempt.number == 1 or self.problems.problem is not None:
                    await ensure_bucket(self._jetstream, self._replicas)
                await self.tell()

    async def tell(self) -> None:
        """Tell once.

        Raises:
            NatsError: NATS refuses.
            TimeoutError: NATS does not answer.
        """
        states: dict[str, dict[str, SourceState]] = {}
        for part in self._parts:
            for tenant, of_tenant in part().items():
                states.setdefault(tenant, {}).update(of_tenant)
        self._told = {tenant: told for tenant, told in self._told.items() if tenant in states}
        for tenant, of_tenant in states.items():
            value = encode(WorkerStates(self._worker, of_tenant))
            before, at = self._told.get(tenant, (b"", 0.0))
            if value == before and self._clock() - at < _AGAIN_SECONDS:
                continue
            await self._jetstream.publish(
                state_subject(self._worker, tenant), value, timeout=_TIMEOUT_SECONDS, stream=STREAM
            )
            self._told[tenant] = value, self._clock()
