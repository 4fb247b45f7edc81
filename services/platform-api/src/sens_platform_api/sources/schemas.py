"""Sources in requests and answers."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sens_common.brokers import (
    CLIENT_ID_PATTERN,
    CLIENT_ID_RULE,
    CREDENTIAL_PATTERN,
    CREDENTIAL_RULE,
    Broker,
    Version,
    address_of,
)
from sens_common.source_states import Downlinks, Reason, SourceState
from sens_payloads.formats import FORMATS
from sens_payloads.formats.presets import PRESETS
from sens_platform_api.fields import NextCursor, Time, json_of
from sens_platform_api.parameters import EPOCH, NAME_PATTERN, NAME_WORDS, in_words, time_text
from sens_platform_api.sources.repository import Rule, Source

_MAX_RULES: Final = 100
_MAX_SETTINGS_BYTES: Final = 32_768
_NOBODY_TELLS: Final = "no ingestion worker tells of it; is one running?"
_NOBODY_TELLS_OVER_HTTP: Final = (
    "no HTTP ingestion worker tells of it; is one running, and does the source have an ingest key?"
)

ProfileName = Annotated[str, Field(max_length=63, examples=["climate"]), in_words(NAME_PATTERN, NAME_WORDS)]


class ProfileRule(BaseModel):
    """Which devices of a source have a profile."""

    model_config = ConfigDict(extra="forbid")

    device: Annotated[
        str,
        Field(
            description="Their canonical names; `*` stands for any characters.",
            min_length=1,
            max_length=63,
            examples=["0004a30b*"],
        ),
        in_words(r"^[A-Za-z0-9._*-]+$", "a pattern has the characters of devices' names, and * for any of them"),
    ]
    profile: ProfileName


class BrokerDocument(BaseModel):
    """A broker of a source's own."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[
        str,
        Field(
            description="mqtt://host:port, or mqtts://host:port (TLS), without user and password.",
            max_length=300,
            examples=["mqtts://broker.example.org:8883"],
        ),
    ]
    credential: Annotated[
        Annotated[str, in_words(CREDENTIAL_PATTERN, f"a credential's name has {CREDENTIAL_RULE}")] | None,
        Field(
            description="Name of a credential that the operator has given the workers for this tenant: user and password, certificates.",
            examples=["netmore"],
        ),
    ] = None
    client_id: Annotated[
        Annotated[str, in_words(CLIENT_ID_PATTERN, f"a client identifier has {CLIENT_ID_RULE}")] | None,
        Field(description="Client identifier; null for one that the platform chooses and keeps.", examples=[None]),
    ] = None
    version: Annotated[Version, Field(description="Of MQTT.", examples=["5"])] = "5"
    clean_session: Annotated[
        bool,
        Field(
            description="Whether the broker keeps nothing while nobody is connected: messages of that time are lost.",
            strict=True,
            examples=[False],
        ),
    ] = False

    @field_validator("url")
    @classmethod
    def _of_a_broker(cls, url: str) -> str:
        address_of(url)
        return url

    def broker(self) -> Broker:
        """Return the broker."""
        return Broker(**self.model_dump())


class SourceChange(BaseModel):
    """A source as it should be."""

    model_config = ConfigDict(extra="forbid")

    transport: Annotated[Literal["mqtt", "http"], Field(description="How its messages come.", examples=["mqtt"])] = (
        "mqtt"
    )
    topic_filter: Annotated[
        str | None,
        Field(
            description="MQTT topic filter, null for HTTP. No two sources of whichever tenants match the same topics of the platform's broker,"
            " and no two of a tenant the same topics of another one.",
            max_length=1024,
            examples=["netmore/acme/#"],
        ),
        json_of(1024),
    ] = None
    broker: Annotated[BrokerDocument | None, Field(description="The source's own broker, null for the platform's.")] = (
        None
    )
    format: Annotated[
        str | None,
        Field(
            description=f"Network format: {', '.join(FORMATS)}. Needed unless there is a `preset`.",
            max_length=40,
            examples=["netmore"],
        ),
    ] = None
    preset: Annotated[
        str | None,
        Field(
            description="Name of a preset (`GET /api/v1/presets`), in place of `format` and `settings`: its rules become the source's settings. A"
            " preset for one topic filter gives that too, where there is none.",
            max_length=40,
            examples=[None],
        ),
    ] = None
    settings: Annotated[
        dict[str, Any],
        Field(description="Of the format; see the reference of formats.", examples=[{}]),
        json_of(_MAX_SETTINGS_BYTES),
    ] = {}
    registers_devices: Annotated[
        bool, Field(description="Whether devices that are not known are registered.", strict=True, examples=[True])
    ] = True
    radio: Annotated[
        bool,
        Field(description="Whether values of the radio are stored, as `lorawan.*`.", strict=True, examples=[False]),
    ] = False
    default_profile: Annotated[ProfileName | None, Field(description="Profile of devices that no rule fits.")] = None
    profile_rules: Annotated[
        list[ProfileRule], Field(description="The first one that fits holds.", max_length=_MAX_RULES)
    ] = []
    enabled: Annotated[bool, Field(description="Whether messages are taken.", strict=True, examples=[True])] = True
    keep_frames: Annotated[
        int | None,
        Field(
            description="For how many days messages are kept as they came, so that they can be decoded again; null: not at all."
            " They count as stored bytes. Fewer days delete what is older.",
            ge=1,
            le=400,
            strict=True,
            examples=[30],
        ),
    ] = None

    @model_validator(mode="after")
    def _begins_with_its_preset(self) -> Self:
        if self.preset is None:
            if self.format is None:
                raise ValueError("a source has a format, or a preset")
            return self
        preset = PRESETS.get(self.preset)
        if preset is None:
            raise ValueError(f"there is no preset {self.preset!r:.60}; there are {', '.join(sorted(PRESETS))}")
        if self.settings or self.format not in {None, "json"}:
            raise ValueError(
                "a preset has format and settings; leave these out, or leave the preset out and start from its settings"
            )
        self.format = "json"
        self.settings = preset.settings.model_dump(mode="json", exclude_unset=True)
        if self.topic_filter is None and self.transport == "mqtt":
            if len(preset.filters) > 1:
                raise ValueError(
                    f"preset {preset.name} reads several topic filters, {' and '.join(preset.filters)}: make a source for each, and give it its topic_filter"
                )
            self.topic_filter = preset.filters[0]
        return self

    @model_validator(mode="after")
    def _has_a_filter_where_it_needs_one(self) -> Self:
        if (self.topic_filter is not None) != (self.transport == "mqtt"):
            raise ValueError("a source of MQTT has a topic_filter, one of HTTP has none")
        if self.broker is not None and self.transport != "mqtt":
            raise ValueError("a source of HTTP has no broker")
        return self

    def source(self, name: str) -> Source:
        """Return the source with a name."""
        members = self.model_dump(exclude={"preset"})
        rules = [Rule(rule.device, rule.profile) for rule in self.profile_rules]
        broker = None if self.broker is None else self.broker.broker()
        return Source(**{**members, "name": name, "profile_rules": rules, "broker": broker})


class StateDocument(BaseModel):
    """How a source does, as the ingestion workers tell; at most ten seconds old."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[
        Literal["connected", "connecting", "failed", "disabled", "unknown"],
        Field(
            description="`connected`: its messages come, or over HTTP are taken; a reason says where some may be lost. `failed`: they don't, for the reason. `unknown`: no worker tells.",
            examples=["connected"],
        ),
    ]
    reason: Annotated[Reason | None, Field(description="What is wrong, as a word.", examples=[None])] = None
    detail: Annotated[str | None, Field(description="What is wrong, and what to do.", examples=[None])] = None
    connected_since: Annotated[Time | None, Field(description="Null without a connection.")] = None
    last_message_at: Annotated[Time | None, Field(description="Null before the first message.")] = None
    messages: Annotated[
        int, Field(description="How many came since the worker serves the source.", examples=[1742])
    ] = 0
    checks_token: Annotated[
        bool | None,
        Field(
            description="Whether the token of each request is checked, because the workers have the source's AS key; null but for format `actility`"
            " over HTTP. Without, the ingest key alone says who sends.",
            examples=[None],
        ),
    ] = None
    downlink_push: Annotated[
        str | None,
        Field(
            description="Where the network takes downlinks for the device that sent last, as its request said (X-Downlink-Push); null where none did"
            " since the worker's start. The network's API key, which came with it, is not kept.",
            examples=[None],
        ),
    ] = None
    downlink_replace: Annotated[
        str | None, Field(description="The same of X-Downlink-Replace, which replaces the queue.", examples=[None])
    ] = None

    @classmethod
    def of(cls, source: Source, told: Mapping[str, SourceState] | None) -> Self:
        """Return the document of a source's state.

        Args:
            source: The source.
            told: What is told of the tenant's sources, None where nobody can be asked.
        """
        if not source.enabled:
            return cls(status="disabled")
        state = None if told is None else told.get(source.name)
        if state is None:
            nobody = _NOBODY_TELLS if source.transport == "mqtt" else _NOBODY_TELLS_OVER_HTTP
            return cls(status="unknown", detail="NATS can't be asked" if told is None else nobody)
        downlinks = state.downlinks or Downlinks()
        return cls(
            status=state.status,
            reason=state.reason or None,
            detail=state.detail or None,
            connected_since=_time_of(state.connected_since),
            last_message_at=_time_of(state.last_message_at),
            messages=state.messages,
            checks_token=state.checks_token if (source.format, source.transport) == ("actility", "http") else None,
            downlink_push=downlinks.push,
            downlink_replace=downlinks.replace,
        )


def _time_of(microseconds: int | None) -> str | None:
    return None if microseconds is None else time_text(EPOCH + timedelta(microseconds=microseconds))


class SourceDocument(BaseModel):
    """How a stream of messages comes in."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[str, Field(description="Its name.", examples=["field"])]
    transport: Annotated[Literal["mqtt", "http"], Field(description="How its messages come.", examples=["mqtt"])]
    topic_filter: Annotated[str | None, Field(description="MQTT topic filter, null for HTTP.", examples=["netmore/#"])]
    format: Annotated[str, Field(description="Network format.", examples=["netmore"])]
    settings: Annotated[dict[str, Any], Field(description="Of the format.", examples=[{}])]
    registers_devices: Annotated[
        bool, Field(description="Whether devices that are not known are registered.", examples=[True])
    ]
    radio: Annotated[bool, Field(description="Whether values of the radio are stored.", examples=[False])]
    default_profile: Annotated[
        str | None, Field(description="Profile of devices that no rule fits.", examples=["climate"])
    ]
    profile_rules: list[ProfileRule]
    enabled: Annotated[bool, Field(description="Whether messages are taken.", examples=[True])]
    keep_frames: Annotated[
        int | None,
        Field(
            description="For how many days messages are kept as they came, so that they can be decoded again; null: not at all."
            " They count as stored bytes. Fewer days delete what is older.",
            examples=[30],
        ),
    ]
    broker: Annotated[BrokerDocument | None, Field(description="The source's own broker, null for the platform's.")]
    state: Annotated[StateDocument, Field(description="How it does.")]
    created_at: Annotated[Time, Field(description="When it was made.")]
    changed_at: Annotated[Time, Field(description="When it was last changed.")]

    @classmethod
    def of(cls, source: Source, told: Mapping[str, SourceState] | None) -> Self:
        """Return the document of a source; see `StateDocument.of`."""
        members = source._asdict()
        return cls(
            **{
                "source": members.pop("name"),
                **members,
                "profile_rules": [rule._asdict() for rule in source.profile_rules],
                "broker": None if source.broker is None else BrokerDocument(**msgspec.structs.asdict(source.broker)),
                "state": StateDocument.of(source, told),
                "created_at": time_text(source.created_at or datetime.now(UTC)),
                "changed_at": time_text(source.changed_at or datetime.now(UTC)),
            }
        )


class SourceList(BaseModel):
    """A page of sources, by name."""

    model_config = ConfigDict(extra="forbid")

    sources: list[SourceDocument]
    next: NextCursor
