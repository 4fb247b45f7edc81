"""Receives messages and acknowledges each at once: what the broker can do by itself. A process of its own, made by the bench.

usage: python -m tools.bench.subscriber PORT FILTER MESSAGES
Prints ``ready`` when it is subscribed, and when it has acknowledged so many messages the CPU seconds these took.
"""

import socket
import sys
import time
from typing import Final

from tools.stack.tap import remaining_length

_READ_BYTES: Final = 1 << 18
_CONNACK: Final = 2
_PUBLISH: Final = 3
_SUBACK: Final = 9


def main() -> None:
    """Subscribe (QoS 1, MQTT 3.1.1, sections 3.8, 3.3 and 3.4), and acknowledge until all have come."""
    port, topic_filter, messages = int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
    name = b"bench-subscriber"
    connect = b"\0\x04MQTT\x04\x02\0\0" + len(name).to_bytes(2) + name
    subscribe = b"\0\x01" + len(topic_filter).to_bytes(2) + topic_filter + b"\x01"
    buffer = b""
    began = 0.0
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(b"\x10" + remaining_length(len(connect)) + connect)
        broker.sendall(b"\x82" + remaining_length(len(subscribe)) + subscribe)
        while messages > 0:
            data = broker.recv(_READ_BYTES)
            if not data:
                sys.exit("the broker closed the connection")
            buffer += data
            used, acknowledgements, subscribed = take(buffer)
            buffer = buffer[used:]
            if subscribed:
                began = time.process_time()
                print("ready", flush=True)
            messages -= len(acknowledgements) // 4
            broker.sendall(acknowledgements)
    print(time.process_time() - began, flush=True)


def take(data: bytes) -> tuple[int, bytes, bool]:
    """Return how many bytes hold whole packets, the acknowledgements of those that publish, and whether a SUBACK is among them."""
    position = 0
    acknowledgements = bytearray()
    subscribed = False
    while position + 5 <= len(data):
        length, digits = data[position + 1] & 127, 1
        while data[position + digits] & 128:
            digits += 1
            length |= (data[position + digits] & 127) << (7 * digits - 7)
        begin = position + 1 + digits
        end = begin + length
        if end > len(data):
            break
        kind = data[position] >> 4
        if kind == _PUBLISH:
            identifier = begin + 2 + (data[begin] << 8 | data[begin + 1])
            acknowledgements += b"\x40\x02" + data[identifier : identifier + 2]
        subscribed = subscribed or kind == _SUBACK
        position = end
    if position + 4 == len(data) and data[position] >> 4 == _CONNACK:
        position += 4  # the only packet here that is shorter than five bytes
    return position, bytes(acknowledgements), subscribed


if __name__ == "__main__":
    main()
