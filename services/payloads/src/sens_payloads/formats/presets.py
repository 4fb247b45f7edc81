"""Presets: settings of the format `json` for well-known programs and devices, by name. Each is data, to start from and to change."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sens_payloads.formats import presets_devices, presets_gateways
from sens_payloads.formats.preset import Preset

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {preset.name: preset for preset in (*presets_devices.PRESETS, *presets_gateways.PRESETS)}
)
