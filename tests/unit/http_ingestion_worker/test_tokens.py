"""The token of Actility ThingPark's reports."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_http_ingestion_worker.tokens import Signature, signature_of
from support.signed_reports import BODY, KEY, PARAMETERS, TOKEN, query


def token_of(members: str) -> str:
    signed = "&".join(f"{name}={value}" for name, value in PARAMETERS.items())
    return sha256(f"{members}{signed}{KEY}".encode()).hexdigest()


class TestSignature:
    @pytest.mark.parametrize(
        "sent", [query(), query(token=TOKEN.upper()), query().replace("%2B", "+"), f"{query()}&Token=other"]
    )
    def test_of_the_network_is_right(self, sent: str) -> None:
        assert signature_of(BODY, sent, [KEY]) == Signature.RIGHT
        assert signature_of(BODY, sent, [KEY.replace("0", "1"), KEY]) == Signature.RIGHT

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_of_an_address_that_was_changed_is_wrong(self, name: str) -> None:
        assert signature_of(BODY, query(PARAMETERS | {name: PARAMETERS[name] + "1"}), [KEY]) == Signature.WRONG
        left_out = {key: value for key, value in PARAMETERS.items() if key != name}
        assert signature_of(BODY, query(left_out), [KEY]) == Signature.WRONG

    def test_of_another_frame_or_key_is_wrong(self) -> None:
        assert signature_of(BODY.replace(b"03670110", b"03670111"), query(), [KEY]) == Signature.WRONG
        assert signature_of(BODY, query(), [KEY.replace("0", "1")]) == Signature.WRONG
        assert signature_of(BODY, query(token="ä"), [KEY]) == Signature.WRONG

    @pytest.mark.parametrize("sent", ["", query(token=""), "LrnDevEui=1&Token"])
    def test_may_be_missing(self, sent: str) -> None:
        assert signature_of(BODY, sent, [KEY]) == Signature.MISSING

    @pytest.mark.parametrize(
        ("kind", "members", "signed"),
        [
            ("uplink", {"FCntUp": 7, "payload_hex": "00d7"}, "71AB00700d7"),
            ("location", {"DevLAT": "47.4"}, "71ab0"),
            ("downlink_Sent", {"FPort": "1", "FCntDn": "2", "FCntUp": "7"}, "71AB012"),
        ],
    )
    def test_covers_the_members_of_each_report(self, kind: str, members: dict[str, object], signed: str) -> None:
        body = json.dumps({f"DevEUI_{kind}": {"CustomerID": 7, "DevEUI": "1AB0", **members}}).encode()
        right = query(token=token_of(signed))
        assert signature_of(body, right, [KEY]) == Signature.RIGHT
        assert signature_of(body.replace(b"1AB0", b"1AB1"), right, [KEY]) == Signature.WRONG

    def test_of_a_report_that_is_not_stored_does_not_cover_one_that_is(self) -> None:
        signed = {"CustomerID": "7", "DevEUI": "1AB0", "FPort": "1", "FCntDn": "2"}
        foisted = {"DevEUI_downlink_Sent": signed, "DevEUI_location": {"DevEUI": "1AB0", "DevLAT": 1, "DevLON": 1}}
        assert signature_of(json.dumps(foisted).encode(), query(token=token_of("71AB012")), [KEY]) == Signature.WRONG

    def test_of_what_is_no_such_report_is_unknown(self) -> None:
        for body in (b'{"DevEUI_notification": {}}', b"<DevEUI_uplink/>", b"[" * 100_000, b'{"DevEUI_uplink": 1}'):
            assert signature_of(body, query(), [KEY]) == Signature.UNKNOWN

    @given(st.binary(max_size=200), st.text(max_size=200))
    def test_of_anything_else_is_never_right(self, body: bytes, sent: str) -> None:
        assert signature_of(body, sent, [KEY]) != Signature.RIGHT
