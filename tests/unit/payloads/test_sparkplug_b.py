"""Sparkplug B: births, data, what carries no measurements, and bytes that are no payload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_common.errors import RejectedMessageError
from sens_common.names import device_name
from sens_payloads.formats import sparkplug_b
from sens_payloads.formats.sparkplug_b import Settings, birth_in
from sens_payloads.formats.sparkplug_births import NO_BIRTHS, Births, DefinedMetric, KnownBirths, Publisher
from sens_payloads.formats.sparkplug_topics import device_name_of
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements
from support import sparkplug, uplink_vectors
from support.sparkplug import metric, payload
from support.uplink_vectors import Case

TIME = 1785000000123
RECEIVED_AT = TIME * 1000 + 1_000_000
PRESS = Publisher("plant", "line1", "press7")
DDATA = "spBv1.0/plant/DDATA/line1/press7"
DBIRTH = "spBv1.0/plant/DBIRTH/line1/press7"
NBIRTH = "spBv1.0/plant/NBIRTH/line1"

CASES = {case["name"]: case for case in uplink_vectors.cases("sparkplug_b")}


def message(case: Case) -> Received:
    return Received(bytes.fromhex(case["hex"]), RECEIVED_AT, case["topic"])


def unwrap(received: Received, births: Births = NO_BIRTHS) -> Unwrapped:
    return sparkplug_b.unwrap(received, Settings(), births)


def after(*messages: Received) -> KnownBirths:
    births = KnownBirths()
    for received in messages:
        birth = birth_in(received)
        assert birth is not None
        births.learn(birth)
    return births


def uplinks(body: bytes, topic: str = DDATA, births: Births = NO_BIRTHS) -> list[Uplink]:
    answer = unwrap(Received(body, RECEIVED_AT, topic), births)
    assert isinstance(answer, list)
    return answer


def refused(body: bytes, topic: str = DDATA, births: Births = NO_BIRTHS) -> str:
    with pytest.raises(RejectedMessageError) as rejection:
        unwrap(Received(body, RECEIVED_AT, topic), births)
    return str(rejection.value)


class TestVectors:
    @uplink_vectors.parametrized("sparkplug_b")
    def test_a_case_is_unwrapped_as_it_says(self, case: Case) -> None:
        births = after(message(CASES[case["after"]])) if "after" in case else NO_BIRTHS
        if "error" in case:
            with pytest.raises(RejectedMessageError) as rejection:
                unwrap(message(case), births)
            assert rejection.value.reason == case["error"]
            return
        answer = unwrap(message(case), births)
        if "ignored" in case:
            assert answer == WithoutMeasurements(case["ignored"])
            return
        assert isinstance(answer, list)
        assert [
            {"metric": name, "time_ms": (uplink.measured_at or 0) // 1000, "value": value}
            for uplink in answer
            for name, value in (uplink.fields or {}).items()
        ] == case["readings"]


class TestReadings:
    def test_metrics_of_one_time_are_one_uplink(self) -> None:
        first, second = uplinks(
            payload(TIME, metric("a", 1.5), metric("b", 2.5, timestamp=TIME - 10), metric("c", 3.5, timestamp=TIME))
        )
        assert (first.measured_at, first.fields) == (TIME * 1000, {"a": 1.5, "c": 3.5})
        assert (second.measured_at, second.fields) == ((TIME - 10) * 1000, {"b": 2.5})
        assert first.device == "plant.line1.press7"

    def test_historical_values_are_apart_and_say_so(self) -> None:
        first, second = uplinks(payload(TIME, metric("a", 1.5), metric("b", 2.5, historical=True)))
        assert (first.historical, first.fields) == (False, {"a": 1.5})
        assert (second.historical, second.fields) == (True, {"b": 2.5})

    def test_one_name_twice_at_one_time_is_two_uplinks_which_storing_compares(self) -> None:
        answer = uplinks(payload(TIME, metric("a", 1.5), metric("b", 1.0), metric("a", 2.5), metric("b", 3.0)))
        assert [uplink.fields for uplink in answer] == [{"a": 1.5, "b": 1.0}, {"a": 2.5, "b": 3.0}]
        assert len({uplink.measured_at for uplink in answer}) == 1

    def test_without_any_time_the_receipt_is_it(self) -> None:
        (uplink,) = uplinks(payload(None, metric("a", 1.5)))
        assert uplink.measured_at is None

    def test_an_absurd_time_is_refused(self) -> None:
        assert refused(payload(0, metric("a", 1.5))).startswith(
            "implausible_time: the time 0 ms is 1970-01-01T00:00:00Z, before 2000"
        )
        assert refused(payload(TIME + 90_000_000, metric("a", 1.5))).startswith("implausible_time")
        assert refused(payload(2**64 - 1, metric("a", 1.5))).startswith("implausible_time")

    def test_what_is_not_stored_is_counted(self) -> None:
        data_set = metric("d", None, datatype=16) + sparkplug.delimited(17, b"\x08\x01")
        (uplink,) = uplinks(payload(TIME, metric("a", 1.5), data_set, metric("f", b"\x01", datatype=22)))
        assert (uplink.fields, uplink.skipped) == ({"a": 1.5}, 2)
        only_skipped = Received(payload(TIME, data_set), RECEIVED_AT, DDATA)
        assert unwrap(only_skipped) == WithoutMeasurements("skipped")

    def test_transient_metrics_and_control_are_no_measurements(self) -> None:
        body = payload(
            TIME,
            metric("t", 1.5, transient=True),
            metric("Device Control/Reboot", False),
            metric("bdSeq", 1, datatype=8),
        )
        assert unwrap(Received(body, RECEIVED_AT, DDATA)) == WithoutMeasurements("event")

    @pytest.mark.parametrize(
        ("datatype", "value", "number"),
        [
            (1, 128, -128),
            (1, 127, 127),
            (1, 2**32 - 128, -128),
            (2, 2**64 - 1, -1),
            (3, 2**31, -(2**31)),
            (4, 2**63, -(2**63)),
        ],
    )
    def test_two_s_complement(self, datatype: int, value: int, number: int) -> None:
        (uplink,) = uplinks(payload(TIME, metric("i", value, datatype=datatype, long=True)))
        assert uplink.fields == {"i": number}

    @pytest.mark.parametrize(
        ("datatype", "value"), [(1, 256), (1, 2**32 - 129), (2, 65536), (5, 256), (6, 65536), (7, 2**32), (3, 2**32)]
    )
    def test_what_a_datatype_cannot_be_is_refused(self, datatype: int, value: int) -> None:
        assert f"'i' is {value}, which no " in refused(payload(TIME, metric("i", value, datatype=datatype, long=True)))

    @pytest.mark.parametrize(
        ("value", "datatype", "words"),
        [
            (1.5, 3, "has the datatype Int32, but its value is a fraction"),
            (1, 10, "has the datatype Double, but its value is an integer"),
            (True, 12, "has the datatype String, but its value is a boolean"),
            ("a", 11, "has the datatype Boolean, but its value is a text"),
            (1, 99, "has the datatype number 99, but its value is an integer"),
        ],
    )
    def test_a_value_of_another_kind_than_its_datatype(self, value: float | str, datatype: int, words: str) -> None:
        assert words in refused(payload(TIME, metric("i", value, datatype=datatype)))


class TestBirths:
    birth = Received(
        payload(TIME, metric("temperature", 21.5, alias=1), metric("count", 5, alias=2, datatype=1)),
        RECEIVED_AT,
        DBIRTH,
    )

    def test_say_names_aliases_and_datatypes(self) -> None:
        birth = birth_in(self.birth)
        assert birth is not None
        assert birth.publisher == PRESS
        assert birth.born_at == TIME
        assert birth.metrics == {1: DefinedMetric("temperature", 10), 2: DefinedMetric("count", 1)}
        assert birth.datatypes == {"temperature": 10, "count": 1}

    def test_of_an_edge_node_say_the_session(self) -> None:
        birth = birth_in(Received(payload(TIME, metric("bdSeq", 7, datatype=4)), RECEIVED_AT, NBIRTH))
        assert birth is not None
        assert (birth.bd_seq, birth.publisher) == (7, Publisher("plant", "line1", ""))

    def test_are_known_even_when_their_values_are_refused(self) -> None:
        body = payload(TIME, metric("a", float("nan"), alias=1))
        assert refused(body, DBIRTH).startswith("unsupported_value")
        births = after(Received(body, RECEIVED_AT, DBIRTH))
        (uplink,) = uplinks(payload(TIME, metric(None, 2.5, alias=1)), births=births)
        assert uplink.fields == {"a": 2.5}

    def test_tell_the_datatype_of_data_without_one(self) -> None:
        births = after(self.birth)
        (uplink,) = uplinks(payload(TIME, metric(None, 255, alias=2, datatype=0)), births=births)
        assert uplink.fields == {"count": -1}
        (by_name,) = uplinks(payload(TIME, metric("count", 254, datatype=0)), births=births)
        assert by_name.fields == {"count": -2}

    def test_are_needed_for_an_integer_without_a_datatype(self) -> None:
        assert refused(payload(TIME, metric("count", 254, datatype=0))) == (
            "unknown_alias: 'count' is an integer without its datatype, which only its birth tells; let the edge node send its births"
            " again (Node Control/Rebirth); what they explain is replayed then"
        )

    def test_of_another_device_do_not_count(self) -> None:
        body = payload(TIME, metric(None, 1.5, alias=1))
        sentence = refused(body, "spBv1.0/plant/DDATA/line1/press8", after(self.birth))
        assert sentence.startswith(
            "unknown_alias: a metric is named by the alias 1 alone, whose birth has not come; let"
        )

    def test_of_the_edge_node_make_those_of_its_devices_void(self) -> None:
        body = payload(TIME, metric(None, 1.5, alias=1))
        node = Received(payload(TIME, metric("bdSeq", 8, datatype=4)), RECEIVED_AT, NBIRTH)
        assert refused(body, births=after(self.birth, node)).startswith("unknown_alias")
        assert uplinks(body, births=after(node, self.birth))[0].fields == {"temperature": 1.5}

    def test_replace_the_ones_before(self) -> None:
        again = Received(payload(TIME, metric("pressure", 1.5, alias=1)), RECEIVED_AT, DBIRTH)
        (uplink,) = uplinks(payload(TIME, metric(None, 2.5, alias=1)), births=after(self.birth, again))
        assert uplink.fields == {"pressure": 2.5}

    def test_with_one_alias_for_two_metrics_are_refused(self) -> None:
        body = payload(TIME, metric("a", 1.5, alias=1), metric("b", 1.5, alias=1))
        with pytest.raises(RejectedMessageError, match="'a' and 'b' have the alias 1"):
            birth_in(Received(body, RECEIVED_AT, DBIRTH))

    def test_other_messages_are_none(self) -> None:
        for topic in (DDATA, "spBv1.0/plant/NDEATH/line1", "STATE/scada"):
            assert birth_in(Received(payload(TIME, metric("a", 1.5)), RECEIVED_AT, topic)) is None


class TestTopics:
    @pytest.mark.parametrize(
        "topic",
        [
            "",
            "spBv1.0",
            "spBv1.0/plant/DDATA/line1",
            "spBv1.0/plant/NDATA/line1/press7",
            "spBv1.0/plant/DDATA//press7",
            "spBv1.0/plant/XDATA/line1",
            "spBv1.0/plant/DDATA/line1/press7/more",
            "spAv1.0/plant/NDATA/line1",
            "x" * 3000,
        ],
    )
    def test_others_are_refused(self, topic: str) -> None:
        assert refused(b"", topic).startswith("invalid_topic")

    def test_states_of_hosts_of_both_versions(self) -> None:
        for topic in ("spBv1.0/STATE/scada", "STATE/scada"):
            assert unwrap(Received(b"ONLINE", RECEIVED_AT, topic)) == WithoutMeasurements("event")


class TestDeviceNames:
    def test_plain_names_are_joined(self) -> None:
        assert device_name_of(PRESS) == "plant.line1.press7"
        assert device_name_of(Publisher("plant", "line1", "")) == "plant.line1"

    def test_others_keep_what_can_be_kept(self) -> None:
        assert device_name_of(Publisher("Sparkplug B Devices", "Raspberry Pi", "Pibrella")) == (
            "Sparkplug_B_Devices.Raspberry_Pi.Pibrella-4b4b3c2a4df8"
        )

    def test_a_dot_in_a_name_makes_no_two_equal(self) -> None:
        assert device_name_of(Publisher("a.b", "c", "")) != device_name_of(Publisher("a", "b.c", ""))
        assert device_name_of(Publisher("a", "b", "c")) != device_name_of(Publisher("a", "b.c", ""))

    @given(st.tuples(*[st.text(min_size=1, max_size=80)] * 3))
    def test_all_are_names(self, names: tuple[str, str, str]) -> None:
        name = device_name_of(Publisher(*names))
        assert device_name(name) == name


class TestAnyBytes:
    topics = st.sampled_from([DDATA, DBIRTH, NBIRTH, "spBv1.0/plant/NDATA/line1"])

    @given(st.binary(max_size=120), topics)
    def test_give_uplinks_none_or_a_rejection(self, body: bytes, topic: str) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT, topic))

    @given(sparkplug.nearly_payloads([bytes.fromhex(case["hex"]) for case in CASES.values()]), topics)
    def test_nearly_right_payloads_too(self, body: bytes, topic: str) -> None:
        births = after(message(CASES["DBIRTH names, aliases and values"]))
        uplink_vectors.check_law(lambda received: unwrap(received, births), Received(body, RECEIVED_AT, topic))
        uplink_vectors.check_law(
            lambda received: [] if birth_in(received) else unwrap(received), Received(body, RECEIVED_AT, DDATA)
        )

    @given(sparkplug.payloads())
    def test_of_metrics_of_all_kinds(self, body: bytes) -> None:
        uplink_vectors.check_law(unwrap, Received(body, RECEIVED_AT, DDATA))

    def test_cut_off_at_each_byte(self) -> None:
        body = bytes.fromhex(CASES["DBIRTH names, aliases and values"]["hex"])
        whole = uplinks(body)
        for end in range(len(body)):
            uplink_vectors.check_law(unwrap, Received(body[:end], RECEIVED_AT, DDATA))
            assert unwrap_or_none(body[:end]) != whole or end >= len(body) - 2  # seq alone is missing


def unwrap_or_none(body: bytes) -> Unwrapped | None:
    try:
        return unwrap(Received(body, RECEIVED_AT, DDATA))
    except RejectedMessageError:
        return None


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (
                b'{"a":1}',
                "malformed_payload: the payload is not Sparkplug B, which is Protocol Buffers: byte 0 begins no field",
            ),
            (b"\x08\xff", "it ends in the middle, after 2 bytes; was it cut off?"),
            (b"\x08" + b"\xff" * 11, "byte 10 is the end of a number with more than 64 bits"),
            (b"\x12\x03\x0a\x01\xff", "a text in it is not UTF-8"),
            (b"\x12\x02\x0a\x05abcde", "it ends in the middle"),
            (b"\x12\x03\x69\x00\x00" + b"\x00" * 20, "it ends in the middle"),
            (b"\x12\x00", "a metric has neither name nor alias"),
        ],
    )
    def test_of_bytes(self, body: bytes, sentence: str) -> None:
        assert sentence in refused(body)

    def test_of_too_many(self) -> None:
        assert refused(b"\x12\x00" * 10_001).startswith("too_large: the payload has more than 10000 metrics")
        assert refused(b"\x00" * 262_145).startswith("too_large: the message has 262145 bytes")
