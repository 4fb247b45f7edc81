"""The pod of ``helm test``: publishes one message through the broker and reads it back from the API. Runs in the API's image.

It makes the tenant ``helm-test`` with a key that it revokes at the end, and needs nothing but Python and what the image has.
"""

import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

TENANT = "helm-test"
SECONDS = 60


def answer(url: str, key: str | None = None) -> tuple[int, bytes]:
    """Return status and body."""
    request = urllib.request.Request(url)  # noqa: S310 - an address of the chart
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - same
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def administer(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command of `sens`; return its answer."""
    command = [sys.executable, "-P", "-m", "sens_cli", *arguments, "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own program
    if result.returncode != 0:  # what is wrong is on standard error
        raise SystemExit(f"{' '.join(arguments)}: exit code {result.returncode}")
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def text(content: bytes) -> bytes:
    """Return a string of MQTT (MQTT 5.0, section 1.5.4)."""
    return struct.pack(">H", len(content)) + content


def packet(kind: int, body: bytes) -> bytes:
    """Return a control packet (MQTT 5.0, section 2.1)."""
    length, remaining = b"", len(body)
    while True:
        remaining, low = divmod(remaining, 128)
        length += bytes([low | 0x80 if remaining else low])
        if not remaining:
            return bytes([kind]) + length + body


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return kind and body of the next packet, which is a short one."""
    stream = connection.makefile("rb")
    kind, length = stream.read(2)
    return kind >> 4, stream.read(length)


@contextlib.contextmanager
def broker(url: str) -> Iterator[socket.socket]:
    """Connect with MQTT 5 (section 3.1)."""
    parts = urllib.parse.urlsplit(url)
    secure = parts.scheme == "mqtts"
    connection = socket.create_connection((parts.hostname or "", parts.port or (8883 if secure else 1883)), timeout=10)
    if secure:
        context = ssl.create_default_context(cafile=os.environ.get("MQTT_CA_FILE"))
        connection = context.wrap_socket(connection, server_hostname=parts.hostname)
    with connection:
        user, password = os.environ.get("MQTT_USERNAME"), os.environ.get("MQTT_PASSWORD")
        flags = 0x02 | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
        body = (
            text(b"MQTT")
            + bytes([5, flags])
            + struct.pack(">H", 60)
            + b"\0"
            + text(f"helm-test-{time.time_ns()}".encode())
        )
        body += b"".join(text(content.encode()) for content in (user, password) if content is not None)
        connection.sendall(packet(0x10, body))
        kind, reply = receive(connection)
        if kind != 2 or reply[1] != 0:  # noqa: PLR2004 - CONNACK
            raise SystemExit(f"the broker refuses the connection (reason code {reply[1]})")
        yield connection


def publish(url: str, topic: str, payload: bytes) -> None:
    """Publish with QoS 1 and wait for the acknowledgement (sections 3.3 and 3.4)."""
    with broker(url) as connection:
        connection.sendall(packet(0x32, text(topic.encode()) + struct.pack(">H", 1) + b"\0" + payload))
        kind, reply = receive(connection)
        if kind != 4 or (len(reply) > 2 and reply[2] >= 0x80):  # noqa: PLR2004 - PUBACK
            raise SystemExit("the broker refuses the message")


def read_back(api: str, key: str, device: str, value: int) -> None:
    """Wait until the API shows the value."""
    deadline = time.monotonic() + SECONDS
    url = f"{api}/api/v1/devices/{device}/latest"
    status, body = answer(url, key)
    while not (status == 200 and any(entry["value"] == value for entry in json.loads(body)["latest"])):  # noqa: PLR2004
        if time.monotonic() > deadline:
            raise SystemExit(
                f"the message was not stored within {SECONDS} s; the API's last answer: {status} {body[:200]!r}"
            )
        time.sleep(0.2)
        status, body = answer(url, key)


def main() -> None:
    """Run the test; the exit code tells its outcome."""
    for name, url in (("API", os.environ["API_URL"]), ("documentation", os.environ.get("DOCS_URL"))):
        if url is not None:
            status, body = answer(f"{url}/readyz")
            if status != 200:  # noqa: PLR2004
                raise SystemExit(f"the {name} is not ready: {body.decode()}")
            sys.stdout.write(f"the {name} is ready\n")
    mqtt = os.environ.get("MQTT_URL")
    if mqtt is None:
        return
    administer(["tenants", "create", TENANT, "--if-missing"])
    key = administer(["keys", "create", "--tenant", TENANT, "--name", "helm test"])
    try:
        number = time.time_ns() % 1_000_000_000
        publish(mqtt, f"sens/v1/{TENANT}/probe/telemetry", json.dumps({"number": number}).encode())
        read_back(os.environ["API_URL"], key["key"], "probe", number)
    finally:
        administer(["keys", "revoke", str(key["id"])])
    sys.stdout.write("one message was published, stored and read back\n")


if __name__ == "__main__":
    main()
