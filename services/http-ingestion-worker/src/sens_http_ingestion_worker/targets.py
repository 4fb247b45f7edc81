"""What the address of a request names: the source or the device, and sometimes the key.

``/ingest/v1/{tenant}/{source}``, then as many levels as the sender likes, which are for the source's format what an MQTT topic is;
``/sens/v1/{tenant}/{device}/telemetry``, the native topic; and ``/api/v1/{key}/telemetry``, to which devices made for ThingsBoard post
(ThingsBoard documentation, "HTTP Device API Reference"). A key may be the last level of the first two.
"""

import re
from typing import Final, NamedTuple

from sens_common.keys import is_key
from sens_common.names import shown
from sens_common.topics import NATIVE, NATIVE_PATTERN, SOURCES
from sens_http_ingestion_worker.keys import Sender
from sens_http_ingestion_worker.refusals import RefusedError

MAX_TARGET: Final = 2048
"""Bytes of a path with its query."""
_MAX_QUERY: Final = 1024
_KEY: Final = re.compile(r"sens_[A-Za-z0-9_-]{43}")
_SOURCE_LEVELS: Final = 4  # ingest, v1, tenant, source
_NATIVE_LEVELS: Final = 5  # sens, v1, tenant, device, telemetry
_BOARD_LEVELS: Final = 4  # api, v1, key, telemetry


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        tenant: In the address, None where the key alone says it.
        source: Likewise; None for the native topics.
        published: Levels after the source, None where there are none; of a native topic the device.
        query: Of the address.
        key: In the address, None where a header has it.
    """

    tenant: str | None
    source: str | None
    published: str | None
    query: str
    key: str | None


def target_of(raw: bytes) -> Target:
    """Return what an address names.

    Raises:
        RefusedError: Nothing that takes messages.
    """
    if len(raw) > MAX_TARGET:
        raise RefusedError(414, "address_too_long", f"the address has more than {MAX_TARGET:,} bytes")
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise RefusedError(
            400, "bad_address", "the address has characters that are not ASCII; percent-encode them"
        ) from None
    path, _, query = text.partition("?")
    if len(query) > _MAX_QUERY:
        raise RefusedError(414, "address_too_long", f"the address' query has more than {_MAX_QUERY:,} bytes")
    levels = path.removeprefix("/").removesuffix("/").split("/")
    key = levels.pop() if len(levels) > _SOURCE_LEVELS and is_key(levels[-1]) else None
    if levels[:2] == ["ingest", "v1"] and len(levels) >= _SOURCE_LEVELS:
        published = "/".join(levels[_SOURCE_LEVELS:]) or None
        return Target(levels[2], levels[3], published, query, key)
    if levels[:2] == ["sens", "v1"] and len(levels) == _NATIVE_LEVELS and levels[4] == "telemetry":
        return Target(levels[2], None, levels[3], "", key)
    if levels[:2] == ["api", "v1"] and len(levels) == _BOARD_LEVELS and levels[3] == "telemetry":
        return Target(None, None, None, query, levels[2])
    raise RefusedError(
        404,
        "unknown_address",
        "nothing takes messages here: post to /ingest/v1/{tenant}/{source}, /sens/v1/{tenant}/{device}/telemetry or /api/v1/{key}/telemetry",
    )


def topic_for(target: Target, sender: Sender) -> str:
    """Return the topic of the message in the stream.

    Raises:
        RefusedError: The key is not for this address.
    """
    topic = _topic_of_key(target, sender) if target.tenant is None else _topic_of_address(target, sender)
    if _KEY.search(topic):
        raise RefusedError(
            400,
            "key_in_address",
            "the address holds an ingest key where it would be stored with the message: send the key in a header, or as the last level of the path",
        )
    return topic


def _topic_of_address(target: Target, sender: Sender) -> str:
    if (target.tenant, target.source) != (sender.tenant, sender.source):
        raise RefusedError(403, "wrong_key", f"the ingest key is for {_address(sender)}, not for this address")
    if target.source is not None:
        published = target.published if target.published is not None else sender.device
        if sender.device is not None and published != sender.device:
            raise RefusedError(403, "wrong_key", f"the ingest key is for {_address(sender)}, not for this address")
        return SOURCES.topic(sender.tenant, target.source, published, target.query)
    device = target.published or ""
    topic = NATIVE_PATTERN.topic(sender.tenant, device)
    route = NATIVE.route(topic)
    if route.device is None:
        raise RefusedError(404, "unknown_address", f"{shown(device)} can't be the name of a device")
    if sender.device is not None and route.device != sender.device:
        raise RefusedError(403, "wrong_key", f"the ingest key is for {_address(sender)}, not for this address")
    return topic


def _topic_of_key(target: Target, sender: Sender) -> str:
    if sender.source is not None:
        return SOURCES.topic(sender.tenant, sender.source, sender.device, target.query)
    if sender.device is None:
        raise RefusedError(
            403, "wrong_key", "the ingest key is not for one device, so this address does not say which one sends"
        )
    return NATIVE_PATTERN.topic(sender.tenant, sender.device)


def _address(sender: Sender) -> str:
    if sender.source is None:
        return f"/sens/v1/{sender.tenant}/{sender.device or '{device}'}/telemetry"
    return f"/ingest/v1/{sender.tenant}/{sender.source}{f'/{sender.device}' if sender.device else ''}"
