"""What can go wrong, each as something that happens to a running path and is over when its function returns."""

from typing import Final, NamedTuple

from sens_common.names import TELEMETRY_STREAM
from tools.stack.path import HTTP, INGESTION, TELEMETRY
from tools.stack.programs import BROKER, NATS, POSTGRES
from tools.stack.proxy import Mode
from tools.torture import database_faults
from tools.torture.posting import CLIENTS_EDGE, NATS_EDGE
from tools.torture.process_faults import (
    Happening,
    all_restarted,
    broker_killed,
    broker_killed_after_backlog,
    codecs_killed,
    cut,
    disk_full,
    gone,
    killed,
    no_room_for,
    paused,
    restarted,
    stuttering,
)

TIME_OUTS: Final = {
    "SENS_MQTT__KEEP_ALIVE_SECONDS": "5",
    "SENS_DATABASE__COMMAND_TIMEOUT_SECONDS": "8",
}
"""Settings of the workers with which everything they wait for is over after 10 s: an envelope's time limit, the broker's silence,
a statement. What is to outlast them can then be short."""

_LONG: Final = (11.0, 15.0)
_MINUTES: Final = (60.0, 150.0)
_LIMIT_SECONDS: Final = (2.0, 6.0)  # a malformed message has to come meanwhile


class Fault(NamedTuple):
    """A fault.

    Attributes:
        name: For people.
        group: Row of the table of results.
        happen: Takes the path and the seconds that it lasts.
        seconds: How long it lasts, from and to; None for as long as the plan says.
        every: It comes in one of so many turns of all faults.
        kills_broker: Whether the broker may lose what it has not handed over.
    """

    name: str
    group: str
    happen: Happening
    seconds: tuple[float, float] | None = None
    every: int = 1
    kills_broker: bool = False


_SAID: Final = {Mode.REFUSE: "refused"}


def faults(
    *,
    broker_restarts: bool,
    disks: bool,
    columnstore: bool = False,
    ingestion_workers: int = 2,
    codecs: bool = False,
    http: bool = False,
) -> list[Fault]:
    """Return every fault that the path has to stand.

    A broker that keeps its sessions on disk is killed too. It acknowledges before it writes: see `Record` for what is demanded then.

    Args:
        broker_restarts: Whether the broker keeps everything when it is told to end.
        disks: Whether the servers have disks that can be filled; else a trigger says that the database's is full.
        columnstore: Whether the database is TimescaleDB with its columnstore.
        ingestion_workers: How many there are, one or two.
        codecs: Whether the telemetry workers run codecs in processes of their own.
        http: Whether messages are posted too.
    """
    ingestion, telemetry = (INGESTION, f"{INGESTION}-2")[:ingestion_workers], (TELEMETRY, f"{TELEMETRY}-2")
    alone = [*ingestion, *telemetry, NATS, POSTGRES]
    together = [
        (INGESTION, TELEMETRY),
        (INGESTION, NATS),
        (INGESTION, POSTGRES),
        *([ingestion] if ingestion_workers > 1 else []),
        telemetry,
        (TELEMETRY, NATS),
        (TELEMETRY, POSTGRES),
        (NATS, POSTGRES),
        (*ingestion, *telemetry),
    ]
    pausable = [BROKER, INGESTION, TELEMETRY, NATS, POSTGRES]
    edges = ["mqtt", "ingestion-nats", "telemetry-nats", "database"]
    if http:
        alone.append(HTTP)
        together.append((HTTP, NATS))
        pausable.append(HTTP)
        edges += [CLIENTS_EDGE, NATS_EDGE]
    modes = [mode for mode in Mode if mode is not Mode.OPEN]
    silent = (Mode.SILENT, Mode.ONE_WAY)
    found = [Fault(f"kill {name}", "a process killed", killed(name)) for name in alone]
    found += [Fault(f"kill {' and '.join(names)}", "several processes killed", killed(*names)) for names in together]
    found += [Fault(f"pause {name}", "a process paused", paused(name)) for name in pausable]
    found += [
        Fault(f"pause {name} beyond time-outs", "a process paused beyond time-outs", paused(name), _LONG, 2)
        for name in pausable
    ]
    found += [
        Fault(f"{mode} {edge}", f"a connection {_SAID.get(mode, mode)}", cut(edge, mode))
        for edge in edges
        for mode in modes
    ]
    found += [
        Fault(f"{mode} {edge} beyond time-outs", f"a connection {mode} beyond time-outs", cut(edge, mode), _LONG, 2)
        for edge in edges
        for mode in silent
    ]
    found += [
        Fault("roll the workers", "the workers rolled one by one", restarted()),
        Fault("database restarted", "the database restarted", restarted(POSTGRES)),
        Fault("database session killed", "the database crashed", database_faults.session_killed),
        Fault("database sessions ended", "the database's sessions ended", database_faults.sessions_ended),
        Fault("database locked", "the database locked", database_faults.locked),
        Fault(
            "database locked beyond time-outs", "the database locked beyond time-outs", database_faults.locked, _LONG, 2
        ),
        Fault("database read-only", "the database read-only", database_faults.read_only),
        Fault("database slow", "the database slow", database_faults.slow),
        Fault("database stuttering", "the database slow", stuttering),
        Fault("database says its disk is full", "the database says its disk is full", database_faults.says_full),
        Fault("database gone for minutes", "the database gone for minutes", gone(POSTGRES), _MINUTES, 3),
        Fault("stream restarted", "the stream restarted", restarted(NATS)),
        Fault("stream full", "the stream at its limit", no_room_for(TELEMETRY_STREAM)),
        Fault(
            "dead letters refused",
            "the database refuses the dead letters",
            database_faults.letters_refused,
            _LIMIT_SECONDS,
        ),
    ]
    if disks:
        found += [
            Fault("database's disk full", "the database's disk full", disk_full(POSTGRES)),
            Fault("stream's disk full", "the stream's disk full", disk_full(NATS)),
        ]
    if codecs:
        found += [
            Fault(f"kill codecs of {name}", "the processes of codecs killed", codecs_killed(name)) for name in telemetry
        ]
    if columnstore:
        found += [Fault("columnstore filled", "the columnstore takes what is written to", database_faults.columnstore)]
    if broker_restarts:
        group = "the broker killed"
        found += [
            *(
                Fault(
                    f"kill {' and '.join((BROKER, *others))}, sessions {'' if saved else 'not '}saved",
                    f"{group}, its sessions {'' if saved else 'not '}saved",
                    broker_killed(*others, saved=saved),
                    kills_broker=True,
                )
                for others in ((), (INGESTION,), (NATS,))
                for saved in (True, False)
            ),
            Fault(
                "kill broker, backlog saved",
                f"{group} after a backlog that it had saved",
                broker_killed_after_backlog,
                kills_broker=True,
            ),
            Fault("broker restarted", "the broker restarted", restarted(BROKER)),
            Fault("everything restarted", "everything restarted", all_restarted),
        ]
    return found
