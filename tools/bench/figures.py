"""What was measured, as it is written to JSON and read again. Rates are messages a second, CPU times microseconds a message."""

from dataclasses import dataclass, field
from typing import Final

from tools.bench.format_figures import Decoding, Fairness

GENERATOR: Final = "generator"
"""The load's own process among the others."""


@dataclass(frozen=True)
class Machine:
    """Where the figures come from.

    Attributes:
        versions: Of the programs, by name.
        sync_milliseconds: Median of appending 4 KiB to a file and syncing it, which bounds what every commit costs.
    """

    processor: str
    cores: int
    memory_gigabytes: float
    kernel: str
    distribution: str
    python: str
    optimised_python: bool
    commit: str
    sync_milliseconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Rate:
    """How fast messages got through, and what each cost.

    Attributes:
        messages: How many.
        per_second: From the first publish until the last one is where it belongs.
        cpu_microseconds: Of each process and its children, a message.
        offered_per_second: What the publishers sent, at most; 0 for as much as the broker acknowledged.
        wal_bytes: Of the database, a message; 0 where it was not looked at.
        disk_bytes: By which the database has grown, a message; 0 where it was not looked at.
    """

    messages: int
    per_second: float
    cpu_microseconds: dict[str, float]
    offered_per_second: float = field(default=0.0, kw_only=True)
    wal_bytes: float = field(default=0.0, kw_only=True)
    disk_bytes: float = field(default=0.0, kw_only=True)


@dataclass(frozen=True)
class EndToEnd(Rate):
    """From publishers to committed rows.

    Attributes:
        acknowledged_per_second: Messages acknowledged to the publishers.
        logged_per_second: Messages in the stream.
        values_per_second: Values in the database.
        megabytes: Memory of each process at the end.
    """

    acknowledged_per_second: float
    logged_per_second: float
    values_per_second: float
    megabytes: dict[str, float]


@dataclass(frozen=True)
class Latency:
    """From a publish until another database session sees the row.

    Attributes:
        rate: Messages a second, probes among them.
        probes: How many messages were looked for.
        milliseconds: By percentile.
        poll_milliseconds: A time is at most this much too long: the pause between two looks and the median look.
    """

    rate: float
    probes: int
    milliseconds: dict[str, float]
    poll_milliseconds: float


@dataclass(frozen=True)
class Sample:
    """A look while a backlog grows and shrinks.

    Attributes:
        seconds: Since the outage began.
        waiting: Messages in the stream that are not stored.
        megabytes: Memory of each process.
    """

    seconds: float
    waiting: float
    megabytes: dict[str, float]


@dataclass(frozen=True)
class Backlog(Rate):
    """What happens when something was away; the rate and the costs are those of the drain.

    Attributes:
        away: What was stopped.
        waited: Messages in the stream when it was back.
        recovery_seconds: From its being ready again to the first message that is stored.
        peak_megabytes: Each process' highest memory, from the outage to the last message.
        samples: In the course of time.
    """

    away: str
    waited: int
    recovery_seconds: float
    peak_megabytes: dict[str, float]
    samples: list[Sample]


@dataclass(frozen=True)
class Devices:
    """The same number of messages from so many devices.

    Attributes:
        devices: How many, in turn.
        first: When none of them was known; each is registered with its first message.
        again: When all were.
    """

    devices: int
    first: EndToEnd
    again: EndToEnd


@dataclass(frozen=True)
class Rows:
    """A load on a database that holds values already.

    Attributes:
        rows: How many values, of the same devices.
        load: The load's figures.
    """

    rows: int
    load: EndToEnd


@dataclass(frozen=True)
class AfterFault:
    """What another program has kept of messages after a fault.

    Attributes:
        published: Messages acknowledged to the publishers.
        rows: Rows for them.
        distinct: Messages among these.
    """

    published: int
    rows: int
    distinct: int


@dataclass(frozen=True)
class Telegraf:
    """Telegraf, MQTT to PostgreSQL, on the same broker and database.

    Attributes:
        settings: The best of those that were tried.
        tried: Messages a second of each setting.
        rounds: Runs with the best settings.
        malformed: One message in ten can't be parsed.
        killed: Killed (SIGKILL) under load and started again, several times.
        kills: How many times.
        beside: A run of SENS before each of the rounds: what the machine can do changes within minutes.
        keyed: Runs with a unique key on device and time, beside the rounds; empty where a reading is not a row.
    """

    settings: str
    tried: dict[str, float]
    rounds: list[Rate]
    malformed: AfterFault
    killed: AfterFault
    kills: int
    beside: list[EndToEnd] = field(default_factory=list)
    keyed: list[Rate] = field(default_factory=list)


@dataclass(frozen=True)
class Pairs:
    """SENS and another one, measured in turn.

    Attributes:
        payload: What is published.
        ours: Commit of SENS.
        other: The other one, or the commit of the other SENS.
        runs: Of SENS.
        others: Of the other one: each beside the run with the same index.
    """

    payload: str
    ours: str
    other: str
    runs: list[EndToEnd]
    others: list[Rate]


@dataclass(frozen=True)
class Malformed(Rate):
    """What the path does when some of the messages are no JSON; the rate is that of stored messages and dead letters.

    Attributes:
        malformed: How many of the messages.
        stored_per_second: Good messages in the database, from the first publish until all are stored or dead letters.
        beside: What the path stores a second when all are good, in a run just before; 0 where there was none.
    """

    malformed: int
    stored_per_second: float
    beside: float = 0.0


@dataclass(frozen=True)
class Replayed:
    """What a replay took.

    Attributes:
        dead_letters: How many were replayed, by both replays together.
        others: How many the filter left where they were, one between any two that were replayed.
        left: How many there were when the first replay was killed.
        sent_twice: Messages that the first replay had sent and not deleted; they are stored once.
        replayed_per_second: Rate of the second replay.
        stored_seconds: From the start of the second replay until the last message is stored.
        megabytes: Most memory of the replaying process.
    """

    dead_letters: int
    others: int
    left: int
    sent_twice: int
    replayed_per_second: float
    stored_seconds: float
    megabytes: float


LATEST_OF_DECADES: Final = "latest of a device with decades of readings"
LATEST_OF_MONTH: Final = "latest of a device with a month of readings"
LATEST_OF_FLEET: Final = "latest of all devices"
CHART: Final = "chart of a year of a metric, a reading a minute"


@dataclass(frozen=True)
class Read:
    """A read through the API.

    Attributes:
        name: What is read.
        times: How often.
        requests: How many one read takes.
        kilobytes: Of its answers.
        milliseconds: By percentile.
        cpu_microseconds: Of API and database, a read.
        buffers: Pages that the database looked at, a read.
    """

    name: str
    times: int
    requests: int
    kilobytes: float
    milliseconds: dict[str, float]
    cpu_microseconds: dict[str, float]
    buffers: float


@dataclass(frozen=True)
class Stream:
    """Everything of a device in one answer.

    Attributes:
        form: Its media type.
        rows: How many values.
        rows_per_second: How fast they came.
        megabytes: The API's highest memory meanwhile.
        bytes_per_row: Of the answer.
        cpu_microseconds: Of API and database, a row.
        readings_per_second: How fast they came as readings of several values.
    """

    form: str
    rows: int
    rows_per_second: float
    megabytes: float
    bytes_per_row: float
    cpu_microseconds: dict[str, float]
    readings_per_second: float = 0.0


@dataclass(frozen=True)
class Reads:
    """Reads of a database that holds a lot.

    Attributes:
        readings: How many there are.
        partitions: Of the readings; chunks on TimescaleDB.
        devices: Of the fleet.
        reads: What was read.
        streams: What was streamed.
    """

    readings: int
    partitions: int
    devices: int
    reads: list[Read]
    streams: list[Stream]


@dataclass(frozen=True)
class Posted(Rate):
    """Messages that were posted by HTTP, one a request, each answered once the stream had it.

    Attributes:
        connections: At the same time.
        milliseconds: Percentiles of the time from a request to its answer.
    """

    connections: int = field(kw_only=True)
    milliseconds: dict[str, float] = field(kw_only=True)


@dataclass
class Results:
    """Everything. What was not measured is empty.

    Attributes:
        end_to_end: Runs by payload.
        columnstore: Bytes that a message takes in TimescaleDB's columnstore, by payload.
        database: With its version; empty before something was measured.
        hops: Runs by payload and hop.
        pairs: By payload and the other one.
        decoding: Rounds by format.
        formats: Pairs by format, with SENS' own; those of SENS' own with sources in place, with a path that has none.
        failures: Parts that failed, and why.
    """

    machine: Machine
    database: str = ""
    end_to_end: dict[str, list[EndToEnd]] = field(default_factory=dict)
    columnstore: dict[str, float] = field(default_factory=dict)
    hops: dict[str, dict[str, list[Rate]]] = field(default_factory=dict)
    latency: list[Latency] = field(default_factory=list)
    backlog: list[Backlog] = field(default_factory=list)
    devices: list[Devices] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    replay: list[Replayed] = field(default_factory=list)
    telegraf: dict[str, Telegraf] = field(default_factory=dict)
    pairs: dict[str, Pairs] = field(default_factory=dict)
    reads: Reads | None = None
    http: list[Posted] = field(default_factory=list)
    decoding: dict[str, list[Decoding]] = field(default_factory=dict)
    formats: dict[str, Pairs] = field(default_factory=dict)
    fairness: Fairness | None = None
    failures: dict[str, str] = field(default_factory=dict)
