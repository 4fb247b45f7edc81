import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.names import (
    DEVICE_PATTERN,
    TENANT_PATTERN,
    UNROUTED,
    device_name,
    subject_token,
)

TENANTS = st.from_regex(TENANT_PATTERN, fullmatch=True)
DEVICES = st.from_regex(DEVICE_PATTERN, fullmatch=True)
SIX_OR_EIGHT_BYTES = st.binary(min_size=6, max_size=6) | st.binary(min_size=8, max_size=8)


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
