"""What a preset is."""

from typing import NamedTuple

from sens_payloads.formats.json import Settings


class Preset(NamedTuple):
    """Settings of the format `json` for a well-known program or device.

    Attributes:
        name: For settings and addresses.
        title: For people.
        description: What is read, and what to know about it.
        filters: MQTT topic filters with the program's default names; a source needs these.
        settings: The rules, with the same names.
    """

    name: str
    title: str
    description: str
    filters: tuple[str, ...]
    settings: Settings
