"""The path with messages of a format: CPU time of the telemetry worker and its children, in pairs with SENS' own messages."""

from typing import Final

from tools.bench import pairs
from tools.bench.figures import EndToEnd, Pairs
from tools.bench.formats import FORMATS, NATIVE, Sent
from tools.bench.load import CHUNK_MESSAGES, Chunk, Shape, publish_packet
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import end_to_end
from tools.bench.tenant_sources import make_sources
from tools.stack.path import Stack

WITHOUT_SOURCES: Final = "without sources"
"""What the other one is called that has none."""
_MESSAGES: Final = 40_000
_RATE: Final = 10_000.0
"""Messages a second: a load that the path carries with ease, so that a run takes four seconds whatever the format."""


class FormatPath(MeasuredPath):
    """A path whose load is in a format; it shares its stack with another one, which has other devices."""

    def __init__(self, stack: Stack, name: str) -> None:
        super().__init__(stack)
        self._name = name

    def prepare(self, shape: Shape) -> list[list[Chunk]]:
        """Return each connection's packets; see `MeasuredPath.prepare`."""
        first = self.take_times(shape.span_milliseconds)
        return [self._prepared(shape, connection, first) for connection in range(shape.connections)]

    def _prepared(self, shape: Shape, connection: int, first_milliseconds: int) -> list[Chunk]:
        numbers = shape.numbers(connection)
        chunks = []
        for start in range(0, len(numbers), CHUNK_MESSAGES):
            own = numbers[start : start + CHUNK_MESSAGES]
            packets = []
            for index, number in enumerate(own, start):
                sent = Sent(number, shape.device(number), first_milliseconds + shape.milliseconds(number))
                packets.append(format_packet(self._name, sent, index))
            chunks.append(Chunk(len(own), b"".join(packets)))
        return chunks


def format_packet(name: str, sent: Sent, index: int) -> bytes:
    """Return the PUBLISH packet of a message in a format, which is its connection's message number `index`."""
    each = FORMATS[name]
    return publish_packet(each.topic_of(sent), index, each.body(sent))


def against_native(path: MeasuredPath, name: str, count: int, messages: int = _MESSAGES) -> Pairs:
    """Measure pairs of a format and SENS' own messages, on one path.

    Args:
        path: Its tenant's sources are made.
        name: Of the format.
        count: Of pairs.
        messages: Of a run.

    Raises:
        StackError: Not everything was stored.
    """
    make_sources(path.stack)
    ours = _side(FORMATS[name].title, FormatPath(path.stack, name), messages)
    return _in_turn(name, ours, _side(NATIVE, path, messages), count)


def with_and_without_sources(
    path: MeasuredPath, without: MeasuredPath, other: str, count: int, messages: int = _MESSAGES
) -> Pairs:
    """Measure pairs of SENS' own messages on a path that has sources of all formats, and on one that has none.

    Args:
        path: Its tenant's sources are made.
        without: The other one.
        other: What that is called.
        count: Of pairs.
        messages: Of a run.

    Raises:
        StackError: Not everything was stored.
    """
    make_sources(path.stack)
    return _in_turn(NATIVE, _side("with sources", path, messages), _side(other, without, messages), count)


def _in_turn(payload: str, ours: pairs.Side[EndToEnd], other: pairs.Side[EndToEnd], count: int) -> Pairs:
    for each in (ours, other):
        each.measure(each.load)  # devices and metrics are registered with it
    return pairs.in_turn(payload, ours, other, count)


def _side(name: str, path: MeasuredPath, messages: int) -> pairs.Side[EndToEnd]:
    return pairs.Side(name, path.with_empty_tables(end_to_end), Shape(messages, rate=_RATE))
