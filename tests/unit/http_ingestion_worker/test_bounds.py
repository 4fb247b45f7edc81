"""What a sender may not make the worker hold, and what is not stored of an address."""

import json

import pytest

from sens_http_ingestion_worker.bodies import PlainBody
from sens_http_ingestion_worker.settings import IngestionHttpSettings
from support.posting import NATIVE, PUSH, Post, request

SOURCE = "/ingest/v1/demo/push"


def chunked(post: Post) -> None:
    """Begin a request whose body comes in chunks."""
    start = request(SOURCE, b"", {"transfer-encoding": "chunked"}, PUSH).replace(b"content-length: 0\r\n", b"")
    post.feed(start + b"2\r\n{}\r\n")


class TestChunks:
    @pytest.mark.parametrize("endless", [b"0\r\nx-trailer: ", b"2;extension="])
    def test_end_with_no_more_than_a_header_may_have(self, endless: bytes) -> None:
        post = Post()
        chunked(post)
        post.feed(endless)
        for _ in range(5):
            post.feed(b"y" * 4000)
        assert post.answers == [431]
        assert post.transport.closed
        assert post.reception.bytes_held == 0

    def test_may_end_with_a_trailer(self) -> None:
        post = Post()
        chunked(post)
        post.feed(b"0\r\nx-trailer: ")
        post.feed(b"y" * 4000 + b"\r\n\r\n")
        assert post.answers == [204]
        assert post.taker.submissions[0].payload == b"{}"

    def test_that_are_small_are_held_as_one(self) -> None:
        body = PlainBody(1000)
        for number in range(300):
            body.feed(b"%03d" % number)
        assert body.size == 900
        assert body.finish() == b"".join(b"%03d" % number for number in range(300))


class TestHeader:
    def test_whose_end_was_left_out_does_not_hide_where_the_body_ends(self) -> None:
        post = Post()
        many = {f"x-{number}": "y" for number in range(101)}
        offer = {"connection": "Upgrade", "upgrade": "h2c", **many}
        hidden = request("/nowhere", b"", {"content-length": "0"})
        lines = request(SOURCE, b"", offer, PUSH).replace(b"content-length: 0\r\n", b"")
        start = lines.removesuffix(b"\r\n") + b"content-length: %d\r\n\r\n" % len(hidden)
        post.feed(start + hidden)
        assert post.answers == [431]
        assert post.transport.closed


class TestSlowReader:
    def test_is_sent_no_more_until_it_reads(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.feed(request(SOURCE, key=PUSH) * 40)
        post.connection.pause_writing()
        for _, done in list(post.taker.taken):
            done(None)
        assert not post.transport.reading
        assert post.connection.deadline < float("inf")
        post.connection.resume_writing()
        assert post.transport.reading

    def test_of_an_answer_before_a_refusal_has_its_time(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.feed(request(SOURCE, key=PUSH) + b"no request\r\n\r\n")
        assert post.answers == []
        assert post.connection.deadline < float("inf")
        post.taker.taken[0][1](None)
        assert post.answers == [204, 400]


class TestConnections:
    def test_that_can_not_even_be_refused_are_ended(self) -> None:
        post = Post(IngestionHttpSettings(max_connections=1))
        post.taker.answers_at_once = False
        post.feed(request(SOURCE, key=PUSH))
        transports = [post.connected()[1] for _ in range(60)]
        assert transports[0].written.startswith(b"HTTP/1.1 503")
        assert [transport.written for transport in transports[50:]] == [b""] * 10
        assert all(transport.closed for transport in transports)


class TestKeyInAnAddress:
    @pytest.mark.parametrize(
        "path",
        [
            f"{SOURCE}?key={PUSH}",
            f"{SOURCE}/{PUSH}/more",
            f"/api/v1/{PUSH}/telemetry?token={PUSH}",
        ],
    )
    def test_that_would_be_stored_is_refused(self, path: str) -> None:
        post = Post()
        assert post.post(path, key=PUSH) == 400
        assert json.loads(post.transport.written.partition(b"\r\n\r\n")[2])["code"] == "key_in_address"
        assert PUSH.encode() not in post.transport.written
        assert post.taker.submissions == []

    def test_is_no_name_of_a_device(self) -> None:
        assert Post().post(f"/sens/v1/demo/{NATIVE}/telemetry", key=NATIVE) == 400
