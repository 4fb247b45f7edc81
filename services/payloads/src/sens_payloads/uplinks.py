"""The nouns of payloads: what was received, the uplinks in it, and what carries no measurements by its nature."""

import urllib.parse
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct
from pydantic import BaseModel

from sens_common.formats import Value

_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})
NO_RADIO: Final[Mapping[str, float | int]] = MappingProxyType({})


class Received(Struct, frozen=True, gc=False):
    """One message of a source.

    Attributes:
        body: As published or posted.
        received_at: Microseconds since the epoch.
        topic: Of the MQTT message, empty for HTTP.
        query: Parameters of the HTTP request's address, each once.
        headers: Of the HTTP request, names in lower case.
    """

    body: bytes
    received_at: int
    topic: str = ""
    query: Mapping[str, str] = _EMPTY
    headers: Mapping[str, str] = _EMPTY


class Uplink(Struct, frozen=True, gc=False):
    """What one device sent for one time, as its network hands it over.

    Attributes:
        device: Its name, canonical (`sens_common.names.device_name`).
        measured_at: Microseconds since the epoch; None where the message carries no time that can be used: then the receipt is it.
        fields: Values by name, members of objects joined with a dot, array elements by their index; None where there are bytes alone.
        frame: The device's bytes, None where the network hands over none.
        f_port: LoRaWAN port of the frame (LoRaWAN 1.0.4, section 4.3.2), 0 where none is named.
        radio: Of the gateway that the format's page names: `rssi` in dBm, `snr` in dB, `spreading_factor`, `f_cnt`; those that are known. And
            what the network itself knows of the device: `battery` in %, `margin` in dB, `latitude`, `longitude`, `altitude`.
        units: Of fields, by their names, where the message tells them, in its own spelling.
        historical: The message says that this was measured before what is known already: it is stored, and is not the latest value.
        skipped: How many values the message has for this time that are of a kind that is not stored (the reference of formats says which).
    """

    device: str
    measured_at: int | None
    fields: Mapping[str, Value | int] | None = None
    frame: bytes | None = None
    f_port: int = 0
    radio: Mapping[str, float | int] = NO_RADIO
    units: Mapping[str, str] = MappingProxyType({})
    historical: bool = False
    skipped: int = 0


class WithoutMeasurements(NamedTuple):
    """A message that carries no measurements by its nature. It is counted, not stored, and no dead letter.

    Attributes:
        kind: `event` (a join, an acknowledgement, an error of the network; a birth or data without a value), `command`, `simulated`, or
            `skipped`: all its values are of kinds that are not stored.
    """

    kind: str


def query_of(text: str) -> Mapping[str, str]:
    """Return the parameters of a query, each once: the first one counts (WHATWG URL, application/x-www-form-urlencoded).

    >>> dict(query_of("event=up&event=join&LrnInfos=TWA%5F1"))
    {'event': 'up', 'LrnInfos': 'TWA_1'}
    """
    if not text:
        return _EMPTY
    found: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(text, keep_blank_values=True):
        found.setdefault(name, value)
    return found


type Unwrapped = list[Uplink] | WithoutMeasurements
"""At least one uplink, or none by the message's nature."""


class NetworkFormat(Protocol):
    """How a network wraps uplinks. A module with a class `Settings` and this function is one."""

    Settings: type[BaseModel]

    def unwrap(self, received: Received, settings: Any, /) -> Unwrapped:
        """Return the uplinks of a message, in its order.

        A pure function: the same message gives the same answer, and no bytes make it raise anything but the error below.

        Raises:
            RejectedMessageError: The message can't be unwrapped, or not without a loss: nothing of it is stored.
        """


@runtime_checkable
class UsualUplinks(Protocol):
    """A format that unwraps many messages faster together than one by one."""

    def unwrap_usual(
        self, received: Sequence[Received], settings: Any, /, *, with_radio: bool
    ) -> Sequence[Uplink | None]:
        """Return the uplinks of messages that have one each, and None for all that `NetworkFormat.unwrap` has to look at.

        What is returned is what `NetworkFormat.unwrap` returns, but for the values of the radio. It raises no error.

        Args:
            received: Messages of one source.
            settings: Of the format.
            with_radio: Whether values of the radio are wanted; without them uplinks have none.
        """
