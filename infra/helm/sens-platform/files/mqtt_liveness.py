"""Liveness of the mock broker: whether a client of MQTT 5 is greeted. Exits with 0 when it is, else with a sentence."""

import os
import socket
import sys

SECONDS = 4.0
CONNACK = 0x20
# MQTT 5.0, section 3.1: clean start, keep alive 10 s, no properties.
BODY = b"\0\4MQTT\5\2\0\12\0" + b"\0\15sens-liveness"
DISCONNECT = b"\xe0\0"

port = int(os.environ.get("SENS_BROKER__PORT_V5") or os.environ["SENS_BROKER__PORT"])
try:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.settimeout(SECONDS)
        connection.sendall(bytes([0x10, len(BODY)]) + BODY)
        answer = connection.recv(1)
        if answer[:1] == bytes([CONNACK]):  # whatever its reason code: a broker that is full is alive
            connection.sendall(DISCONNECT)
            sys.exit(0)
        sys.exit(f"port {port} answers a CONNECT with {answer!r}, not with a CONNACK")
except OSError as error:
    sys.exit(f"port {port} does not greet a client: {error}")
