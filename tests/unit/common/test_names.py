import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import InvalidTopicError
from sens_common.names import (
    DEVICE_PATTERN,
    TENANT_PATTERN,
    UNROUTED,
    Route,
    device_name,
    is_tenant_name,
    native_route,
    parse_native_topic,
    subject_token,
)

TENANTS = st.from_regex(TENANT_PATTERN, fullmatch=True)
DEVICES = st.from_regex(DEVICE_PATTERN, fullmatch=True)
SIX_OR_EIGHT_BYTES = st.binary(min_size=6, max_size=6) | st.binary(min_size=8, max_size=8)


class TestParseNativeTopic:
    @given(TENANTS, DEVICES)
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
        assert is_tenant_name(route.tenant)
        assert device_name(route.device) == route.device

    @pytest.mark.parametrize(
        ("topic", "named"),
        [
            (
                "sens/v1/demo/Küche 1/telemetry",
                ["'Küche 1'", "letters (A to Z, a to z), digits, dots, underscores and hyphens"],
            ),
            (f"sens/v1/demo/{'a' * 64}/telemetry", ["aaaa", "1 to 63"]),
            ("sens/v1/demo//telemetry", ["the device ''"]),
            ("sens/v1/Demo/d1/telemetry", ["the tenant 'Demo'", "lower-case"]),
            ("tele/kitchen/SENSOR", ["sens/v1/{tenant}/{device}/telemetry"]),
        ],
    )
    def test_says_in_words_what_is_wrong(self, topic: str, named: list[str]) -> None:
        with pytest.raises(InvalidTopicError) as refusal:
            parse_native_topic(topic)

        assert all(part in refusal.value.detail for part in named)
        assert "[" not in refusal.value.detail


class TestNativeRoute:
    @pytest.mark.parametrize(
        ("topic", "route"),
        [
            ("sens/v1/demo/Kitchen/telemetry", ("demo", "Kitchen")),
            ("sens/v1/demo/Küche/telemetry", ("demo", None)),
            ("sens/v1/demo//telemetry", ("demo", None)),
            ("sens/v1/demo/d1/state", ("demo", None)),
            ("sens/v1/Demo/d1/telemetry", (None, None)),
            ("sens/v1/demo", (None, None)),
            ("tele/kitchen/SENSOR", (None, None)),
            ("", (None, None)),
        ],
    )
    def test_gives_what_is_wrong_to_the_tenant_in_the_topic(
        self, topic: str, route: tuple[str | None, str | None]
    ) -> None:
        assert native_route(topic) == route


class TestDeviceName:
    @given(SIX_OR_EIGHT_BYTES)
    def test_makes_all_spellings_of_an_eui_one_device(self, eui: bytes) -> None:
        spellings = {spelling for joint in ("", "-", ":") for spelling in _spellings(eui, joint)}

        assert {device_name(spelling) for spelling in spellings} == {eui.hex()}

    @given(DEVICES)
    def test_is_stable_when_applied_again(self, name: str) -> None:
        canonical = device_name(name)

        assert canonical is not None
        assert device_name(canonical) == canonical

    def test_keeps_the_case_of_a_name_that_is_no_eui(self) -> None:
        names = ["Kitchen", "kitchen", "tasmota_A1B2C3", "shellyplus1-A8032ABE5084", "DEADBEEF", "70B3-D57E-D006"]

        assert [device_name(name) for name in names] == names

    def test_takes_twelve_or_sixteen_hexadecimal_digits_for_an_eui_in_either_case(self) -> None:
        assert device_name("A8032ABE5084") == device_name("a8032abe5084") == "a8032abe5084"

    @pytest.mark.parametrize("text", ["70-B3:D5-7E-D0-06", "70:B3:D5:7E:D0:06:53", "", "Küche", "a b", "a" * 64])
    def test_refuses_what_is_neither_name_nor_eui(self, text: str) -> None:
        assert device_name(text) is None


class TestSubjectToken:
    @given(st.text(max_size=40), st.text(max_size=40))
    def test_is_injective(self, one: str, other: str) -> None:
        assert (subject_token(one) == subject_token(other)) == (one == other)

    @given(st.text(min_size=1, max_size=63))
    def test_holds_no_separator_wildcard_or_space(self, name: str) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_%-]+", subject_token(name))

    @given(TENANTS)
    def test_of_a_tenant_is_never_the_one_of_the_unrouted(self, tenant: str) -> None:
        assert subject_token(tenant) != UNROUTED


def _spellings(eui: bytes, joint: str) -> tuple[str, str]:
    text = joint.join(f"{byte:02x}" for byte in eui)
    return text, text.upper()
