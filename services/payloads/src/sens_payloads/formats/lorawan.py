"""What the formats of LoRaWAN networks share: reading their JSON, devices, times, frames, and the radio values' ranges.

Network servers write their JSON with a serialiser of their own, so no object has a key twice; that is not looked for here.
"""

import binascii
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from pydantic import BaseModel, ConfigDict

from sens_common.dead_letters import Reason
from sens_common.device_times import EARLIEST, MAX_AHEAD, measured_at
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_PAYLOAD_BYTES
from sens_common.names import DEVICE_RULE, device_name, shown

FPort = Annotated[int, Meta(ge=0, le=255)]
"""LoRaWAN 1.0.4, section 4.3.2."""
FrameCounter = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""LoRaWAN 1.0.4, section 4.3.1.5."""
SpreadingFactor = Annotated[int, Meta(ge=5, le=12)]
"""LoRaWAN regional parameters RP002-1.0.4, section 4.1: 7 to 12; 5 and 6 since then."""
Decibels = Annotated[float, Meta(ge=-1000, le=1000)]
"""Far more than any receiver tells; a bound that keeps NaN and infinity out."""
Percent = Annotated[float, Meta(ge=0, le=100)]
Degrees = Annotated[float, Meta(ge=-360, le=360)]
Metres = Annotated[float, Meta(ge=-1e9, le=1e9)]

DecodedBy = Literal["network", "profile"]
"""Whose values count where a network has decoded a frame: the network's, or those of the device's profile, which reads the bytes."""

_LONGEST_DEVICE: Final = 63
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AT: Final = " - at `$"
_TYPE: Final = re.compile(r"`([^`]*)`")
_TYPE_WORDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
}


class NetworkSettings(BaseModel):
    """What a source of a network that decodes frames itself may set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoded_by: DecodedBy = "network"
    """`network`: the values that the network has decoded are taken where there are any. `profile`: they are left out."""


def parse[T](decoder: msgspec.json.Decoder[T], body: bytes, advice: str) -> T:
    """Return a message as its decoder's type.

    Args:
        decoder: Of the network's messages.
        body: As received.
        advice: What to do when it is something else; ends the sentence of the error.

    Raises:
        RejectedMessageError: It is no JSON, no message of this network, or too large.
    """
    if len(body) > MAX_PAYLOAD_BYTES:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"the message has {len(body)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed"
        )
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"{_words(str(error))}; {advice}") from None
    except msgspec.DecodeError as error:
        raise RejectedMessageError(Reason.MALFORMED_PAYLOAD, f"{_not_json(body, error)}; {advice}") from None
    except UnicodeDecodeError:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"the message has a text that is not UTF-8; {advice}"
        ) from None
    except RecursionError:
        raise RejectedMessageError(Reason.TOO_LARGE, "the message is nested too deep") from None


def device(text: str | None, member: str) -> str:
    """Return the canonical name of a device.

    Args:
        text: As the network names it; None where it names none.
        member: Where it names it, for the sentence of the error.

    Raises:
        RejectedMessageError: It is none.
    """
    if not text:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the message names no device: it has no {member}; does it come from this network?",
        )
    name = known_device(text)
    if name is None:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"{member} {shown(text)} is no device's name: a name is an EUI, or {DEVICE_RULE}",
        )
    return name


def known_device(text: str) -> str | None:
    """Return the canonical name of a device, None where the text names none."""
    return _canonical(text) if len(text) <= _LONGEST_DEVICE else None


def instant(text: str | None, received_at: int, member: str) -> int:
    """Return the time of a network's clock, microseconds since the epoch; nanoseconds are cut off.

    Raises:
        RejectedMessageError: It is missing, can't be read, or is absurd.
    """
    if text is None:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"the message has no time: {member} is missing; is it handed on as the network has sent it?",
        )
    try:
        elapsed = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError):  # no time, or one without a zone, or a leap second
        return measured_at(text, received_at, member)
    moment = elapsed.days * 86_400_000_000 + elapsed.seconds * 1_000_000 + elapsed.microseconds
    return moment if EARLIEST <= moment <= received_at + MAX_AHEAD else measured_at(text, received_at, member)


def hexadecimal(text: str, member: str) -> bytes:
    """Return the bytes that hexadecimal digits stand for.

    Raises:
        RejectedMessageError: They are none, or one digit is missing.
    """
    try:
        return binascii.a2b_hex(text)
    except ValueError:
        if len(text) % 2:
            problem = f"has {len(text)} digits, an odd number: the frame is cut off or lacks a zero"
        else:
            problem = "has something else than hexadecimal digits"
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"{member} {shown(text)} {problem}; the network sends two digits a byte"
        ) from None


@lru_cache(maxsize=65_536)
def _canonical(text: str) -> str | None:
    return device_name(text)


def _words(problem: str) -> str:
    """Return what msgspec says of a member, with the member first."""
    what, _, path = problem.partition(_AT)
    path = path.rstrip("`").lstrip(".")
    if what.startswith("Object missing required field `"):
        name = what.split("`")[1]
        return f"the member {path}.{name} is missing" if path else f"the member {name} is missing"
    what = _TYPE.sub(lambda match: _TYPE_WORDS.get(match[1], match[1]), what.replace(" | null", ""))
    what = what[:1].lower() + what[1:]
    return f"the member {path}: {what}" if path else f"the message: {what}"


def _not_json(body: bytes, error: msgspec.DecodeError) -> str:
    start = body[:64].lstrip()
    if not start:
        return "the message is empty"
    if start.startswith(b"<"):
        return "the message is XML or HTML, not JSON"
    return f"the message is not JSON ({str(error).removeprefix('JSON is malformed: ')})"
