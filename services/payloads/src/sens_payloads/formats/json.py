"""JSON of devices that can't be changed, and single numbers and words: rules say where device, time and values are (`json_settings`).

A message is a JSON document (RFC 8259), or a number or a text alone: ``21.5``, ``ON``. One message may carry several readings, as an array of
objects, and several devices, as an object with a member for each. What is said of values in `sens_common.fields` holds here, too.
"""

from functools import cached_property
from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from sens_payloads.formats.json_rules import Match, Reader
from sens_payloads.formats.json_settings import Rule
from sens_payloads.formats.json_text import parse_text
from sens_payloads.uplinks import Received, Unwrapped, Uplink

MAX_RULES: Final = 64
_MAX_FLAT_BYTES: Final = 8192


class Settings(BaseModel):
    """The first rule that a message fits counts; a message that fits none is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=MAX_RULES)]

    @cached_property
    def reader(self) -> Reader:
        """What reads messages by these rules; made once."""
        return Reader(self.rules)


def unwrap(received: Received, settings: Settings) -> Unwrapped:
    """Return the uplinks of a message; see `sens_payloads.uplinks.NetworkFormat.unwrap`."""
    reader = settings.reader
    matches = reader.matches(received.topic)
    if matches and matches[0].is_flat:
        uplink = _flat_uplink(matches[0], received)
        if uplink is not None:
            return [uplink]
    return reader.unwrap(received, parse_text)


def _flat_uplink(match: Match, received: Received) -> Uplink | None:
    """Return an object of numbers as an uplink, None for everything else. Most messages are of this kind."""
    body = received.body
    colons = body.count(b":")
    # One behind each name and none in a text: no name is there twice.
    if body.count(b'"') != 2 * colons or len(body) > _MAX_FLAT_BYTES or match.device is None:
        return None
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(members) is not dict or len(members) != colons:
        return None
    return match.rule.flat_uplink(match.device, members, received.received_at)
