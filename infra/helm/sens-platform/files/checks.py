"""The chart's checks, from a pod of its own: names resolve, the database takes connections, NATS is healthy.

Prints a line for each, which begins with "ok" or "failed"; exits with 1 when one failed. It needs no password.
"""

import json
import os
import socket
import struct
import sys
import urllib.request
from collections.abc import Callable

SECONDS = 5.0
VERSION_3 = 196_608  # PostgreSQL documentation, "Message Formats", StartupMessage
NOT_YET = {"57P01", "57P02", "57P03"}  # shuts down, crashed, can't take connections now: as pg_isready understands them


def name(host: str) -> str:
    """Look a name up as every pod does: CoreDNS."""
    return ", ".join(sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}))


def database(address: str) -> str:
    """Ask the database for a session, as pg_isready does, and leave before it asks for a password."""
    host, _, port = address.rpartition(":")
    parameters = b"user\0sens_platform\0database\0sens_platform\0\0"
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.settimeout(SECONDS)
        connection.sendall(struct.pack("!ii", len(parameters) + 8, VERSION_3) + parameters)
        answer = connection.recv(4096)
    fields = answer[5:].split(b"\0") if answer[:1] == b"E" else []
    code = next((field[1:].decode() for field in fields if field[:1] == b"C"), "")
    if answer[:1] not in {b"R", b"E"} or code in NOT_YET:
        raise OSError(f"it does not accept connections ({code or 'no answer of PostgreSQL'})")
    return "accepts connections"


def nats(url: str) -> str:
    """Ask NATS how it is, JetStream included."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - an address of the chart's own
        status = json.loads(answer.read(65_536)).get("status")
    if status != "ok":
        raise OSError(f"its status is {status!r}")
    return "is healthy"


def failed(what: str, check: Callable[[str], str], subject: str) -> bool:
    """Make a check, print its line, and tell whether it failed."""
    try:
        sys.stdout.write(f"ok {what} {subject}: {check(subject)}\n")
    except (OSError, ValueError) as error:
        sys.stdout.write(f"failed {what} {subject}: {error}\n")
        return True
    return False


checks = [
    *(("name", name, host) for host in os.environ["NAMES"].split(",") if host),
    *(("database", database, address) for address in [os.environ.get("DATABASE", "")] if address),
    *(("nats", nats, url) for url in [os.environ.get("NATS_HEALTH", "")] if url),
]
outcomes = [failed(*each) for each in checks]
sys.exit(1 if any(outcomes) else 0)
