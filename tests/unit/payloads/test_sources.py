"""Sources: which values of an uplink they take."""

from collections.abc import Mapping

import pytest

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import format_settings, network_format
from sens_payloads.profiles import Profile
from sens_payloads.sources import ProfileRule, Source
from sens_payloads.uplinks import Uplink

RADIO: Mapping[str, float] = {"battery": 85.5, "margin": 7}


def source(*, with_radio: bool = True) -> Source:
    return Source("field", network_format("chirpstack"), format_settings("chirpstack", {}), with_radio=with_radio)


class TestMetrics:
    def test_are_the_radio_s_alone_where_the_network_tells_of_a_device_without_a_frame(self) -> None:
        uplink = Uplink("a", 0, {}, radio=RADIO)

        assert source().metrics(uplink, {}, None) == {"lorawan.battery": 85.5, "lorawan.margin": 7}
        assert source(with_radio=False).metrics(uplink, {}, None) == {}

    def test_have_the_radio_s_where_the_uplink_has_fields(self) -> None:
        uplink = Uplink("a", 0, {"t": 1.5}, b"\x01", radio=RADIO)

        assert source().metrics(uplink, {"t": 1.5}, None) == {"t": 1.5, "lorawan.battery": 85.5, "lorawan.margin": 7}

    def test_are_none_where_a_frame_says_nothing(self) -> None:
        assert source().metrics(Uplink("a", 0, None, b"", radio=RADIO), {}, None) == {}
        assert source().metrics(Uplink("a", 0, None, b"\x01"), {}, Profile("p", "cayenne_lpp")) == {}

    def test_need_a_codec_where_there_are_bytes_alone(self) -> None:
        with pytest.raises(RejectedMessageError, match="no codec says what they mean"):
            source().metrics(Uplink("a", 0, None, b"\x01", radio=RADIO), {}, None)


class TestProfiles:
    def test_are_those_of_the_first_rule_that_fits_or_the_default(self) -> None:
        default, first, second = Profile("default"), Profile("first"), Profile("second")
        ruled = Source(
            "field",
            network_format("chirpstack"),
            format_settings("chirpstack", {}),
            default_profile=default,
            profile_rules=[ProfileRule("a*", first), ProfileRule("ab*", second)],
        )

        assert [ruled.profile(name) for name in ("abc", "b", "abc")] == [first, default, first]
        assert source().profile("abc") is None

    def test_have_births_where_the_format_has(self) -> None:
        plant = Source("plant", network_format("sparkplug_b"), format_settings("sparkplug_b", {}))

        assert plant.has_births
        assert not source().has_births
