"""The native payload: examples that a person reads, one for each rule."""

from datetime import UTC, datetime

import orjson
import pytest

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.formats import Measurement, Value
from sens_telemetry_worker.decoders import native

RECEIVED_AT = 1_769_860_800_250_000  # 2026-01-31T12:00:00.25Z
NOON = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z
DAY = 86_400_000_000


def decode(payload: str | bytes) -> list[Measurement]:
    return native.decode(payload.encode() if isinstance(payload, str) else payload, RECEIVED_AT)


def values(payload: str) -> dict[str, Value]:
    return {reading.metric: reading.value for reading in decode(payload)}


def time_of(timestamp: str) -> int:
    """Return the decoded time of a payload with this ts, which is JSON."""
    (reading,) = decode(f'{{"a":1,"ts":{timestamp}}}')
    return reading.measured_at


def rejection(payload: str | bytes) -> tuple[str, str]:
    with pytest.raises(RejectedMessageError) as caught:
        decode(payload)
    return caught.value.reason, caught.value.detail


class TestObject:
    def test_becomes_a_reading_for_each_metric_in_its_order(self) -> None:
        assert decode('{"temperature":21.5,"door_open":false,"firmware":"1.4.2","ts":1769860800}') == [
            Measurement("temperature", NOON, 21.5),
            Measurement("door_open", NOON, False),
            Measurement("firmware", NOON, "1.4.2"),
        ]

    def test_without_ts_has_the_time_of_the_receipt(self) -> None:
        assert decode('{"a":1}') == [Measurement("a", RECEIVED_AT, 1.0)]

    def test_joins_the_names_of_nested_objects(self) -> None:
        assert values('{"battery":{"voltage":3.6,"cell":{"1":{"ok":true}}},"b":2}') == {
            "battery.voltage": 3.6,
            "battery.cell.1.ok": True,
            "b": 2.0,
        }

    def test_takes_ts_inside_a_nested_object_as_a_metric(self) -> None:
        assert values('{"gps":{"ts":5}}') == {"gps.ts": 5.0}

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1", 1.0),
            ("-0.0", -0.0),
            ("1e300", 1e300),
            ("0.1", 0.1),
            ("true", True),
            ("false", False),
            ('"on"', "on"),
            ('""', ""),
            ('"12:30:00"', "12:30:00"),
            (r'"a\u003ab"', "a:b"),
            ('"21 °C, 😀"', "21 °C, 😀"),
        ],
    )
    def test_keeps_value_and_type(self, text: str, value: Value) -> None:
        (reading,) = decode(f'{{"a":{text}}}')
        assert repr(reading.value) == repr(value)

    @pytest.mark.parametrize("name", ["a:b", "Außen temp", "x" * 200, "a.b", "µ"])
    def test_takes_unusual_names(self, name: str) -> None:
        assert values(orjson.dumps({name: 1, "other": True}).decode()) == {name: 1.0, "other": True}

    def test_accepts_eight_levels(self) -> None:
        assert values('{"a":' * 8 + "1" + "}" * 8) == {"a.a.a.a.a.a.a.a": 1.0}

    def test_accepts_a_thousand_metrics(self) -> None:
        metrics = {f"m{number}": float(number) for number in range(1000)}
        assert values(orjson.dumps(metrics).decode()) == metrics


class TestBacklog:
    def test_gives_each_reading_its_own_time(self) -> None:
        assert decode('[{"a":1,"ts":1769860800},{"a":2,"b":{"c":true},"ts":1769860801}]') == [
            Measurement("a", NOON, 1.0),
            Measurement("a", NOON + 1_000_000, 2.0),
            Measurement("b.c", NOON + 1_000_000, True),
        ]

    def test_of_one_reading_needs_no_time(self) -> None:
        assert decode('[{"a":1}]') == [Measurement("a", RECEIVED_AT, 1.0)]

    def test_returns_both_readings_of_one_metric_and_time(self) -> None:
        assert [r.value for r in decode('[{"a":1,"ts":1769860800},{"a":2,"ts":1769860800}]')] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("payload", "reason", "detail"),
        [
            ("[]", Reason.MALFORMED_PAYLOAD, "empty array"),
            ('[{"a":1,"ts":1769860800},{"a":2}]', Reason.INVALID_TIME, "reading 2 of the backlog: it has no ts"),
            ('[{"a":1,"ts":1769860800},7]', Reason.MALFORMED_PAYLOAD, "reading 2 of the backlog: it is a number"),
            ("[[]]", Reason.MALFORMED_PAYLOAD, "reading 1 of the backlog: it is an array"),
            (
                '[{"a":1,"ts":1769860800},{"ts":1769860800}]',
                Reason.MALFORMED_PAYLOAD,
                "reading 2 of the backlog: the object has no metrics",
            ),
            (
                '[{"a":1,"ts":1769860800},{"b":{"c":null}}]',
                Reason.INVALID_TIME,
                "reading 2 of the backlog: it has no ts",
            ),
            (
                '[{"a":1,"ts":1769860800},{"b":[[]],"ts":1769860800}]',
                Reason.UNSUPPORTED_VALUE,
                "reading 2 of the backlog: 'b' is an array",
            ),
            ('[{"a":1,"ts":1769860800},{"b":2,"b":3,"ts":1769860800}]', Reason.MALFORMED_PAYLOAD, "'b' is there twice"),
        ],
    )
    def test_names_the_reading_that_is_wrong(self, payload: str, reason: Reason, detail: str) -> None:
        assert rejection(payload)[0] == reason
        assert detail in rejection(payload)[1]

    def test_is_bounded_in_readings_and_values(self) -> None:
        readings = [{"a": 1, "ts": 1_769_860_800 + i} for i in range(1001)]
        assert rejection(orjson.dumps(readings))[0] == Reason.TOO_LARGE
        assert len(decode(orjson.dumps(readings[:1000]))) == 1000
        wide = [{**{f"m{n}": 1 for n in range(500)}, "ts": 1_769_860_800 + i} for i in range(21)]
        assert rejection(orjson.dumps(wide))[0] == Reason.TOO_LARGE
        assert "more than 10000 values" in rejection(orjson.dumps(wide))[1]
        assert len(decode(orjson.dumps(wide[:20]))) == 10_000


class TestMalformedPayload:
    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"21.5",
            b'"text"',
            b"null",
            b"{}",
            b'{"ts":1769860800}',
            b'{"a":{}}',
            b'{"a":1',
            b'{"a":1}{"a":2}',
            b'{"a":NaN}',
            b'{"a":-Infinity}',
            b'{"a":1e999,"b":NaN}',
            b'{"a":01}',
            b"{'a':1}",
            b'\xef\xbb\xbf{"a":1}',
            b'{"a":"\xff"}',
            b'{"a":"\\ud800"}',
            '{"a":1}'.encode("utf-16"),
            b"\x00\x01\x02",
            b"[" * 100_000,
        ],
    )
    def test_is_rejected(self, payload: bytes) -> None:
        assert rejection(payload)[0] == Reason.MALFORMED_PAYLOAD

    @pytest.mark.parametrize(
        "payload",
        [
            '{"a":1,"a":1}',
            '{"a":1,"a":2,"b":3,"ts":1769860800}',
            '{"a":1,"ts":1769860800,"ts":1769860800}',
            '{"n":{"a":1,"a":2}}',
            '{"n":{"a":1},"n":{"b":2}}',
            r'{"a":1,"\u0061":2}',
            r'{"a":1,"a":2,"b":"\u003a"}',
            r'{"a":1,"a":2,"b\u003A":3}',
            r'{"a":1,"a":2,"ts":"2026-01-31T12\u003a00:00Z"}',
            '{"a":' + "[" * 300 + "]" * 300 + ',"a":2}',
        ],
    )
    def test_duplicate_keys_are_found(self, payload: str) -> None:
        reason, detail = rejection(payload)
        assert reason == Reason.MALFORMED_PAYLOAD
        assert "is there twice" in detail

    @pytest.mark.parametrize(
        "payload", ['{"a.b":1,"a":{"b":2}}', '{"a":{"b":2},"a.b":1}', '{"a":{"b.c":1,"b":{"c":1}}}']
    )
    def test_names_that_join_to_the_same_are_found(self, payload: str) -> None:
        reason, detail = rejection(payload)
        assert reason == Reason.MALFORMED_PAYLOAD
        assert "joined name" in detail

    def test_tells_where_json_ends_to_be_json(self) -> None:
        assert "column 7" in rejection('{"a": x}')[1]


class TestUnsupportedValue:
    @pytest.mark.parametrize(
        ("payload", "metric"),
        [
            ('{"a":[1,[2]]}', "'a'"),
            ('{"a":{"b":[{}]}}', "'a.b'"),
            ('{"a":[1,"x\\u0000y"]}', "'a.1'"),
            ('{"a":[9007199254740993]}', "'a.0'"),
            ('{"a":"x\\u0000y"}', "'a'"),
            ('{"a":9007199254740993}', "'a'"),
            ('{"n":{"a":-9007199254740993}}', "'n.a'"),
            ('{"a":18446744073709551617}', "'a'"),
            ('{"a":123456789012345678901234567890}', "'a'"),
            ('{"a":1e999}', "1e999"),
            ('{"a":' + "9" * 400 + "}", "9999"),
            ('{"a":' + "9" * 5000 + "}", "9999"),
        ],
    )
    def test_is_rejected_by_name(self, payload: str, metric: str) -> None:
        reason, detail = rejection(payload)
        assert reason == Reason.UNSUPPORTED_VALUE
        assert metric in detail

    @pytest.mark.parametrize("integer", [2**53, -(2**53), 2**53 + 2, 2**63, 2**64, 2**64 + 4096, 10**22, 2**1000])
    def test_large_integers_that_a_float_holds_exactly_pass(self, integer: int) -> None:
        assert values(f'{{"a":{integer}}}') == {"a": float(integer)}

    def test_a_large_float_with_fraction_or_exponent_is_rounded_as_floats_are(self) -> None:
        assert values('{"a":9007199254740993.0,"b":1.2345678901234567e25}') == {
            "a": 2.0**53,
            "b": 1.2345678901234567e25,
        }


class TestNull:
    def test_is_no_value_and_the_others_are_stored(self) -> None:
        assert values('{"a":null,"b":2,"c":{"d":null,"e":true},"f":[1,null,3]}') == {
            "b": 2.0,
            "c.e": True,
            "f.0": 1.0,
            "f.2": 3.0,
        }

    @pytest.mark.parametrize("payload", ['{"a":null}', '{"a":{"b":null},"c":[null]}', '[{"a":null,"ts":1769860800}]'])
    def test_alone_leaves_nothing_to_store(self, payload: str) -> None:
        reason, detail = rejection(payload)
        assert reason == Reason.UNSUPPORTED_VALUE
        assert "all metrics are null" in detail

    def test_alone_in_a_reading_of_a_backlog_leaves_the_other_readings(self) -> None:
        assert decode('[{"a":null,"ts":1769860800},{"a":2,"ts":1769860801}]') == [
            Measurement("a", NOON + 1_000_000, 2.0)
        ]


class TestArray:
    def test_is_metrics_named_by_position(self) -> None:
        assert values('{"phase":[230.1,true,"x"],"b":{"c":[1]}}') == {
            "phase.0": 230.1,
            "phase.1": True,
            "phase.2": "x",
            "b.c.0": 1.0,
        }

    def test_holds_sixty_four_elements(self) -> None:
        assert values(orjson.dumps({"a": list(range(64))}).decode()) == {f"a.{n}": float(n) for n in range(64)}
        reason, detail = rejection(orjson.dumps({"a": list(range(65))}))
        assert reason == Reason.TOO_LARGE
        assert "'a' is an array of 65 elements; at most 64" in detail

    def test_without_elements_is_no_metric(self) -> None:
        assert values('{"a":[],"b":1}') == {"b": 1.0}
        assert rejection('{"a":[]}') == (Reason.MALFORMED_PAYLOAD, "the object has no metrics")

    @pytest.mark.parametrize("payload", ['{"a":[1,2],"a.1":3}', '{"a.0":1,"a":[2]}', '{"a":[1],"a":[2]}'])
    def test_takes_no_name_that_is_taken(self, payload: str) -> None:
        assert rejection(payload)[0] == Reason.MALFORMED_PAYLOAD


class TestInvalidMetric:
    @pytest.mark.parametrize("name", ["", "a\nb", "\0", "a\x7f", "a\x85b", "x" * 201])
    def test_is_rejected(self, name: str) -> None:
        assert rejection(orjson.dumps({name: 1}))[0] == Reason.INVALID_METRIC

    def test_the_joined_name_counts(self) -> None:
        assert rejection(orjson.dumps({"a" * 100: {"b" * 100: 1}}))[0] == Reason.INVALID_METRIC


class TestTooLarge:
    def test_payload(self) -> None:
        padded = b'{"a":1' + b" " * (262_144 - 7) + b"}"
        assert decode(padded) == [Measurement("a", RECEIVED_AT, 1.0)]
        assert rejection(padded + b" ")[0] == Reason.TOO_LARGE

    def test_nesting(self) -> None:
        assert rejection('{"a":' * 9 + "1" + "}" * 9)[0] == Reason.TOO_LARGE
        assert rejection('{"a":' * 1000 + "1" + "}" * 1000)[0] == Reason.TOO_LARGE

    def test_metrics(self) -> None:
        assert rejection(orjson.dumps({f"m{number}": 1 for number in range(1001)}))[0] == Reason.TOO_LARGE

    def test_text(self) -> None:
        assert values(orjson.dumps({"a": "x" * 4096}).decode()) == {"a": "x" * 4096}
        assert rejection(orjson.dumps({"a": "x" * 4097}))[0] == Reason.TOO_LARGE


class TestOtherNamesOfTheTime:
    @pytest.mark.parametrize("name", ["time", "timestamp"])
    @pytest.mark.parametrize("value", ["1769860800", '"2026-01-31T12:00:00Z"', "1769860800000"])
    def test_are_the_time_where_ts_is_missing(self, name: str, value: str) -> None:
        assert decode(f'{{"{name}":{value},"a":1}}') == [Measurement("a", NOON, 1.0)]

    def test_are_metrics_beside_ts_and_below_the_top(self) -> None:
        assert values('{"ts":1769860800,"time":35.5,"timestamp":"x"}') == {"time": 35.5, "timestamp": "x"}
        assert values('{"run":{"time":35.5}}') == {"run.time": 35.5}
        assert values('{"time":{"total":35.5},"timestamp":[1]}') == {"time.total": 35.5, "timestamp.0": 1.0}

    def test_that_are_null_tell_no_time(self) -> None:
        assert decode('{"time":null,"a":1}') == [Measurement("a", RECEIVED_AT, 1.0)]

    def test_may_both_be_there_when_they_agree(self) -> None:
        assert decode('{"time":1769860800,"timestamp":"2026-01-31T12:00:00Z","a":1}') == [Measurement("a", NOON, 1.0)]
        assert rejection('{"time":1769860800,"timestamp":1769860801,"a":1}') == (
            Reason.INVALID_TIME,
            "time and timestamp tell different times; send one of them, or ts as well",
        )

    def test_serve_the_readings_of_a_backlog(self) -> None:
        assert decode('[{"a":1,"time":1769860800},{"a":2,"timestamp":1769860801}]') == [
            Measurement("a", NOON, 1.0),
            Measurement("a", NOON + 1_000_000, 2.0),
        ]

    @pytest.mark.parametrize(
        ("value", "reason", "said"),
        [
            ("12.5", Reason.IMPLAUSIBLE_TIME, "1970-01-01T00:00:12.500000Z, before 2000"),
            ('"12:30"', Reason.INVALID_TIME, "time '12:30' is not a time"),
            ("true", Reason.INVALID_TIME, "time True is not a time"),
        ],
    )
    def test_that_are_no_times_are_said_to_stand_in_for_ts(self, value: str, reason: Reason, said: str) -> None:
        found, detail = rejection(f'{{"a":1,"time":{value}}}')
        assert found == reason
        assert said in detail
        assert "without ts, time is the time of the measurement" in detail


class TestTime:
    @pytest.mark.parametrize(
        ("timestamp", "said"),
        [
            ('"2026-01-31T12:00:00"', "has no time zone; end it with Z for UTC, or with an offset such as +01:00"),
            ('"2026-01-31 12:00"', "has no time zone"),
            ('"2026-01-31"', "is a date without a time of day"),
            ('"2026-01-31T12:00:00+0100"', "has an offset without a colon"),
            ('"1769860800"', "is a number in quotes"),
            ("null", "is null; leave it out"),
            ('"yesterday"', "is not a time"),
        ],
    )
    def test_that_can_not_be_read_is_said_with_what_to_write(self, timestamp: str, said: str) -> None:
        assert said in rejection(f'{{"a":1,"ts":{timestamp}}}')[1]

    @pytest.mark.parametrize(
        "timestamp",
        [
            "1769860800",
            "1769860800.0",
            "1769860800000",
            "1769860800000.0",
            "1769860800000000",
            "1769860800000000000",
            "1.7698608e9",
            "1.7698608e18",
            '"2026-01-31T12:00:00Z"',
            '"2026-01-31t12:00:00z"',
            '"2026-01-31 12:00:00.000Z"',
            '"2026-01-31T13:30:00+01:30"',
            '"2026-01-31T00:00:00-12:00"',
            '"2026-01-31T12:00:00-00:00"',
            r'"2026-01-31T12\u003a00:00Z"',
        ],
    )
    def test_the_same_instant_in_every_notation(self, timestamp: str) -> None:
        assert time_of(timestamp) == NOON

    @pytest.mark.parametrize(
        ("timestamp", "microseconds"),
        [
            ("1769860800.123456", 123_456),
            ("1769860800.1234567", 123_456),
            ("1769860800123.999", 123_999),
            ("1769860800123456999", 123_456),
            ('"2026-01-31T12:00:00.1Z"', 100_000),
            ('"2026-01-31T12:00:00.123456999999Z"', 123_456),
        ],
    )
    def test_what_is_finer_than_a_microsecond_is_cut_off(self, timestamp: str, microseconds: int) -> None:
        assert time_of(timestamp) == NOON + microseconds

    @pytest.mark.parametrize(
        ("text", "same_as"),
        [
            ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
            ("2016-12-31T23:59:60.5Z", datetime(2017, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
            ("1990-12-31T15:59:60-08:00", None),  # RFC 3339's own example, before 2000
            ("2012-07-01T08:59:60+09:00", datetime(2012, 7, 1, tzinfo=UTC)),
        ],
    )
    def test_a_leap_second_is_the_first_second_of_the_next_month(self, text: str, same_as: datetime | None) -> None:
        if same_as is None:
            assert rejection(f'{{"a":1,"ts":"{text}"}}') == (
                Reason.IMPLAUSIBLE_TIME,
                f"ts '{text}' is 1991-01-01T00:00:00Z, before 2000: is the device's clock set?",
            )
        else:
            assert time_of(f'"{text}"') == round(same_as.timestamp() * 1_000_000)

    @pytest.mark.parametrize(
        "timestamp",
        [
            "null",
            "true",
            "[]",
            "{}",
            '""',
            '"yesterday"',
            '"1769860800"',
            '"2026-01-31"',
            '"2026-01-31T12:00Z"',
            '"2026-01-31T12:00:00"',
            '"2026-01-31T12:00:00+0100"',
            '"2026-01-31T12:00:00,5Z"',
            '"2026-01-31T24:00:00Z"',
            '"2026-01-31T12:00:61Z"',
            '"2026-01-31T12:00:60Z"',
            '"2026-01-30T23:59:60Z"',
            '"2026-02-30T12:00:00Z"',
            '"0000-01-01T00:00:00Z"',
            '"9999-12-31T23:59:60Z"',
            '"2026-01-31T12:00:00+24:00"',
            '"2026-W05-6T12:00:00Z"',
            '"\N{FULLWIDTH DIGIT TWO}026-01-31T12:00:00Z"',
            "1e20",
            "1e300",
            "-1e20",
            "123456789012345678901234567890",
        ],
    )
    def test_what_is_no_time_is_invalid(self, timestamp: str) -> None:
        assert rejection(f'{{"a":1,"ts":{timestamp}}}')[0] == Reason.INVALID_TIME

    @pytest.mark.parametrize(
        ("timestamp", "named"),
        [
            ("0", "1970-01-01T00:00:00Z"),
            ("-1", "1969-12-31T23:59:59Z"),
            ("946684799.999999", "1999-12-31T23:59:59.999999Z"),
            ("4102444800", "2100-01-01T00:00:00Z"),
            ('"1999-12-31T23:59:59Z"', "1999-12-31T23:59:59Z"),
            ('"9999-12-31T23:59:59-12:00"', "from 1970"),
            ("-99999999999999999", "from 1970"),
        ],
    )
    def test_an_absurd_clock_is_named(self, timestamp: str, named: str) -> None:
        reason, detail = rejection(f'{{"a":1,"ts":{timestamp}}}')
        assert reason == Reason.IMPLAUSIBLE_TIME
        assert named in detail

    def test_the_limits_themselves_are_plausible(self) -> None:
        assert time_of("946684800") == 946_684_800_000_000
        assert time_of(str(RECEIVED_AT + DAY)) == RECEIVED_AT + DAY
        assert rejection(f'{{"a":1,"ts":{RECEIVED_AT + DAY + 1}}}')[0] == Reason.IMPLAUSIBLE_TIME
