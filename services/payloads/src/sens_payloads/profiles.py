"""Profiles: how a kind of device is read. Its codec turns bytes into fields, and a rule for each field gives name, unit, scale and offset."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import msgspec

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import MetricKind, Value
from sens_common.units import UNIT_PATTERN

RADIO_PREFIX: Final = "lorawan."
"""What the names of a radio's values begin with."""
_MAX_PLANS: Final = 1024


class MetricRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What becomes of one field of a device.

    Attributes:
        name: Of its metric, None for the field's own name.
        unit: UCUM code (The Unified Code for Units of Measure, case sensitive), for example `Cel`; None where it has none.
        kind: What its values have to be; None takes what comes. A number that is a boolean here is stored as one: 0 is false.
        scale: Number by which a value is multiplied.
        offset: Number that is added after that, in the unit.
        ignore: Whether it is not stored.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    unit: Annotated[str, msgspec.Meta(pattern=UNIT_PATTERN)] | None = None
    kind: MetricKind | None = None
    scale: float = 1.0
    offset: float = 0.0
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class CodecVersion:
    """A version of a codec: it never changes.

    Attributes:
        name: Of the codec.
        number: From 1.
        sha256: Of the source, 32 bytes.
        source: JavaScript.
    """

    name: str
    number: int
    sha256: bytes
    source: str

    def __str__(self) -> str:
        """Return it as people write it.

        >>> str(CodecVersion("dragino", 3, b"", ""))
        'dragino@3'
        """
        return f"{self.name}@{self.number}"


type Codec = Literal["cayenne_lpp"] | CodecVersion
"""How bytes are decoded: built in, or a tenant's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A kind of device; one object for each.

    Attributes:
        name: Its name.
        codec: What decodes its bytes, None where the network's own fields are taken.
        metrics: Rules by the fields' names; a field without one is stored as it is.
    """

    name: str
    codec: Codec | None = None
    metrics: Mapping[str, MetricRule] = field(default_factory=dict)
    _plans: dict[tuple[str, ...], tuple[tuple[str, MetricRule | None], ...] | None] = field(default_factory=dict)

    def named(self, fields: Mapping[str, Value | int]) -> Mapping[str, Value | int]:
        """Return the values of fields by the names of their metrics.

        Raises:
            RejectedMessageError: A value is not of the kind that its rule asks for, too large when scaled, or two fields have one name.
        """
        if not self.metrics:
            return fields
        names = tuple(fields)
        if names in self._plans:
            plan = self._plans[names]
        else:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[names] = self._plan(names)
        if plan is None:
            return fields
        return {
            name: value if rule is None else _converted(field_name, value, rule)
            for field_name, value, (name, rule) in zip(names, fields.values(), plan, strict=True)
            if name
        }

    def _plan(self, names: tuple[str, ...]) -> tuple[tuple[str, MetricRule | None], ...] | None:
        """Return, for each field, its metric's name, empty where it is ignored, and its rule where its values change; None: all stay.

        Raises:
            RejectedMessageError: Two fields have one name.
        """
        plan: list[tuple[str, MetricRule | None]] = []
        taken: dict[str, str] = {}
        for name in names:
            rule = self.metrics.get(name)
            if rule is not None and rule.ignore:
                plan.append(("", None))
                continue
            metric = name if rule is None or rule.name is None else rule.name
            if metric in taken:
                raise RejectedMessageError(
                    Reason.INVALID_METRIC,
                    f"the fields {taken[metric]!r} and {name!r} are both called {metric!r} in profile {self.name}; give one of them another name,"
                    " then replay",
                )
            taken[metric] = name
            changes = rule is not None and (rule.kind is not None or rule.scale != 1 or rule.offset != 0)
            plan.append((metric, rule if changes else None))
        unchanged = all(metric == name and rule is None for name, (metric, rule) in zip(names, plan, strict=True))
        return None if unchanged else tuple(plan)


def _converted(field_name: str, value: Value | int, rule: MetricRule) -> Value:
    """Return a value as its rule says.

    Raises:
        RejectedMessageError: It is of another kind, or too large then.
    """
    if isinstance(value, str):
        if rule.kind in {None, "text"}:
            return value
        raise _other_kind(field_name, value, rule)
    if rule.kind == "text" or (isinstance(value, bool) and rule.kind == "number"):
        raise _other_kind(field_name, value, rule)
    if rule.kind == "boolean":
        if value not in {0, 1}:
            raise _other_kind(field_name, value, rule)
        return bool(value)
    if isinstance(value, bool):
        return value
    scaled = value * rule.scale + rule.offset
    if not math.isfinite(scaled):
        raise RejectedMessageError(Reason.UNSUPPORTED_VALUE, f"{field_name} is too large when it is scaled")
    return float(scaled)


def _other_kind(field_name: str, value: Value | int, rule: MetricRule) -> RejectedMessageError:
    return RejectedMessageError(
        Reason.UNSUPPORTED_VALUE,
        f"{field_name} is {str(value)!r:.80}, and its profile says that it is a {rule.kind}; change the profile, then replay",
    )
