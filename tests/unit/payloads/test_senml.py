"""SenML, RFC 8428."""

import json
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.formats import senml
from sens_payloads.formats.senml import Settings, unwrap
from sens_payloads.formats.senml_records import CBOR_LABELS
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "senml.json").read_text())["cases"]
NOON = 1_788_523_200_000_000  # 2026-09-04T12:00:00Z
URN = "urn:dev:ow:10e2073a01080063:"


def microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def bodies(case: dict[str, Any]) -> list[bytes]:
    return [case["body"].encode()] + ([bytes.fromhex(case["cbor_hex"])] if "cbor_hex" in case else [])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_vector(case: dict[str, Any]) -> None:
    received_at = microseconds(case["received_at"])
    for body in bodies(case):
        if "error" in case:
            with pytest.raises(RejectedMessageError) as caught:
                unwrap(Received(body, received_at), Settings(device="d1"))
            assert caught.value.reason == case["error"]
            continue
        found = [
            {
                "name": reading.name + reading.suffix,
                "unit": reading.unit,
                "time": (reading.time or 0) + received_at * reading.is_relative,
                "value": reading.value,
            }
            for reading in senml.readings(body)
        ]
        assert found == [reading | {"time": microseconds(reading["time"])} for reading in case["readings"]]


def read(pack: object, **settings: Any) -> Unwrapped:
    return unwrap(Received(json.dumps(pack).encode(), NOON), Settings(**settings))


def refusal(pack: object, **settings: Any) -> RejectedMessageError:
    with pytest.raises(RejectedMessageError) as caught:
        read(pack, **settings)
    return caught.value


class TestNames:
    def test_of_devices_are_in_records(self) -> None:
        pack = [{"bn": URN, "n": "voltage", "u": "V", "v": 120.1}, {"n": "current", "u": "A", "v": 1.2}]
        device = "10e2073a01080063"
        assert read(pack) == [
            Uplink(device, None, {"voltage": 120.1, "current": 1.2}, units={"voltage": "V", "current": "A"})
        ]

    @pytest.mark.parametrize(
        ("name", "device", "metric"),
        [
            ("urn:dev:mac:0024befffe804ff1_temperature", "0024befffe804ff1", "temperature"),
            ("urn:dev:mac:0024beFFFE804ff1/a:b", "0024befffe804ff1", "a:b"),
            ("urn:dev:os:32473-123456:t", "32473-123456", "t"),
            ("press-7:oil:t", "press-7:oil", "t"),
            ("plant/press-7/t", "plant/press-7", "t"),
        ],
    )
    def test_are_cut(self, name: str, device: str, metric: str) -> None:
        found = read([{"n": name, "v": 1}], other_characters="replace")
        assert found == [Uplink(device.replace(":", "_").replace("/", "_"), None, {metric: 1})]

    def test_of_devices_alone_have_units_as_metrics(self) -> None:
        pack = [
            {"bn": "urn:dev:ow:10e2073a01080063", "bu": "%RH", "v": 20.0},
            {"u": "lon", "v": 24.3},
            {"v": 1, "u": ""},
        ]
        found = read(pack)
        assert isinstance(found, list)
        assert found[0].fields == {"%RH": 20.0, "lon": 24.3, "value": 1}

    def test_may_have_units(self) -> None:
        pack = [{"n": "d:pos", "u": "lon", "v": 1}, {"n": "d:pos", "u": "lat", "v": 2}]
        error = refusal(pack)
        assert error.reason == Reason.CONFLICTING_VALUE
        assert error.detail.startswith("record 2: 'pos' of 'd' has another value")
        found = read(pack, metric="name_and_unit")
        assert isinstance(found, list)
        assert found[0].fields == {"pos.lon": 1, "pos.lat": 2}

    def test_are_metrics_where_the_source_says_the_device(self) -> None:
        assert read([{"n": "a:b", "v": 1}], device="d1") == [Uplink("d1", None, {"a:b": 1})]
        received = Received(b'[{"n": "t", "v": 1}]', NOON, "senml/70-B3-D5-7E-D0-06-53-C8")
        assert unwrap(received, Settings(topic="senml/{device}")) == [Uplink("70b3d57ed00653c8", None, {"t": 1})]
        with pytest.raises(RejectedMessageError, match="invalid_topic: the topic 'senml/x'"):
            unwrap(msgspec.structs.replace(received, topic="senml/x"), Settings(topic="other/{device}"))

    def test_that_have_no_device_are_refused(self) -> None:
        error = refusal([{"n": "d:a", "v": 1}, {"bn": "", "n": "temperature", "v": 1}])
        assert error.detail.startswith("record 2: the name 'temperature' has no : or /")


class TestTimes:
    def test_are_exact(self) -> None:
        pack = [
            {"bn": "d:", "bt": 1788523200.1, "n": "a", "v": 1},
            {"n": "b", "t": -0.1, "v": 1},
            {"n": "c", "t": 0.2000001, "v": 2},
        ]
        assert read(pack) == [
            Uplink("d", NOON + 100_000, {"a": 1}),
            Uplink("d", NOON, {"b": 1}),
            Uplink("d", NOON + 300_000, {"c": 2}),
        ]

    def test_are_relative_below_a_limit(self) -> None:
        assert "more than a day after the receipt" in refusal([{"n": "d:a", "t": 2**28 - 1, "v": 1}]).detail
        assert "is 1978-07-04T21:24:16Z, before 2000" in refusal([{"n": "d:a", "t": 2**28, "v": 1}]).detail

    def test_are_bounded(self) -> None:
        assert refusal([{"n": "d:a", "t": 1e300, "v": 1}]).reason == Reason.INVALID_TIME
        error = refusal([{"n": "d:a", "t": -1e9, "v": 1}])
        assert error.reason == Reason.IMPLAUSIBLE_TIME
        assert "its time -1000000000.0 s is 1994-" in error.detail


class TestValues:
    def test_are_added_as_decimal_numbers(self) -> None:
        pack = [{"bn": "d:", "bv": 20.1, "bs": 0.1, "n": "a", "v": 1.3, "s": 0.2}]
        assert read(pack) == [Uplink("d", None, {"a": 21.4, "a.sum": 0.3})]

    def test_that_are_no_numbers_are_refused(self) -> None:
        body = cbor2.dumps([{0: "d:a", 2: float("nan")}])
        with pytest.raises(RejectedMessageError, match="unsupported_value: record 1: v is nan"):
            unwrap(Received(body, NOON), Settings())
        assert refusal([{"n": "d:a", "v": 2**53 + 1}]).reason == Reason.UNSUPPORTED_VALUE
        assert refusal([{"n": "d:a", "vs": "x" * 5000}]).reason == Reason.TOO_LARGE

    def test_of_a_pack_may_be_none(self) -> None:
        assert read([{"bn": "d:"}]) == WithoutMeasurements("event")
        assert unwrap(Received(b"", NOON, "t"), Settings()) == WithoutMeasurements("event")

    def test_are_bounded(self) -> None:
        pack = [{"n": "d:a", "t": -number, "v": 1} for number in range(1001)]
        assert refusal(pack).reason == Reason.TOO_LARGE
        assert refusal([{"n": f"d:a{number}", "v": 1} for number in range(1001)]).reason == Reason.TOO_LARGE
        assert refusal([{}] * 10_001).reason == Reason.TOO_LARGE


class TestSettings:
    def test_are_refused_with_what_is_wrong(self) -> None:
        with pytest.raises(ValidationError, match=r"the topic has no \{device\}"):
            Settings(topic="senml/+")
        with pytest.raises(ValidationError):
            Settings.model_validate({"colour": "red"})


RECORDS: st.SearchStrategy[list[dict[str, object]]] = st.lists(
    st.dictionaries(
        st.sampled_from([*CBOR_LABELS.values(), "x", "x_"]),
        st.sampled_from(["d:a", "b", "", 0, 1, -1, 1.5, 10, 2**28, 1788523200, 10**40, True, None, [], {}, "é"]),
        max_size=4,
    ),
    max_size=3,
)
LABELS = {name: label for label, name in CBOR_LABELS.items()}


class TestAnyBytes:
    @given(RECORDS)
    def test_records_give_uplinks_or_a_rejection_alike_as_json_and_cbor(self, pack: list[dict[str, object]]) -> None:
        outcomes = []
        labelled = [{LABELS.get(key, key): value for key, value in record.items()} for record in pack]
        for body in (json.dumps(pack).encode(), cbor2.dumps(labelled)):
            try:
                outcomes.append(str(unwrap(Received(body, NOON), Settings())))
            except RejectedMessageError as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1] or "10000000000000000000000000000000000000000" in str(pack)

    @given(st.sampled_from(CASES), st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3))
    def test_mutated_vectors_do(self, case: dict[str, Any], at: int, length: int, inserted: bytes) -> None:
        for body in bodies(case):
            mutated = body[:at] + inserted + body[at + length :]
            try:
                unwrap(Received(mutated, NOON), Settings())
            except RejectedMessageError:
                continue

    @given(st.binary(max_size=60))
    def test_any_bytes_do(self, body: bytes) -> None:
        for each in (body, b"\x81" + body):
            try:
                unwrap(Received(each, NOON), Settings(device="d"))
            except RejectedMessageError:
                continue
