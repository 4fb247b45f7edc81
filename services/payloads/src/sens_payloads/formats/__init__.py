"""Network formats: one module each, with its `Settings` and its `unwrap`."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from sens_common.errors import SettingsError
from sens_payloads.uplinks import NetworkFormat

FORMATS: Final = (
    "actility",
    "cbor",
    "chirpstack",
    "json",
    "line_protocol",
    "messagepack",
    "netmore",
    "senml",
    "sparkplug_b",
    "the_things_stack",
)
"""Names of the formats that a source can have."""


@functools.cache
def network_format(name: str) -> NetworkFormat:
    """Return the format with a name.

    Raises:
        SettingsError: There is none.
    """
    if name not in FORMATS:
        raise SettingsError(f"there is no format {name!r:.80}; the formats are: {', '.join(sorted(FORMATS))}")
    return cast("NetworkFormat", importlib.import_module(f"{__name__}.{name}"))


def format_settings(name: str, values: Mapping[str, Any]) -> Any:
    """Return the settings of a format.

    Raises:
        SettingsError: There is no such format, or the values are no settings of it; the text names each that is wrong.
    """
    settings = network_format(name).Settings
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}"
            for each in error.errors(include_url=False)
        )
        raise SettingsError(f"settings of format {name}: {wrong}") from None
