"""Builds a batch of what is left to do for some envelopes."""

from collections.abc import Iterable

from sens_payloads.frames import FrameDecoder
from sens_telemetry_worker.batch import Batch, EnvelopeProgress, UndecidedMessages
from sens_telemetry_worker.birth_reading import BirthReader
from sens_telemetry_worker.decoders.columns import ColumnFormat
from sens_telemetry_worker.interpreting import Interpreter, Registry


class BatchBuilder:
    """Makes batches of messages."""

    def __init__(
        self,
        registry: Registry,
        payload_format: ColumnFormat,
        frames: FrameDecoder | None = None,
        births: BirthReader | None = None,
    ) -> None:
        self._interpreter = Interpreter(registry, payload_format, frames, births)

    async def build(self, progress: Iterable[EnvelopeProgress]) -> Batch:
        """Return the undecided messages of envelopes as a batch that can be stored; raises as `Interpreter.interpret`."""
        undecided = UndecidedMessages.of(progress)
        interpreted = await self._interpreter.interpret(undecided.messages, undecided.tenant_names(), undecided)
        return Batch.of(undecided, interpreted)
