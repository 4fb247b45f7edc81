"""Sources and profiles as their rows say, compiled for use; the worker and the test bench of the API do it in the same way."""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from sens_common.errors import SettingsError
from sens_payloads.formats import format_settings, network_format
from sens_payloads.profiles import Codec, CodecVersion, MetricRule, Profile
from sens_payloads.sources import ProfileRule, Source


class Row(Protocol):
    """A row of a table, by the names of its columns."""

    def __getitem__(self, column: str, /) -> Any:
        """Return a value."""


_rules: Final = msgspec.json.Decoder(dict[str, MetricRule])


def stored_profile(row: Row) -> Profile:
    """Return the profile of a row: `name`, `builtin_codec`, `metrics` (JSON), and `codec`, `number`, `sha256`, `source` of its codec's version."""
    codec: Codec | None = row["builtin_codec"]
    if row["codec"] is not None:
        codec = CodecVersion(row["codec"], row["number"], row["sha256"], row["source"])
    return Profile(row["name"], codec, _rules.decode(row["metrics"]))


def stored_source(row: Row, profiles: Mapping[int, Profile]) -> Source:
    """Return the source of a row: `id`, `name`, `format`, `settings` (JSON), `registers_devices`, `radio`, `default_profile`, `profile_rules` (JSON).

    Args:
        row: Of the table.
        profiles: By their ids, those that the row names.

    Raises:
        SettingsError: It can't be used: its format or a setting is not known here, or a profile is missing.
    """
    rules = []
    for rule in json.loads(row["profile_rules"]):
        if rule["profile"] not in profiles:
            raise SettingsError(f"its rule for {rule['device']} names a profile that is gone")
        rules.append(ProfileRule(rule["device"], profiles[rule["profile"]]))
    return Source(
        row["name"],
        network_format(row["format"]),
        format_settings(row["format"], json.loads(row["settings"])),
        registers_devices=row["registers_devices"],
        with_radio=row["radio"],
        default_profile=profiles.get(row["default_profile"]),
        profile_rules=rules,
        id=row["id"],
    )
