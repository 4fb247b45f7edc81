import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import InvalidTopicError
from sens_common.names import NAME_PATTERN, UNROUTED, Route, device_name, is_name, parse_native_topic, subject_token

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)
SIX_OR_EIGHT_BYTES = st.binary(min_size=6, max_size=6) | st.binary(min_size=8, max_size=8)


class TestParseNativeTopic:
    @given(NAMES, NAMES)
    def test_returns_tenant_and_device(self, tenant: str, device: str) -> None:
        route = parse_native_topic(f"sens/v1/{tenant}/{device}/telemetry")

        assert route == Route(tenant, device_name(device) or "")

    def test_returns_the_canonical_name_of_an_eui(self) -> None:
        topic = "sens/v1/demo/70-B3-D5-7E-D0-06-53-C8/telemetry"

        assert parse_native_topic(topic) == Route("demo", "70b3d57ed00653c8")

    @pytest.mark.parametrize(
        "topic",
        [
            "",
            "sens/v1/demo/d1",
            "sens/v1/demo/d1/telemetry/",
            "sens/v1/demo/d1/telemetry/more",
            "/sens/v1/demo/d1/telemetry",
            "sens/v2/demo/d1/telemetry",
            "sens/v1/demo/d1/Telemetry",
            "sens/v1//d1/telemetry",
            "sens/v1/demo//telemetry",
            "sens/v1/Demo/d1/telemetry",
            "sens/v1/demo/-d1/telemetry",
            "sens/v1/demo/d 1/telemetry",
            "sens/v1/demo/d1\n/telemetry",
            f"sens/v1/{'a' * 64}/d1/telemetry",
            f"sens/v1/demo/{'a' * 64}/telemetry",
            "sens/v1/démo/d1/telemetry",
            "sens/v1/~/d1/telemetry",
        ],
    )
    def test_refuses_another_shape(self, topic: str) -> None:
        with pytest.raises(InvalidTopicError):
            parse_native_topic(topic)

    @given(st.text(max_size=100))
    def test_answers_any_text_with_valid_names_or_its_own_error(self, topic: str) -> None:
        try:
            route = parse_native_topic(topic)
        except InvalidTopicError:
            return
        assert is_name(route.tenant)
        assert is_name(route.device)


class TestDeviceName:
    @given(SIX_OR_EIGHT_BYTES)
    def test_makes_all_spellings_of_an_eui_one_device(self, eui: bytes) -> None:
        spellings = {spelling for joint in ("", "-", ":") for spelling in _spellings(eui, joint)}

        assert {device_name(spelling) for spelling in spellings} == {eui.hex()}

    @given(NAMES)
    def test_is_stable_when_applied_again(self, name: str) -> None:
        canonical = device_name(name)

        assert canonical is not None
        assert device_name(canonical) == canonical

    @pytest.mark.parametrize(
        "text", ["70-B3:D5-7E-D0-06", "70B3-D57E-D006", "70-B3-D5-7E-D0-06-53", "", "Device", "a" * 64]
    )
    def test_refuses_what_is_neither_name_nor_eui(self, text: str) -> None:
        assert device_name(text) is None


class TestSubjectToken:
    @given(st.text(max_size=40), st.text(max_size=40))
    def test_is_injective(self, one: str, other: str) -> None:
        assert (subject_token(one) == subject_token(other)) == (one == other)

    @given(st.text(min_size=1, max_size=63))
    def test_holds_no_separator_wildcard_or_space(self, name: str) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_%-]+", subject_token(name))

    @given(NAMES)
    def test_of_a_tenant_is_never_the_one_of_the_unrouted(self, tenant: str) -> None:
        assert subject_token(tenant) != UNROUTED


def _spellings(eui: bytes, joint: str) -> tuple[str, str]:
    text = joint.join(f"{byte:02x}" for byte in eui)
    return text, text.upper()
