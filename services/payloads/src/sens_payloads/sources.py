"""Sources: how messages of other people's sensors come in, compiled for use from what a tenant has set."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic import BaseModel

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import Value
from sens_payloads.formats import sparkplug_b
from sens_payloads.formats.sparkplug_births import NO_BIRTHS, Births
from sens_payloads.profiles import RADIO_PREFIX, Profile
from sens_payloads.uplinks import NetworkFormat, Received, Unwrapped, Uplink, UsualUplinks

_MAX_KNOWN_DEVICES: Final = 100_000


class ProfileRule(NamedTuple):
    """Which devices of a source have a profile.

    Attributes:
        device: Their names, ``*`` stands for any characters.
        profile: Theirs.
    """

    device: str
    profile: Profile


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A source of a tenant; one object for each.

    Attributes:
        name: Its name.
        format: Its network format.
        settings: Of the format.
        registers_devices: Whether devices that are not known are registered.
        with_radio: Whether values of the radio are stored.
        default_profile: Of devices that no rule fits.
        profile_rules: The first one that fits holds.
        id: In the database, 0 where it is in none.
        has_births: Whether messages tell what later ones mean: Sparkplug B.
    """

    name: str
    format: NetworkFormat
    settings: BaseModel
    registers_devices: bool = True
    with_radio: bool = False
    default_profile: Profile | None = None
    profile_rules: Sequence[ProfileRule] = ()
    id: int = 0
    has_births: bool = field(init=False)
    _together: UsualUplinks | None = field(init=False)
    _profiles: dict[str, Profile | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_births", isinstance(self.settings, sparkplug_b.Settings))
        object.__setattr__(self, "_together", self.format if isinstance(self.format, UsualUplinks) else None)

    def unwrap(self, received: Received, births: Births = NO_BIRTHS) -> Unwrapped:
        """Return the uplinks of a message; see `uplinks.NetworkFormat.unwrap`.

        Args:
            received: The message.
            births: Those that explain it, where the source has some.
        """
        if self.has_births:
            return sparkplug_b.unwrap(received, sparkplug_b.SETTINGS, births)
        return self.format.unwrap(received, self.settings)

    def unwrap_usual(self, received: Sequence[Received]) -> Sequence[Uplink | None]:
        """Return the uplinks of those messages that the format unwraps together, None for all others; see `uplinks.UsualUplinks`."""
        if self._together is None:
            return [None] * len(received)
        return self._together.unwrap_usual(received, self.settings, with_radio=self.with_radio)

    def profile(self, device: str) -> Profile | None:
        """Return the profile of a device, by the rules."""
        if not self.profile_rules:
            return self.default_profile
        if device in self._profiles:
            return self._profiles[device]
        found = next((rule.profile for rule in self.profile_rules if _fits(rule.device, device)), self.default_profile)
        if len(self._profiles) >= _MAX_KNOWN_DEVICES:
            self._profiles.clear()
        self._profiles[device] = found
        return found

    def metrics(
        self, uplink: Uplink, fields: Mapping[str, Value | int], profile: Profile | None
    ) -> Mapping[str, Value | int]:
        """Return the values of an uplink by the names of their metrics, none where it has no fields.

        What the network knows of a device without a frame of it, such as its battery, are values of the radio alone.

        Args:
            uplink: The uplink.
            fields: Its own, or what its codec has made of its bytes.
            profile: Of its device.

        Raises:
            RejectedMessageError: It is bytes, and no codec says what they mean; or as `Profile.named`.
        """
        if not fields and uplink.frame is not None:
            if uplink.frame and (profile is None or profile.codec is None):
                raise self._no_codec(uplink)
            return fields
        values = fields if profile is None or not fields else profile.named(fields)
        if not self.with_radio or not uplink.radio:
            return values
        return {**values, **{RADIO_PREFIX + name: value for name, value in uplink.radio.items()}}

    def _no_codec(self, uplink: Uplink) -> RejectedMessageError:
        return RejectedMessageError(
            Reason.NO_CODEC,
            f"source {self.name} hands over bytes of device {uplink.device}, and no codec says what they mean: give the device a profile with a"
            " codec, by a rule of the source or by hand, then replay",
        )


def _fits(pattern: str, device: str) -> bool:
    """Tell whether a name fits a pattern.

    >>> _fits("0004a30b*", "0004a30b001c0530"), _fits("a*c", "abd")
    (True, False)
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), device) is not None
