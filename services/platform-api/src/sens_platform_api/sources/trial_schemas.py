"""Messages that are tried on a source, in requests and answers."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from sens_common.units import unit_text
from sens_payloads.explaining import ExplainedUplink, Explanation, Refusal
from sens_platform_api.fields import Time
from sens_platform_api.parameters import EPOCH, Parameters, time_text


class TryParameters(Parameters):
    """Says how the message came."""

    topic: Annotated[
        str,
        Field(description="The MQTT topic that it was published to.", max_length=1024, examples=["netmore/acme/up"]),
    ] = ""
    query: Annotated[
        str, Field(description="The query of the HTTP request's address.", max_length=1024, examples=["event=up"])
    ] = ""
    received_at: Annotated[
        str | None,
        Field(
            description="When it was received: RFC 3339, an epoch, or relative; without it, now.",
            max_length=40,
            examples=["-1h"],
        ),
    ] = None


class RefusalDocument(BaseModel):
    """Why a message can't be stored."""

    model_config = ConfigDict(extra="forbid")

    step: Annotated[
        Literal["unwrap", "decode", "name"],
        Field(
            description="Where it failed: its network's format, its device's codec, or the profile.",
            examples=["decode"],
        ),
    ]
    reason: Annotated[str, Field(description="As its dead letter would have it.", examples=["no_codec"])]
    detail: Annotated[str, Field(description="What is wrong, and what to do.")]

    @classmethod
    def of(cls, refusal: Refusal | None) -> Self | None:
        """Return the document of a refusal, None where there is none."""
        return None if refusal is None else cls(step=refusal.step, reason=refusal.reason, detail=refusal.detail)


_Scalar = bool | float | str


class TriedMetric(BaseModel):
    """A value as it would be stored."""

    model_config = ConfigDict(extra="forbid")

    metric: Annotated[str, Field(description="Name of the metric.", examples=["temperature"])]
    value: Annotated[_Scalar, Field(description="The value.", examples=[21.5])]
    unit: Annotated[str | None, Field(description="UCUM code, or the message's own spelling.", examples=["Cel"])]
    unit_text: Annotated[str | None, Field(description="The unit as people write it.", examples=["°C"])]


class TriedUplink(BaseModel):
    """What the steps make of one uplink."""

    model_config = ConfigDict(extra="forbid")

    device: Annotated[str, Field(description="Canonical name of the device.", examples=["0004a30b001c0530"])]
    time: Annotated[Time | None, Field(description="When it was measured; null where the receipt counts.")]
    bytes: Annotated[str | None, Field(description="Bytes of the device, hexadecimal.", examples=["0367010f"])]
    f_port: Annotated[int, Field(description="LoRaWAN port, 0 where there is none.", examples=[2])]
    radio: Annotated[dict[str, float], Field(description="Values of the radio.", examples=[{"rssi": -73}])]
    skipped: Annotated[int, Field(description="Values of kinds that are not stored.", examples=[0])]
    profile: Annotated[str | None, Field(description="The device's profile.", examples=["climate"])]
    codec: Annotated[str | None, Field(description="The profile's codec.", examples=["dragino@3"])]
    fields: Annotated[
        dict[str, _Scalar] | None,
        Field(description="The uplink's own, or what the codec made of its bytes.", examples=[{"temperature_3": 27.1}]),
    ]
    metrics: Annotated[list[TriedMetric], Field(description="What would be stored.")]
    refusal: Annotated[RefusalDocument | None, Field(description="Why it can't be stored.")]

    @classmethod
    def of(cls, each: ExplainedUplink) -> Self:
        """Return the document of an uplink."""
        uplink, units = each.uplink, each.units
        time = None if uplink.measured_at is None else time_text(EPOCH + timedelta(microseconds=uplink.measured_at))
        codec = None if each.profile is None or each.profile.codec is None else str(each.profile.codec)
        return cls(
            device=uplink.device,
            time=time,
            bytes=None if uplink.frame is None else uplink.frame.hex(),
            f_port=uplink.f_port,
            radio=dict(uplink.radio),
            skipped=uplink.skipped,
            profile=None if each.profile is None else each.profile.name,
            codec=codec,
            fields=None if each.fields is None else dict(each.fields),
            metrics=[
                TriedMetric(
                    metric=name,
                    value=value,
                    unit=units.get(name),
                    unit_text=unit_text(units[name]) if name in units else None,
                )
                for name, value in each.metrics.items()
            ],
            refusal=RefusalDocument.of(each.refusal),
        )


class TriedMessage(BaseModel):
    """What each step makes of a message; nothing is stored."""

    model_config = ConfigDict(extra="forbid")

    refused: Annotated[
        bool, Field(description="Whether it would be a dead letter: one uplink refuses all.", examples=[False])
    ]
    without_measurements: Annotated[
        str | None, Field(description="The kind of message, where it carries none by its nature.", examples=["event"])
    ]
    refusal: Annotated[RefusalDocument | None, Field(description="Why it could not be unwrapped.")]
    uplinks: list[TriedUplink]

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        """Return the document of an explanation."""
        return cls(
            refused=explanation.is_refused,
            without_measurements=explanation.without_measurements,
            refusal=RefusalDocument.of(explanation.refusal),
            uplinks=[TriedUplink.of(each) for each in explanation.uplinks],
        )
