"""What the ingestion workers tell of sources, in a JetStream bucket (`sens_common.source_states`)."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from sens_common.errors import UnavailableError, words_of
from sens_common.source_states import STREAM, SourceState, WorkerStates, decode, state_subject

log = structlog.get_logger()

_TIMEOUT_SECONDS: Final = 1.0
_MAX_WORKERS: Final = 100
_RANK: Final = {"connected": 0, "failed": 1, "connecting": 2}


class SourceStates:
    """The bucket."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, tenant: str) -> Mapping[str, SourceState]:
        """See `service.States.of`."""
        if not self._client.is_connected:
            raise UnavailableError("not connected to NATS")
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return united(await self._told(tenant))
        except (NatsError, TimeoutError, OSError) as error:
            raise UnavailableError(f"NATS can't be used: {words_of(error)}") from error

    async def _told(self, tenant: str) -> list[WorkerStates]:
        jetstream = self._client.jetstream()
        try:
            info = await jetstream.stream_info(STREAM, subjects_filter=state_subject("*", tenant))
        except NotFoundError:  # no worker has told anything
            return []
        told = []
        for subject in sorted(info.state.subjects or {})[:_MAX_WORKERS]:
            try:
                message = await jetstream.get_last_msg(STREAM, subject)
                told.append(decode(message.data or b""))
            except NotFoundError:  # it has just gone
                continue
            except ValueError as error:
                log.warning("what a worker tells of sources can't be understood", subject=subject, error=str(error))
        return told


def united(told: Iterable[WorkerStates]) -> dict[str, SourceState]:
    """Return one state for each source: several workers may serve one on the platform's broker, each a part of its messages."""
    by_source: dict[str, list[SourceState]] = {}
    for worker in told:
        for name, state in worker.sources.items():
            by_source.setdefault(name, []).append(state)
    return {name: _united(states) for name, states in by_source.items()}


def _united(states: list[SourceState]) -> SourceState:
    best = min(states, key=lambda state: (_RANK[state.status], state.reason == "too_many_brokers"))
    newest = max(states, key=lambda state: (state.downlinks is not None, state.last_message_at or 0))
    wrong = next((state for state in states if state.detail), best)
    return SourceState(
        best.status,
        wrong.reason if best.status != "failed" else best.reason,
        wrong.detail if best.status != "failed" else best.detail,
        connected_since=min((each.connected_since for each in states if each.connected_since), default=None),
        last_message_at=max((each.last_message_at for each in states if each.last_message_at), default=None),
        messages=sum(each.messages for each in states),
        checks_token=all(each.checks_token for each in states),
        downlinks=newest.downlinks,
    )
