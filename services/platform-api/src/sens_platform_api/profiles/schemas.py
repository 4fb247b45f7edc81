"""Profiles in requests and answers."""

import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sens_common.units import UNIT_PATTERN, unit_text
from sens_platform_api.fields import Kind, NextCursor, Time, json_of
from sens_platform_api.parameters import METRIC_PATTERN, METRIC_WORDS, NAME_PATTERN, NAME_WORDS, in_words, time_text
from sens_platform_api.profiles.repository import Profile

_MAX_METRICS: Final = 1024
_MAX_BYTES: Final = 262_144
_MAX_CODEC: Final = 75
_BUILTIN: Final = ("cayenne_lpp",)
_OWN_CODEC: Final = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})@([1-9][0-9]{0,8})")


def _codec(text: str) -> str:
    if text not in _BUILTIN and not _OWN_CODEC.fullmatch(text):
        raise ValueError(
            f"a codec is needed: {', '.join(_BUILTIN)}, or one of your own with its version, for example dragino@3"
        )
    return text


class MetricRuleDocument(BaseModel):
    """What becomes of one field of a device."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None,
        Field(
            description="Name of its metric, null for the field's own name.",
            min_length=1,
            max_length=200,
            examples=["temperature"],
        ),
    ] = None
    unit: Annotated[
        str | None,
        Field(
            description="UCUM code (case sensitive), for example `Cel` for °C, `ug/m3` for µg/m³.",
            examples=["Cel"],
            json_schema_extra={"pattern": UNIT_PATTERN},
        ),
        AfterValidator(lambda text: text if text is None else _unit(text)),
    ] = None
    kind: Annotated[
        Kind | None,
        Field(description="What its values have to be, null for what comes. 0 and 1 may be booleans.", examples=[None]),
    ] = None
    scale: Annotated[
        float, Field(description="Values are multiplied by it.", strict=True, allow_inf_nan=False, examples=[0.1])
    ] = 1.0
    offset: Annotated[
        float, Field(description="Added after that, in the unit.", strict=True, allow_inf_nan=False, examples=[0.0])
    ] = 0.0
    ignore: Annotated[bool, Field(description="Whether it is not stored.", strict=True, examples=[False])] = False


def _unit(text: str) -> str:
    if not re.fullmatch(UNIT_PATTERN, text):
        raise ValueError("a UCUM code is needed, 1 to 40 visible ASCII characters, for example Cel, %, kW.h, ug/m3")
    return text


_FieldName = Annotated[str, Field(max_length=255), in_words(METRIC_PATTERN, METRIC_WORDS)]
Codec = Annotated[
    str | None,
    Field(
        description="`cayenne_lpp`, or a codec of your own with its version (`dragino@3`); null where the network's own fields are taken.",
        max_length=_MAX_CODEC,
        examples=["dragino@3"],
    ),
    AfterValidator(lambda text: text if text is None else _codec(text)),
]
Metrics = Annotated[
    dict[_FieldName, MetricRuleDocument],
    Field(
        description="Rules by the names of fields; a field without one is stored as it is.",
        max_length=_MAX_METRICS,
        examples=[{"temperature_3": {"name": "temperature", "unit": "Cel"}}],
    ),
    json_of(_MAX_BYTES),
]


class ProfileChange(BaseModel):
    """A kind of device, as it should be."""

    model_config = ConfigDict(extra="forbid")

    codec: Codec = None
    metrics: Metrics = {}

    def profile(self, name: str) -> Profile:
        """Return the profile with a name."""
        own = _OWN_CODEC.fullmatch(self.codec or "")
        metrics = {field: rule.model_dump(exclude_defaults=True) for field, rule in self.metrics.items()}
        if own is None:
            return Profile(name, self.codec, None, None, metrics)
        return Profile(name, None, own[1], int(own[2]), metrics)


class ProfileDocument(BaseModel):
    """A kind of device."""

    model_config = ConfigDict(extra="forbid")

    profile: Annotated[str, Field(description="Its name.", examples=["climate"])]
    codec: Codec
    metrics: Annotated[
        dict[str, dict[str, Any]],
        Field(description="Rules by the names of fields.", examples=[{"temperature_3": {"name": "temperature"}}]),
    ]
    units: Annotated[
        dict[str, str],
        Field(
            description="The units as people write them, by the names of fields.", examples=[{"temperature_3": "°C"}]
        ),
    ]
    changed_at: Annotated[Time | None, Field(description="When it was last changed.")]

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """Return the document of a profile."""
        return cls(
            profile=profile.name,
            codec=profile.codec_text,
            metrics=profile.metrics,
            units={field: unit_text(rule["unit"]) for field, rule in profile.metrics.items() if rule.get("unit")},
            changed_at=None if profile.changed_at is None else time_text(profile.changed_at),
        )


class ProfileList(BaseModel):
    """A page of profiles, by name."""

    model_config = ConfigDict(extra="forbid")

    profiles: list[ProfileDocument]
    next: NextCursor


class DeviceProfileChange(BaseModel):
    """The profile that a device should have."""

    model_config = ConfigDict(extra="forbid")

    profile: Annotated[
        str | None,
        Field(
            description="Its name; null takes it away: the source's rules count then.",
            max_length=63,
            json_schema_extra={"pattern": NAME_PATTERN},
            examples=["climate"],
        ),
        AfterValidator(lambda text: text if text is None else _name(text)),
    ]


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(NAME_WORDS)
    return text


class DeviceProfile(BaseModel):
    """The profile that a device was given by hand."""

    model_config = ConfigDict(extra="forbid")

    device: Annotated[str, Field(description="Canonical name of the device.", examples=["sensor-0001"])]
    profile: Annotated[
        str | None, Field(description="Its name, null where the source's rules count.", examples=["climate"])
    ]
