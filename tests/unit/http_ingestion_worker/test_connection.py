"""Requests on one connection: whose they are, which are refused before their body, and in which order they are answered."""

import base64
import gzip
import json
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sens_http_ingestion_worker.keys import IngestKeys
from sens_http_ingestion_worker.refusals import not_stored
from sens_http_ingestion_worker.settings import IngestionHttpSettings
from support.posting import EXPIRED, NATIVE, ONE_DEVICE, PUSH, Post, key_named, request

SOURCE = "/ingest/v1/demo/push"
DEVICE = "/sens/v1/demo/kitchen/telemetry"
BASIC_PASSWORD = base64.b64encode(f"node-1:{PUSH}".encode()).decode()
BASIC_USER = base64.b64encode(f"{PUSH}:".encode()).decode()

VISIBLE = string.ascii_letters + string.digits + string.punctuation


class TestKey:
    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            (SOURCE, {"Authorization": f"Bearer {PUSH}"}),
            (SOURCE, {"authorization": f"bearer {PUSH}"}),
            (SOURCE, {"Authorization": PUSH}),
            (SOURCE, {"Authorization": f"Basic {BASIC_PASSWORD}"}),
            (SOURCE, {"Authorization": f"Basic {BASIC_USER}"}),
            (SOURCE, {"X-Api-Key": PUSH}),
            (SOURCE, {"X-Anything": f"Token {PUSH}"}),
            (SOURCE, {"Authorization": "Digest x", "X-Api-Key": PUSH}),
            (f"{SOURCE}/{PUSH}", {}),
            (f"{SOURCE}/kitchen/{PUSH}?event=up", {}),
            (f"/api/v1/{PUSH}/telemetry", {}),
        ],
    )
    def test_is_taken_from_wherever_a_sender_can_put_it(self, path: str, headers: dict[str, str]) -> None:
        assert Post().post(path, headers=headers) == 204

    @pytest.mark.parametrize(
        ("path", "headers", "code"),
        [
            (SOURCE, {}, "no_key"),
            (SOURCE, {"Authorization": "Bearer nonsense"}, "unknown_key"),
            (SOURCE, {"Authorization": f"Bearer {key_named('u')}"}, "unknown_key"),
            (SOURCE, {"Authorization": f"Bearer {EXPIRED}"}, "unknown_key"),
            (SOURCE, {"Authorization": "Basic !!"}, "no_key"),
            ("/api/v1/nobody/telemetry", {}, "unknown_key"),
        ],
    )
    def test_that_is_none_is_refused_in_plain_words(self, path: str, headers: dict[str, str], code: str) -> None:
        post = Post()

        assert post.post(path, b"secret body", headers) == 401
        answer = post.transport.written
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert document["code"] == code
        assert document["detail"].startswith(("the request carries no ingest key", "the ingest key is unknown"))
        assert b"www-authenticate: bearer" in answer.lower()
        assert post.taker.submissions == []

    @pytest.mark.parametrize(
        ("path", "key"),
        [
            ("/ingest/v1/demo/other", PUSH),
            ("/ingest/v1/other/push", PUSH),
            (DEVICE, PUSH),
            (SOURCE, NATIVE),
            ("/sens/v1/demo/cellar/telemetry", ONE_DEVICE),
            (f"/api/v1/{NATIVE}/telemetry", ""),
        ],
    )
    def test_of_another_address_is_refused(self, path: str, key: str) -> None:
        assert Post().post(path, key=key) == 403

    def test_is_not_refused_before_keys_are_known(self) -> None:
        post = Post()
        post.reception._keys = IngestKeys()
        assert post.post(SOURCE, key=PUSH) == 503

    def test_that_was_revoked_is_refused_on_the_same_connection(self) -> None:
        post = Post()
        assert post.post(SOURCE, key=PUSH) == 204
        post.keys.follow({})
        assert post.post(SOURCE, key=PUSH) == 401


class TestTopic:
    @pytest.mark.parametrize(
        ("path", "key", "topic"),
        [
            (SOURCE, PUSH, "ingest/v1/demo/push"),
            (f"{SOURCE}/", PUSH, "ingest/v1/demo/push"),
            (f"{SOURCE}?event=up", PUSH, "ingest/v1/demo/push?event=up"),
            (f"{SOURCE}/kitchen/air", PUSH, "ingest/v1/demo/push/kitchen/air"),
            (f"{SOURCE}/{PUSH}?LrnDevEui=1&Token=2", "", "ingest/v1/demo/push?LrnDevEui=1&Token=2"),
            (DEVICE, NATIVE, "sens/v1/demo/kitchen/telemetry"),
            (DEVICE, ONE_DEVICE, "sens/v1/demo/kitchen/telemetry"),
            (f"/api/v1/{ONE_DEVICE}/telemetry", "", "sens/v1/demo/kitchen/telemetry"),
            (f"/api/v1/{PUSH}/telemetry", "", "ingest/v1/demo/push"),
        ],
    )
    def test_says_what_the_address_said_without_its_key(self, path: str, key: str, topic: str) -> None:
        post = Post()

        assert post.post(path, b"body", key=key) == 204
        assert [(each.topic, each.payload) for each in post.taker.submissions] == [(topic, b"body")]

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/", 404),
            ("/ingest/v1/demo", 404),
            ("/api/v1/devices", 404),
            ("/sens/v1/demo/K%C3%BCche/telemetry", 404),
            (f"{SOURCE}?{'q' * 1100}", 414),
            (f"/{'x' * 3000}", 414),
        ],
    )
    def test_needs_an_address_that_takes_messages(self, path: str, status: int) -> None:
        assert Post().post(path, key=NATIVE) == status


class TestMethod:
    def test_is_post_or_put(self) -> None:
        post = Post()
        post.feed(request(SOURCE, key=PUSH, method="PUT") + request(SOURCE, key=PUSH, method="GET"))
        assert post.answers == [204, 405]


class TestBody:
    @pytest.mark.parametrize(
        ("coding", "packed"),
        [
            ("gzip", gzip.compress(b"body", mtime=0)),
            ("gzip", gzip.compress(b"bo", mtime=0) + gzip.compress(b"dy", mtime=0)),
            ("deflate", zlib.compress(b"body")),
            ("deflate", zlib.compress(b"body")[2:-4]),
            ("identity", b"body"),
        ],
    )
    def test_is_unpacked(self, coding: str, packed: bytes) -> None:
        post = Post()
        assert post.post(SOURCE, packed, {"Content-Encoding": coding}, PUSH) == 204
        assert post.taker.submissions[0].payload == b"body"

    @pytest.mark.parametrize(
        ("coding", "packed", "status"),
        [
            ("gzip", b"no gzip", 400),
            ("gzip", gzip.compress(b"body", mtime=0)[:-3], 400),
            ("gzip", gzip.compress(b"body", mtime=0) + b"rest", 400),
            ("deflate", zlib.compress(b"body") + b"rest", 400),
            ("br", b"body", 415),
            ("gzip, gzip", b"body", 415),
        ],
    )
    def test_that_is_not_packed_as_it_says_is_refused(self, coding: str, packed: bytes, status: int) -> None:
        post = Post()
        assert post.post(SOURCE, packed, {"Content-Encoding": coding}, PUSH) == status
        assert post.taker.submissions == []
        assert post.reception.bytes_held == 0

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    def test_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(self, coding: str) -> None:
        bomb = b"0" * 100_000_000
        packed = gzip.compress(bomb, 1) if coding == "gzip" else zlib.compress(bomb, 1)
        post = Post(IngestionHttpSettings(max_body_bytes=1_000_000))
        assert post.post(SOURCE, packed, {"Content-Encoding": coding}, PUSH) == 413
        assert post.reception.bytes_held == 0

    def test_of_members_that_hold_nothing_is_refused(self) -> None:
        post = Post()
        assert post.post(SOURCE, gzip.compress(b"", mtime=0) * 200, {"Content-Encoding": "gzip"}, PUSH) == 400

    def test_that_says_it_is_too_large_is_refused_without_it(self) -> None:
        post = Post()
        post.feed(request(SOURCE, b"", {"content-length": "2000000"}, PUSH))
        assert post.answers == [413]
        assert post.transport.closed

    def test_in_chunks_is_refused_once_it_is_too_large(self) -> None:
        post = Post()
        start = request(SOURCE, b"", {"transfer-encoding": "chunked"}, PUSH).replace(b"content-length: 0\r\n", b"")
        post.feed(start + (b"1000\r\n" + b"x" * 0x1000 + b"\r\n") * 3)
        assert post.answers == [413]

    def test_in_chunks_is_taken(self) -> None:
        post = Post()
        start = request(SOURCE, b"", {"transfer-encoding": "chunked"}, PUSH).replace(b"content-length: 0\r\n", b"")
        post.feed(start + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n")
        assert post.taker.submissions[0].payload == b"body"

    def test_has_its_share_of_the_memory(self) -> None:
        post = Post(IngestionHttpSettings(max_body_bytes=900_000, max_bodies_bytes=1_000_000))
        post.feed(request(SOURCE, b"", {"content-length": "300000"}, PUSH) + b"x" * 200_000)
        other, transport = post.connected()
        post.feed(request(SOURCE, b"x" * 100_000, key=PUSH), other)
        assert transport.written.startswith(b"HTTP/1.1 429")
        post.connection.connection_lost(None)
        assert post.reception.bytes_held == 0

    def test_is_asked_for_where_the_sender_waits(self) -> None:
        post = Post()
        whole = request(SOURCE, b"body", {"expect": "100-continue"}, PUSH)
        post.feed(whole[:-4])
        assert post.answers == [100]
        post.feed(whole[-4:])
        assert post.answers == [100, 204]

    def test_is_not_asked_for_where_the_key_is_unknown(self) -> None:
        post = Post()
        post.feed(request(SOURCE, b"", {"expect": "100-continue", "content-length": "10"}))
        assert post.answers == [401]


class TestRate:
    def test_of_a_tenant_is_kept_and_what_is_over_it_is_counted(self) -> None:
        post = Post(demo=2)
        assert [post.post(SOURCE, key=PUSH) for _ in range(4)] == [204, 204, 429, 429]
        assert b"Retry-After: 1" in post.transport.written
        assert post.taker.discarded == ["demo", "demo"]
        post.clock.now += 1
        assert post.post(SOURCE, key=PUSH) == 204


class TestAnswer:
    def test_comes_only_when_the_message_is_stored(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        assert post.post(SOURCE, key=PUSH) == 0
        post.taker.taken[0][1](None)
        assert post.answers == [204]

    def test_says_503_when_it_is_not(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.post(SOURCE, key=PUSH)
        post.taker.taken[0][1](not_stored())
        assert post.answers == [503]
        assert b"Retry-After: 5" in post.transport.written

    def test_has_the_order_of_the_requests(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.feed(request(SOURCE, b"1", key=PUSH) + request(SOURCE, b"2", key=PUSH) + request("/nowhere", b"3"))
        post.taker.taken[1][1](None)
        assert post.answers == []
        post.taker.taken[0][1](not_stored())
        assert post.answers == [503, 204, 404]

    def test_to_nobody_is_none(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.post(SOURCE, b"body", key=PUSH)
        post.connection.connection_lost(None)
        post.taker.taken[0][1](None)
        assert post.answers == []
        assert post.reception.bytes_held == 0

    def test_ends_the_connection_of_a_client_that_wants_it_so(self) -> None:
        post = Post()
        assert post.post(SOURCE, headers={"connection": "close"}, key=PUSH) == 204
        assert post.transport.closed

    def test_goes_on_after_an_offer_of_another_protocol(self) -> None:
        post = Post()
        offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
        assert post.post(SOURCE, b"first", offer, PUSH) == 204
        assert post.post(SOURCE, b"second", key=PUSH) == 204
        assert [each.payload for each in post.taker.submissions] == [b"first", b"second"]

    def test_stops_reading_while_many_wait_for_theirs(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.feed(request(SOURCE, key=PUSH) * 40)
        reading = [post.transport.reading]
        for _, done in post.taker.taken:
            done(None)
        assert [*reading, post.transport.reading] == [False, True]
        assert post.answers == [204] * 40


class TestSlowSender:
    def test_of_a_header_is_told_so_and_left(self) -> None:
        post = Post()
        post.feed(b"POST /ingest/v1/demo/push HTTP/1.1\r\nhost: s")
        assert post.connection.deadline < float("inf")
        post.connection.is_late()
        assert post.answers == [408]
        assert post.transport.closed

    def test_of_a_body_is_told_so_and_holds_nothing(self) -> None:
        post = Post()
        post.feed(request(SOURCE, b"", {"content-length": "100"}, PUSH) + b"x")
        post.connection.is_late()
        assert post.answers == [408]
        assert post.reception.bytes_held == 0

    def test_who_sends_nothing_is_left(self) -> None:
        post = Post()
        post.connection.is_late()
        assert post.transport.closed
        assert post.answers == []

    def test_makes_room_for_others(self) -> None:
        post = Post(IngestionHttpSettings(max_connections=2))
        known, known_transport = post.connected()
        post.feed(request(SOURCE, key=PUSH), known)
        _, third = post.connected()
        assert post.transport.closed
        assert not known_transport.closed
        assert not third.closed

    def test_of_a_header_without_an_end_is_refused(self) -> None:
        post = Post()
        post.feed(b"POST / HTTP/1.1\r\nx: ")
        post.feed(b"y" * 20_000)
        assert post.answers == [431]

    def test_of_a_long_header_in_pieces_is_waited_for(self) -> None:
        post = Post()
        whole = request(SOURCE, headers={"x": "y" * 10_000}, key=PUSH)
        for start in range(0, len(whole), 4000):
            post.feed(whole[start : start + 4000])
        assert post.answers == [204]

    def test_of_many_requests_at_once_and_half_a_header_is_waited_for(self) -> None:
        post = Post()
        post.feed(request(SOURCE, b"x" * 5000, key=PUSH) * 5 + b"POST / HT")
        assert post.answers == [204] * 5
        assert post.connection.deadline < float("inf")

    def test_of_very_many_headers_is_refused(self) -> None:
        assert Post().post(SOURCE, headers={f"x-{number}": "y" for number in range(200)}, key=PUSH) == 431


class TestRepeat:
    def test_has_the_same_name_with_the_same_key_and_body(self) -> None:
        post = Post()
        for key, body in [("a", b"1"), ("a", b"1"), ("b", b"1"), ("a", b"2"), ("", b"1")]:
            post.post(SOURCE, body, {"Idempotency-Key": key} if key else {}, PUSH)
        first, again, other_key, other_body, without = [each.repeat_id for each in post.taker.submissions]
        assert first == again
        assert len({first, other_key, other_body}) == 3
        assert without is None

    def test_needs_a_key_of_reasonable_length(self) -> None:
        assert Post().post(SOURCE, headers={"Idempotency-Key": "k" * 300}, key=PUSH) == 400


headers = st.dictionaries(
    st.sampled_from(
        ["content-encoding", "authorization", "expect", "idempotency-key", "transfer-encoding", "upgrade", "connection"]
    )
    | st.text(string.ascii_letters + "-", min_size=1, max_size=20),
    st.sampled_from(
        ["gzip", "deflate", "chunked", "100-continue", "h2c", "Upgrade", f"Bearer {PUSH}", f"Basic {BASIC_USER}"]
    )
    | st.text(VISIBLE + "äß\xa0", max_size=80),
    max_size=5,
)
paths = st.sampled_from([SOURCE, DEVICE, f"{SOURCE}/{PUSH}", f"/api/v1/{ONE_DEVICE}/telemetry"]) | st.text(
    VISIBLE, max_size=80
).map(lambda text: f"/{text}")


class TestAnything:
    @given(path=paths, fields=headers, body=st.binary(max_size=200), is_known=st.booleans())
    def test_is_answered_and_never_with_500(
        self, path: str, fields: dict[str, str], body: bytes, is_known: bool
    ) -> None:
        post = Post()
        lines = {"content-length": str(len(body)), **fields, **({"x-key": PUSH} if is_known else {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        post.feed(f"POST {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1") + body)
        assert 500 not in post.answers
        assert all(200 <= status < 500 or status in {100, 503} for status in post.answers)

    @given(st.binary(max_size=400), st.integers(1, 50))
    def test_that_is_no_http_is_answered_or_waited_for(self, data: bytes, cut: int) -> None:
        post = Post()
        whole = request(SOURCE, data, key=PUSH)
        post.feed(whole[: -cut or None] + data)
        assert set(post.answers) <= {100, 204, 400, 401, 403, 404, 405, 413, 414, 415, 429, 431}
