"""Messages that are unwrapped together: each has the uplink that it has by itself, or is left to be looked at by itself."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_payloads.formats import FORMATS, format_settings, network_format
from sens_payloads.sources import Source
from sens_payloads.uplinks import NO_RADIO, Received, Unwrapped, UsualUplinks
from support import uplink_vectors

TOGETHER = sorted(name for name in FORMATS if isinstance(network_format(name), UsualUplinks))
RECEIVED_AT = uplink_vectors.instant("2026-09-04T08:00:09Z")
_messages = {name: st.lists(uplink_vectors.mutated(name), max_size=6) for name in TOGETHER}


def source_of(name: str, *, with_radio: bool) -> Source:
    return Source(name, network_format(name), format_settings(name, {}), with_radio=with_radio)


def by_itself(source: Source, message: Received) -> Unwrapped | None:
    try:
        return source.unwrap(message)
    except RejectedMessageError:
        return None


def check(source: Source, messages: list[Received]) -> None:
    together = source.unwrap_usual(messages)
    assert len(together) == len(messages)
    for message, uplink in zip(messages, together, strict=True):
        if uplink is not None:
            only = by_itself(source, message)
            assert isinstance(only, list)
            radio = only[0].radio if source.with_radio else NO_RADIO
            assert repr([uplink]) == repr([msgspec.structs.replace(only[0], radio=radio)])


class TestMessagesTogether:
    @pytest.mark.parametrize("name", TOGETHER)
    @pytest.mark.parametrize("with_radio", [False, True])
    def test_of_the_vectors_are_as_each_by_itself(self, name: str, *, with_radio: bool) -> None:
        messages = [uplink_vectors.received(case) for case in uplink_vectors.cases(name)]
        check(source_of(name, with_radio=with_radio), messages)
        for message in messages:
            check(source_of(name, with_radio=with_radio), [message])

    @given(st.data(), st.sampled_from(TOGETHER), st.booleans())
    def test_that_are_nearly_right_are_as_each_by_itself(
        self, data: st.DataObject, name: str, with_radio: bool
    ) -> None:
        check(source_of(name, with_radio=with_radio), data.draw(_messages[name]))

    def test_that_are_none_are_none(self) -> None:
        assert not list(source_of("chirpstack", with_radio=False).unwrap_usual([]))
        assert source_of("actility", with_radio=False).unwrap_usual([Received(b"", 0)]) == [None]


def chirpstack(object_: object, time: str = "2026-09-04T08:00:08Z") -> Received:
    body = {"time": time, "deviceInfo": {"devEui": "0004A30B001C0530"}, "object": object_}
    return Received(json.dumps(body).encode(), RECEIVED_AT, "application/1/device/0004a30b001c0530/event/up")


class TestAMessageThatIsNotUsual:
    USUAL = chirpstack({"temperature": 21.5, "on": True})

    @pytest.mark.parametrize(
        "other",
        [
            chirpstack({"temperature": 10**400}),
            chirpstack({"a\n": 1}),
            chirpstack({"temperature": 1}, time="2026-09-04"),
            chirpstack({"temperature": 1}, time="1999-01-01T00:00:00Z"),
            chirpstack({"temperature": 1}, time="2026-09-06T08:00:08Z"),
            chirpstack([]),
            Received(b"{", RECEIVED_AT, USUAL.topic),
            Received(USUAL.body, RECEIVED_AT, "application/1/device/0004a30b001c0530/event/join"),
            Received(b" " * 262_144 + USUAL.body, RECEIVED_AT, USUAL.topic),
        ],
    )
    def test_leaves_its_neighbours_usual(self, other: Received) -> None:
        before, found, after = source_of("chirpstack", with_radio=False).unwrap_usual([self.USUAL, other, self.USUAL])
        assert before == after
        assert before is not None
        assert before.fields == {"temperature": 21.5, "on": True}
        assert found is None

    @pytest.mark.parametrize(
        ("sent", "fields"),
        [
            ({"n": 2**53}, {"n": float(2**53)}),
            ({"n": {"x": 1}, "t": "a", "z": None}, {"n.x": 1, "t": "a"}),
            ({"z": None}, {}),
            ({}, None),
            ({"n": 1e300}, {"n": 1e300}),
        ],
    )
    def test_has_the_values_that_it_has_by_itself(self, sent: object, fields: object) -> None:
        _, found = source_of("chirpstack", with_radio=False).unwrap_usual([self.USUAL, chirpstack(sent)])
        assert found is not None
        assert repr(found.fields) == repr(fields)
