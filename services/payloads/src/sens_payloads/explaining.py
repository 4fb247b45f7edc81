"""Explains a message: what each step makes of it. Nothing is stored."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_payloads.formats.sparkplug_births import NO_BIRTHS, Births
from sens_payloads.frames import Fields, Frame, FrameDecoder
from sens_payloads.profiles import Profile
from sens_payloads.sources import Source
from sens_payloads.uplinks import Received, Uplink, WithoutMeasurements

type Step = Literal["unwrap", "decode", "name"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message can't be stored.

    Attributes:
        step: Where it failed.
        reason: As its dead letter would have it.
        detail: For people.
    """

    step: Step
    reason: str
    detail: str


@dataclass(slots=True)
class ExplainedUplink:
    """What the steps make of one uplink.

    Attributes:
        uplink: As its network handed it over.
        profile: Of its device, None where it has none.
        fields: Of the uplink itself, or what the codec has made of its bytes; None where that failed.
        metrics: Values by the names of their metrics; empty where nothing of it is stored.
        units: UCUM codes of metrics, by their names, as the profile has them; else in the message's own spelling.
        refusal: None where all went well.
    """

    uplink: Uplink
    profile: Profile | None
    fields: Fields | None = None
    metrics: Mapping[str, Value | int] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None


@dataclass(slots=True)
class Explanation:
    """What the steps make of a message.

    Attributes:
        uplinks: In its order.
        without_measurements: What kind of message it is, where it carries none by its nature (`uplinks.WithoutMeasurements`).
        refusal: Of the whole message, None where it could be unwrapped.
    """

    uplinks: list[ExplainedUplink] = field(default_factory=list)
    without_measurements: str | None = None
    refusal: Refusal | None = None

    @property
    def is_refused(self) -> bool:
        """Tell whether it would become a dead letter: one uplink that can't be stored refuses all of them."""
        return self.refusal is not None or any(each.refusal is not None for each in self.uplinks)


type Assigned = Callable[[Collection[str]], Awaitable[Mapping[str, Profile]]]
"""Returns the profiles that some devices were given by hand, by the devices' names."""


async def explain(
    source: Source,
    received: Received,
    *,
    tenant_id: int,
    assigned: Assigned,
    frames: FrameDecoder,
    births: Births = NO_BIRTHS,
) -> Explanation:
    """Unwrap, decode and name a message as the telemetry worker does.

    Whether its devices are known, and whether its times are too old, is for the worker.

    Args:
        source: That brought it.
        received: The message.
        tenant_id: Whose source it is.
        assigned: Asked once.
        frames: Decodes bytes.
        births: Those that explain the message, where its format has some.
    """
    try:
        unwrapped = source.unwrap(received, births)
    except RejectedMessageError as error:
        return Explanation(refusal=_refusal("unwrap", error))
    if isinstance(unwrapped, WithoutMeasurements):
        return Explanation(without_measurements=unwrapped.kind)
    by_hand = await assigned({uplink.device for uplink in unwrapped})
    explained = [
        ExplainedUplink(uplink, by_hand.get(uplink.device) or source.profile(uplink.device)) for uplink in unwrapped
    ]
    for each in explained:
        await _decode(each, received, tenant_id, frames)
        if each.refusal is None:
            _name(source, each)
    return Explanation(explained)


async def _decode(each: ExplainedUplink, received: Received, tenant_id: int, frames: FrameDecoder) -> None:
    uplink, profile = each.uplink, each.profile
    each.fields = uplink.fields or {}
    if profile is None or profile.codec is None or not uplink.frame:
        return
    measured_at = received.received_at if uplink.measured_at is None else uplink.measured_at
    (result,) = await frames.decode(tenant_id, profile.codec, [Frame(uplink.frame, uplink.f_port, measured_at)])
    if isinstance(result, RejectedMessageError):
        each.fields, each.refusal = None, _refusal("decode", result)
    else:
        each.fields = result


def _name(source: Source, each: ExplainedUplink) -> None:
    fields = each.fields or {}
    try:
        each.metrics = source.metrics(each.uplink, fields, each.profile)
    except RejectedMessageError as error:
        each.refusal = _refusal("name", error)
        return
    own = {} if each.profile is not None and each.profile.codec is not None and each.uplink.frame else each.uplink.units
    units = {}
    for name in fields:
        rule = None if each.profile is None else each.profile.metrics.get(name)
        unit = own.get(name) if rule is None or rule.unit is None else rule.unit
        metric = name if rule is None or rule.name is None else rule.name
        if unit is not None and metric in each.metrics:
            units[metric] = unit
    each.units = units


def _refusal(step: Step, error: RejectedMessageError) -> Refusal:
    return Refusal(step, str(error.reason), error.detail)
