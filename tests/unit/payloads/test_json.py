"""Rules say where in a JSON message device, time and values are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.formats import json as json_format
from sens_payloads.formats.json import Settings, unwrap
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

NOON = 1_788_523_200_000_000  # 2026-09-04T12:00:00Z


def settings(**rule: Any) -> Settings:
    return Settings.model_validate({"rules": [rule]})


def read(body: str | bytes, published_to: str = "t/d1", /, **rule: Any) -> Unwrapped:
    raw = body if isinstance(body, bytes) else body.encode()
    return unwrap(Received(raw, NOON, published_to), settings(**{"topic": "t/{device}"} | rule))


def refusal(body: str | bytes, published_to: str = "t/d1", /, **rule: Any) -> RejectedMessageError:
    with pytest.raises(RejectedMessageError) as caught:
        read(body, published_to, **rule)
    return caught.value


class TestDevice:
    def test_is_a_level_of_the_topic(self) -> None:
        assert read('{"a": 1}', "x/70-B3-D5-7E-D0-06-53-C8/y", topic="x/{device}/y") == [
            Uplink("70b3d57ed00653c8", None, {"a": 1})
        ]

    def test_is_a_member(self) -> None:
        body = '{"ids": {"eui": "A8032ABE5084"}, "a": 1}'
        assert read(body, "any/thing", topic="", device="{ids.eui}") == [Uplink("a8032abe5084", None, {"a": 1})]

    def test_is_fixed(self) -> None:
        assert read('{"a": 1}', "", topic="", device="boiler") == [Uplink("boiler", None, {"a": 1})]

    def test_is_put_together(self) -> None:
        assert read('{"n": 7, "a": 1}', "t/hall", device="{device}-{n}[-{x}]") == [Uplink("hall-7", None, {"a": 1})]

    def test_says_what_is_missing(self) -> None:
        error = refusal('{"a": 1}', device="{n}")
        assert error.reason == Reason.MALFORMED_PAYLOAD
        assert error.detail == "there is no text or integer n, which is in the device's name"

    def test_refuses_a_name_that_is_not_allowed(self) -> None:
        error = refusal('{"a": 1}', "t/living room")
        assert error.reason == Reason.INVALID_TOPIC
        assert "'living room' can't be the name of a device" in error.detail
        assert refusal('{"a": 1, "n": "ä"}', device="{n}").reason == Reason.MALFORMED_PAYLOAD

    def test_replaces_characters_where_it_may(self) -> None:
        for text, name in (("Küche / Lampe", "Kuche_Lampe"), ("_x_", "x"), ("a..b", "a..b"), ("._hidden", "hidden")):
            assert read('{"a": 1}', f"t/{text}", topic="t/{device...}", other_characters="replace") == [
                Uplink(name, None, {"a": 1})
            ]
        assert refusal('{"a": 1}', "t/客厅", other_characters="replace").reason == Reason.INVALID_TOPIC


class TestTime:
    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            ('"2026-09-04T12:00:00Z"', {}),
            ('"2026-09-04T14:00:00+0200"', {}),
            ('"2026-09-04 14:00:00.0000009"', {"time_offset": "+02:00"}),
            ("1788523200", {}),
            ("1788523200000", {}),
            ('"1788523200"', {}),
            ('"1788523200000.0"', {"time_unit": "ms"}),
            ("1788523200", {"time_unit": "s"}),
            ("1788523200000000", {"time_unit": "us"}),
            ("1788523200000000999", {"time_unit": "ns"}),
        ],
    )
    def test_has_several_notations(self, text: str, settings: dict[str, str]) -> None:
        assert read(f'{{"at": {text}, "a": 1}}', time="at", **settings) == [Uplink("d1", NOON, {"a": 1})]

    def test_is_the_receipts_where_there_is_none(self) -> None:
        assert read('{"a": 1}', time="at") == read('{"at": null, "a": 1}', time="at") == [Uplink("d1", None, {"a": 1})]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('"2026-09-04T12:00:00"', Reason.INVALID_TIME),
            ("true", Reason.INVALID_TIME),
            ('{"s": 1}', Reason.INVALID_TIME),
            ("11", Reason.IMPLAUSIBLE_TIME),
            ("1e300", Reason.INVALID_TIME),
            ("1798523200", Reason.IMPLAUSIBLE_TIME),
        ],
    )
    @pytest.mark.parametrize("unit", ["auto", "s"])
    def test_is_refused_or_left_out_where_it_cannot_be(self, text: str, reason: Reason, unit: str) -> None:
        body = f'{{"at": {text}, "a": 1}}'
        assert refusal(body, time="at", time_unit=unit).reason == reason
        assert read(body, time="at", time_unit=unit, unusable_time="receipt") == [Uplink("d1", None, {"a": 1})]

    def test_may_be_that_of_all_readings(self) -> None:
        body = '{"at": 1788523200, "list": [{"n": "x", "a": 1}, {"n": "y", "a": 2, "at": 1788523199}]}'
        assert read(body, device="{n}", readings="list", time="at") == [
            Uplink("x", NOON, {"a": 1}),
            Uplink("y", NOON - 1_000_000, {"a": 2}),
        ]


class TestReadings:
    def test_are_the_elements_of_an_array(self) -> None:
        body = '[{"n": "x", "a": 1}, {"n": "y", "a": null}, {"n": "z", "a": 3}]'
        assert read(body, device="{n}") == [Uplink("x", None, {"a": 1}), Uplink("z", None, {"a": 3})]

    def test_are_the_members_of_an_object(self) -> None:
        body = '{"Device A": [{"ts": 1788523200000, "values": {"t": 1}}, {"ts": 1788523199000, "values": {"t": 2}}], "B": [{"values": {"t": 3}}]}'
        rule = {"device": "{key}", "device_keys": True, "time": "ts", "values": "values", "other_characters": "replace"}
        assert read(body, **rule) == [
            Uplink("Device_A", NOON, {"t": 1}),
            Uplink("Device_A", NOON - 1_000_000, {"t": 2}),
            Uplink("B", None, {"t": 3}),
        ]

    def test_of_one_device_need_times(self) -> None:
        error = refusal('[{"a": 1}, {"a": 2}]')
        assert error.reason == Reason.INVALID_TIME
        assert "'d1' has several values of 'a'" in error.detail
        assert isinstance(read('[{"a": 1}, {"b": 2}]'), list)

    def test_say_where_something_is_wrong(self) -> None:
        assert refusal('{"list": [{"a": 1}, 2]}', readings="list").detail.startswith(
            "reading 2 of list: it is a number"
        )
        assert refusal('{"x": {"a": 9007199254740993}}', device_keys=True, device="{key}").detail.startswith(
            "'x': 'a':"
        )
        assert "no member list" in refusal("{}", readings="list").detail
        assert refusal("[1]", device_keys=True, device="{key}").reason == Reason.MALFORMED_PAYLOAD

    def test_are_bounded(self) -> None:
        many = [{"n": str(number), "a": 1} for number in range(1001)]
        assert refusal(json.dumps(many), device="{n}").reason == Reason.TOO_LARGE
        values = [{"n": str(number), **{str(name): 1 for name in range(30)}} for number in range(400)]
        assert refusal(json.dumps(values), device="{n}").reason == Reason.TOO_LARGE


class TestValues:
    def test_are_below_a_path(self) -> None:
        assert read('{"x": {"y": {"a": 1, "b": [2, {"c": 3}]}}, "z": 4}', values="x.y", skip=["a"]) == [
            Uplink("d1", None, {"b.0": 2, "b.1.c": 3})
        ]
        assert "no member x.y" in refusal('{"x": 1}', values="x.y").detail

    def test_single_ones_are_named_by_the_topic(self) -> None:
        for body, value in (
            ("21.5", 21.5),
            (" +21.5\n", 21.5),
            ("007", 7),
            ("true", True),
            ("ON", "ON"),
            ('"a:b"', "a:b"),
        ):
            assert read(body, "home/k/temp", topic="home/{device}/{metric}") == [Uplink("k", None, {"temp": value})]

    def test_single_ones_are_named_by_a_member(self) -> None:
        assert read('{"sensor": "temp", "value": 21.5}', metric="{sensor}", values="value") == [
            Uplink("d1", None, {"temp": 21.5})
        ]
        assert read('{"value": 21.5, "x": 1}', values="value") == [Uplink("d1", None, {"value": 21.5})]

    def test_single_ones_need_a_name(self) -> None:
        assert "without a name" in refusal("21.5").detail

    def test_objects_get_the_metric_before_their_names(self) -> None:
        assert read('{"a": 1}', "home/k/temp", topic="home/{device}/{metric}") == [Uplink("k", None, {"temp.a": 1})]

    def test_words_may_mean_yes_and_no(self) -> None:
        states = {"ON": True, "OFF": False}
        assert read('{"a": "ON", "b": "OFF", "c": "on"}', states=states) == [
            Uplink("d1", None, {"a": True, "b": False, "c": "on"})
        ]
        assert read('{"a": "ON", "c": "on", "d": 1}', states=states, texts=False) == [
            Uplink("d1", None, {"a": True, "d": 1})
        ]

    def test_words_may_mean_nothing(self) -> None:
        assert read('{"a": "NaN", "b": 1}') == [Uplink("d1", None, {"b": 1})]

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ('{"a": 1, "a": 2}', Reason.MALFORMED_PAYLOAD),
            ('{"a": "x:", "\\u0061": 2}', Reason.MALFORMED_PAYLOAD),
            ('{"a": {"b": ":", "b": 2}}', Reason.MALFORMED_PAYLOAD),
            ('{"a.b": 1, "a": {"b": 2}}', Reason.MALFORMED_PAYLOAD),
            ('{"a": 9007199254740993}', Reason.UNSUPPORTED_VALUE),
            ('{"a": 123456789012345678901}', Reason.UNSUPPORTED_VALUE),
            ('{"x": [123456789012345678901], "b": "y"}', Reason.UNSUPPORTED_VALUE),
            ('{"a": 1e400}', Reason.UNSUPPORTED_VALUE),
            ('{"a": "x\\u0000"}', Reason.UNSUPPORTED_VALUE),
            ('{"": 1}', Reason.INVALID_METRIC),
            ('{"a": 1', Reason.MALFORMED_PAYLOAD),
            (b"\xff\x00", Reason.MALFORMED_PAYLOAD),
            ("\x1b[0m", Reason.MALFORMED_PAYLOAD),
            (b"[" * 100_000, Reason.MALFORMED_PAYLOAD),
            (b'{"a":' * 500 + b"1" + b"}" * 500, Reason.TOO_LARGE),
            (b" " * 262_145, Reason.TOO_LARGE),
        ],
    )
    def test_are_refused_where_something_would_be_lost(self, body: str | bytes, reason: Reason) -> None:
        assert refusal(body).reason == reason

    def test_large_integers_that_are_exact_are_kept(self) -> None:
        for body in ('{"a": 1152921504606846976}', '{"a": 1.5e20, "b": 100000000000000000000}'):
            found = read(body)
            assert isinstance(found, list)
            assert dict(found[0].fields or {}) == json.loads(body)


class TestRules:
    TWO = Settings.model_validate(
        {
            "rules": [
                {"topic": "t/{device}", "when": {"kind": ["data"]}, "skip": ["kind"]},
                {"topic": "t/+", "when": {"kind": ["test"]}, "without_measurements": "simulated"},
                {"topic": "u/#", "without_measurements": "command"},
            ]
        }
    )

    def test_the_first_that_fits_counts(self) -> None:
        assert unwrap(Received(b'{"kind": "data", "a": 1}', NOON, "t/x"), self.TWO) == [Uplink("x", None, {"a": 1})]
        assert unwrap(Received(b'{"kind": "test", "a": 1}', NOON, "t/x"), self.TWO) == WithoutMeasurements("simulated")
        assert unwrap(Received(b"\xff", NOON, "u/x/y"), self.TWO) == WithoutMeasurements("command")
        assert unwrap(Received(b"\xff", NOON, "u"), self.TWO) == WithoutMeasurements("command")

    def test_a_message_that_fits_none_is_refused(self) -> None:
        with pytest.raises(RejectedMessageError, match="kind is data or kind is test") as caught:
            unwrap(Received(b'{"kind": "x"}', NOON, "t/x"), self.TWO)
        assert caught.value.reason == Reason.MALFORMED_PAYLOAD
        with pytest.raises(RejectedMessageError, match="no rule of the source reads the topic 'v'") as caught:
            unwrap(Received(b"{}", NOON, "v"), self.TWO)
        assert caught.value.reason == Reason.INVALID_TOPIC

    def test_an_empty_message_removes_a_retained_one(self) -> None:
        assert read("") == WithoutMeasurements("event")
        assert refusal("", "", topic="", device="d").reason == Reason.MALFORMED_PAYLOAD


class TestSettings:
    @pytest.mark.parametrize(
        ("rule", "said"),
        [
            ({"topic": "t/{device}/{device}"}, "twice"),
            ({"topic": "t/{a...}/{device...}"}, "one {name...}"),
            ({"topic": "#/{device}"}, "# is the last level"),
            ({"topic": "t/x{device}"}, "'x{device}'"),
            ({"topic": "t", "device": "[{a}"}, "["),
            ({"topic": "t", "device": "{a"}, "character 1"),
            ({"topic": "t"}, "topic has no {device}"),
            ({"topic": "t", "device": ""}, "device is empty"),
            ({"topic": "t/{device}", "time": "a..b"}, "a path is names joined with dots"),
            ({"topic": "t/{device}", "time_offset": "CET"}, "time_offset"),
            ({"topic": "t/{device}", "colour": "red"}, "colour"),
        ],
    )
    def test_are_refused_with_what_is_wrong(self, rule: dict[str, str], said: str) -> None:
        with pytest.raises(ValidationError) as caught:
            settings(**rule)
        assert said in str(caught.value)

    def test_are_bounded(self) -> None:
        with pytest.raises(ValidationError):
            Settings.model_validate({"rules": []})
        with pytest.raises(ValidationError):
            Settings.model_validate({"rules": [{"topic": "t/{device}"}] * 65})


class TestFastWay:
    @given(
        st.dictionaries(
            st.text('ab.:"\\ é', max_size=2),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text("a:", max_size=2)
            | st.lists(st.integers()),
            max_size=4,
        )
    )
    def test_says_what_the_other_says(self, members: dict[str, object]) -> None:
        body = json.dumps(members).encode()
        one, other = settings(topic="t/{device}", time="a"), settings(topic="t/{device}", time="a", skip=["none"])
        assert one.reader.matches("t/d")[0].is_flat
        assert not other.reader.matches("t/d")[0].is_flat
        outcomes = []
        for each in (one, other):
            try:
                outcomes.append(str(json_format.unwrap(Received(body, NOON, "t/d"), each)))
            except RejectedMessageError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
