"""The ports of the platform on one machine, and whether they are free."""

import errno
import socket
from pathlib import Path
from typing import Final, NamedTuple

from sens_common.errors import SensError, SettingsError

HOST: Final = "127.0.0.1"
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
}


def ports(offset: int) -> Ports:
    """Return the table moved by the offset.

    Raises:
        SettingsError: A port would lie outside 1 to 65535.
    """
    base = Ports()
    lowest, highest = 1 - min(base), _LARGEST - max(base)
    if not lowest <= offset <= highest:
        raise SettingsError(f"--port-offset {offset} moves a port out of range; it accepts {lowest} to {highest}")
    return Ports(*(port + offset for port in base))


def check_free(table: Ports, mqtt_host: str) -> None:
    """Check that every port can be listened on.

    Raises:
        SensError: One or more can't; names each with its component and, where the system tells, who has it.
    """
    lines = []
    for field, port in table._asdict().items():
        host = mqtt_host if field.startswith("mqtt") else HOST
        problem = _problem(host, port)
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
