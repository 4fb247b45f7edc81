"""The ports of the platform on one machine, and whether they are free."""

import errno
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sens_common.command_line.local_settings import HOST
from sens_common.errors import SensError, SettingsError

_LARGEST: Final = 65_535
_NAMED: Final = 3
_LISTENING: Final = "0A"  # TCP_LISTEN, Linux include/net/tcp_states.h


class Ports(NamedTuple):
    """One TCP port for everything that listens. The numbers are those of DESIGN's table, moved together by an offset."""

    postgres: int = 5432
    nats: int = 4222
    nats_monitoring: int = 8222
    mqtt: int = 1883
    mqtt5: int = 1884
    api: int = 8000
    docs: int = 8080
    ingestion_operations: int = 8081
    telemetry_operations: int = 8082
    broker_operations: int = 8083
    http_ingestion: int = 8090
    http_ingestion_operations: int = 8084


_COMPONENTS: Final = {
    "postgres": "postgresql",
    "nats": "nats",
    "nats_monitoring": "nats",
    "mqtt": "mock-mqtt-broker",
    "mqtt5": "mock-mqtt-broker",
    "api": "platform-api",
    "docs": "docs",
    "ingestion_operations": "mqtt-ingestion-worker",
    "telemetry_operations": "telemetry-worker",
    "broker_operations": "mock-mqtt-broker",
    "http_ingestion": "http-ingestion-worker",
    "http_ingestion_operations": "http-ingestion-worker",
}


_PORTS_THAT_BROWSERS_REFUSE: Final = frozenset(
    # WHATWG, "Fetch", section "Port blocking".
    {
        1,
        7,
        9,
        11,
        13,
        15,
        17,
        19,
        20,
        21,
        22,
        23,
        25,
        37,
        42,
        43,
        53,
        69,
        77,
        79,
        87,
        95,
        101,
        102,
        103,
        104,
        109,
        110,
        111,
    }
    | {
        113,
        115,
        117,
        119,
        123,
        135,
        137,
        139,
        143,
        161,
        179,
        389,
        427,
        465,
        512,
        513,
        514,
        515,
        526,
        530,
        531,
        532,
        540,
    }
    | {
        548,
        554,
        556,
        563,
        587,
        601,
        636,
        989,
        990,
        993,
        995,
        1719,
        1720,
        1723,
        2049,
        3659,
        4045,
        4190,
        5060,
        5061,
        6000,
    }
    | {6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)
_OPENED_IN_BROWSERS: Final = {"api": "API", "docs": "documentation"}


def ports(offset: int) -> Ports:
    """Return the table moved by the offset.

    Raises:
        SettingsError: A port would lie outside 1 to 65535, or be one that browsers refuse to open.
    """
    base = Ports()
    lowest, highest = 1 - min(base), _LARGEST - max(base)
    if not lowest <= offset <= highest:
        raise SettingsError(f"--port-offset {offset} moves a port out of range; it accepts {lowest} to {highest}")
    table = Ports(*(port + offset for port in base))
    for field, what in _OPENED_IN_BROWSERS.items():
        if (port := getattr(table, field)) in _PORTS_THAT_BROWSERS_REFUSE:
            raise SettingsError(
                f"--port-offset {offset} gives the {what} port {port}, which browsers refuse to open; choose another offset,"
                f" {_next_offset(offset)} for example"
            )
    return table


def _next_offset(offset: int) -> int:
    """Return an offset near this one with which browsers open everything."""
    candidates = (offset + step * sign for step in range(1, 100) for sign in (1, -1))
    return next(
        candidate
        for candidate in candidates
        if not {getattr(Ports(), field) + candidate for field in _OPENED_IN_BROWSERS} & _PORTS_THAT_BROWSERS_REFUSE
    )


def check_free(table: Ports, hosts: Mapping[str, str], unused: Collection[str] = ()) -> None:
    """Check that every port can be listened on.

    Args:
        table: The ports.
        hosts: Addresses that are listened on, by the names of the table's fields; `HOST` for those that are not named.
        unused: Names of those that nothing listens on.

    Raises:
        SensError: One or more can't; names each with its component and, where the system tells, who has it.
    """
    lines = []
    for field, port in table._asdict().items():
        if field in unused:
            continue
        problem = _problem(hosts.get(field, HOST), port)
        if problem is not None:
            lines.append(f"port {port} for {_COMPONENTS[field]} {problem}")
    if lines:
        more = f"; and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        raise SensError(
            "; ".join(lines[:_NAMED])
            + f"{more}.\nStop what uses it, or move all ports together, for example with --port-offset 1000."
        )


def _problem(host: str, port: int) -> str | None:
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except socket.gaierror as error:
        return f"can't be opened on {host}: {error.strerror}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            owner = owner_of(port)
            return f"is taken by {owner}" if owner else "is taken"
        return f"can't be opened on {host}: {error.strerror}"
    return None


def owner_of(port: int) -> str | None:
    """Return the name and number of a process that listens on the port; None where the system does not tell.

    Linux only (proc_pid_net(5), ``/proc/net/tcp``), and without root only for the user's own processes.
    """
    try:
        inodes = {
            fields[9]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]
            if (fields := line.split())[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
        }
    except OSError:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(descriptor.readlink()) in wanted for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (process {process.name})"
        except OSError:  # gone meanwhile, or another user's
            continue
    return None
