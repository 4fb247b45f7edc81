"""What runs need of the database and of the stream."""

from collections.abc import Sequence
from typing import Protocol

from sens_telemetry_worker.codec_runs.runs import DecodedFrame, Run, StreamMessage, StreamState, Window
from sens_telemetry_worker.tenants import Device


class Runs(Protocol):
    """The runs of all tenants. Each method raises `storing.StoreUnavailableError` when the database can't be asked."""

    async def take(self) -> Run | None:
        """Take the run that was left alone for longest; None when there is none that nobody is at; raise `CodecVersionGoneError`."""

    async def give_back(self, run: Run) -> None:
        """Let the run be taken again at once, without having done anything of it."""

    async def save(self, run: Run) -> None:
        """Keep how far a run is, without anything else; raise `RunLostError`."""

    async def finish(self, run: Run, failure: str | None = None) -> None:
        """End a run; `failure` says why it could not be finished."""

    async def window(self, run: Run, device_id: int, first: int, most: int) -> Window:
        """Return the next kept messages of a device; raise `RunFailedError`."""

    async def kept_of_source(self, run: Run, source_id: int, first: int, most: int) -> tuple[list[StreamMessage], int]:
        """Return the next kept messages of a source, and the time of receipt at which to go on; the run's end when there are no more."""

    async def not_kept_of_sources(self, messages: Sequence[tuple[StreamMessage, int]]) -> list[bool]:
        """Tell for each message and id of its source whether it is not among the kept ones."""

    async def letters(self, run: Run, most: int) -> tuple[list[StreamMessage], int | None]:
        """Return the next dead letters that are whole and not in the stream, and the id after which to go on; None when there are no more."""

    async def not_kept(self, device_id: int, messages: Sequence[tuple[StreamMessage, int]]) -> list[bool]:
        """Tell for each message and time of a reading whether it is neither among the kept ones nor a dead letter, which is not stored."""


class Readings(Protocol):
    """The readings of devices."""

    async def step(
        self, run: Run, device: Device, decoded: Sequence[DecodedFrame], generation: int, *, are_kept: bool
    ) -> None:
        """Judge what messages say, store it unless it is a dry run, and keep how far the run is; raise `RunLostError`, `ChangedMeanwhileError`."""

    async def coverage(self, run: Run, device: Device, most: int) -> None:
        """Count the readings that no message was found for, of the next ones; raise `RunLostError`."""


class Stream(Protocol):
    """The stream, read by sequence. Each method raises `storing.StoreUnavailableError` when NATS can't be asked."""

    async def state(self) -> StreamState:
        """Return what it has."""

    async def first_since(self, at: int, state: StreamState) -> int:
        """Return the first sequence that was stored at a time or later, microseconds since the epoch."""

    async def messages(self, first: int, past: int, created_at: int) -> list[StreamMessage]:
        """Return the messages of the envelopes from a sequence on and before another; those that are gone are left out."""
