"""The token with which Actility ThingPark signs its reports: a parameter of the address that only who knows the AS key can compute.

It is the SHA-256 of some members of the body, of some parameters of the address and of the key, one after the other, as hexadecimal digits.
Sources: ThingPark documentation, "LRC to Application Server Tunnel Interface"; github.com/actility/thingpark-integrations,
``verify_token_in_uplink.py``; github.com/kpn-iot/lora-reference, ``TokenVerifier.php``, for locations, sent downlinks and the missing port.

What it does not cover: the time, the radio values and the values of a driver. Whoever reads a request's address and body can send them again,
with other ones of these.
"""

import hmac
import urllib.parse
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct, field

_SIGNED_PARAMETERS: Final = ("LrnDevEui", "LrnFPort", "LrnInfos", "AS_ID", "Time")

type _Text = str | int | None


class Signature(StrEnum):
    """What the token of a request says of its sender."""

    RIGHT = "right"
    WRONG = "wrong"
    """It was computed with another key, or body or address were changed."""
    MISSING = "missing"
    """The address has none."""
    UNKNOWN = "unknown"
    """How such a body is signed is not known: none of its kind carries measurements."""


class _Report(Struct, gc=False):
    """What of a report is signed."""

    customer: _Text = field(name="CustomerID", default=None)
    device: _Text = field(name="DevEUI", default=None)
    f_port: _Text = field(name="FPort", default=None)
    f_cnt_up: _Text = field(name="FCntUp", default=None)
    f_cnt_down: _Text = field(name="FCntDn", default=None)
    frame: _Text = field(name="payload_hex", default=None)


class _Reports(Struct, gc=False):
    uplink: _Report | None = field(name="DevEUI_uplink", default=None)
    location: _Report | None = field(name="DevEUI_location", default=None)
    downlink_sent: _Report | None = field(name="DevEUI_downlink_Sent", default=None)


_decoder: Final = msgspec.json.Decoder(_Reports)


def signature_of(body: bytes, query: str, keys: Sequence[str]) -> Signature:
    """Tell whether a request comes from the network.

    Args:
        body: Of the request, unpacked.
        query: Of its address, as it was sent.
        keys: AS keys, one of which has to be the network's, in lower case.
    """
    # A plus is one: the parameter Time has it before its offset, quoted or not, and none has a space.
    parameters: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        parameters.setdefault(name, value)
    given = parameters.get("Token")
    if not given:
        return Signature.MISSING
    members = _signed_members(body)
    if members is None:
        return Signature.UNKNOWN
    signed = members + "&".join(f"{name}={parameters.get(name, '')}" for name in _SIGNED_PARAMETERS)
    is_right = False
    for key in keys:
        is_right |= hmac.compare_digest(sha256(f"{signed}{key}".encode()).hexdigest().encode(), given.lower().encode())
    return Signature.RIGHT if is_right else Signature.WRONG


def _signed_members(body: bytes) -> str | None:
    """Return the signed members of a body in their order, None where they are not known.

    The report that comes first here is the one that is stored, should a body have several.
    """
    try:
        reports = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    members: tuple[_Text, ...]
    if (report := reports.uplink) is not None:
        port = 0 if report.f_port is None else report.f_port
        members = (report.customer, report.device, port, report.f_cnt_up, report.frame)
    elif (report := reports.location) is not None:
        members = (report.customer, str(report.device).lower())
    elif (report := reports.downlink_sent) is not None:
        members = (report.customer, report.device, report.f_port, report.f_cnt_down)
    else:
        return None
    return "".join("" if member is None else str(member) for member in members)
