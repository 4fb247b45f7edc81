"""Sources that take messages by HTTP: signed requests, what is told of them, and what is not."""

import asyncio
import json
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from sens_common.source_states import Downlinks, SourceState
from sens_http_ingestion_worker.as_keys import AsKeys
from support.posting import NATIVE, PUSH, STORED_AT, Post
from support.signed_reports import BODY, KEY, query

SOURCE = "/ingest/v1/demo/push"
PUSH_URL = "https://eu1.cloud.thethings.network/api/v3/as/applications/a/webhooks/w/devices/d/down/push"


def counted(token: str) -> float:
    return REGISTRY.get_sample_value("sens_ingestion_http_tokens_total", {"token": token}) or 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys = tmp_path / "demo" / "push"
    keys.mkdir(parents=True)
    (keys / "as-key").write_text(f"{KEY.upper()}\n")
    return tmp_path


class TestSignedRequests:
    def test_are_taken(self, folder: Path) -> None:
        post = Post(as_keys_folder=folder)
        assert post.post(f"{SOURCE}?{query()}", BODY, key=PUSH) == 204
        assert post.post(f"{SOURCE}/{PUSH}?{query()}", BODY) == 204
        assert post.post(f"{SOURCE}/level?{query()}", BODY, key=PUSH) == 204

    @pytest.mark.parametrize(
        ("path", "body", "token"),
        [
            (f"{SOURCE}?{query(token='0' * 64)}", BODY, "wrong"),
            (SOURCE, BODY, "missing"),
            (f"{SOURCE}?{query()}", b"{}", "unknown"),
        ],
    )
    def test_are_refused_where_the_signature_is_not_right(
        self, folder: Path, path: str, body: bytes, token: str
    ) -> None:
        post, before = Post(as_keys_folder=folder), counted(token)
        assert post.post(path, body, key=PUSH) == 401
        assert json.loads(post.transport.written.partition(b"\r\n\r\n")[2])["code"] == f"token_{token}"
        assert post.taker.submissions == []
        assert post.reception.bytes_held == 0
        assert counted(token) == before + 1

    def test_are_not_asked_for_where_no_key_is_configured(self, folder: Path) -> None:
        assert Post().post(SOURCE, BODY, key=PUSH) == 204
        assert Post(as_keys_folder=folder).post("/sens/v1/demo/kitchen/telemetry", key=NATIVE) == 204

    @pytest.mark.parametrize("content", [None, "", "not a key", f"{KEY}\n" * 5, "0" * 2000])
    def test_are_all_refused_where_the_key_can_not_be_used(self, folder: Path, content: str | None) -> None:
        file = folder / "demo" / "push" / "as-key"
        file.unlink()
        if content is not None:
            file.write_text(content)
        post = Post(as_keys_folder=folder)
        assert post.post(f"{SOURCE}?{query()}", BODY, key=PUSH) == 503
        assert post.taker.submissions == []
        state = post.sources.states()["demo"]["push"]
        assert (state.status, state.reason) == ("failed", "credential_missing")
        assert str(file) in state.detail


class TestKeys:
    def test_that_change_hold_when_they_were_read_again(self, folder: Path) -> None:
        keys = AsKeys(str(folder))
        asyncio.run(keys.read())
        assert keys.of("demo", "push") == ((KEY,), "")
        (folder / "demo" / "push" / "as-key").write_text(f"{KEY}\n{KEY[::-1]}\n")
        asyncio.run(keys.read())
        assert keys.of("demo", "push") == ((KEY, KEY[::-1]), "")
        assert KEY not in repr(keys.of("demo", "push"))

    def test_that_were_never_read_let_nothing_pass(self, folder: Path) -> None:
        key = AsKeys(str(folder)).of("demo", "push")
        assert key is not None
        assert key.problem

    def test_of_hidden_folders_are_none(self, folder: Path) -> None:
        (folder / "demo" / "push").rename(folder / "demo" / "..push")
        keys = AsKeys(str(folder))
        asyncio.run(keys.read())
        assert keys.of("demo", "..push") is None


class TestState:
    def test_tells_what_came_and_whether_tokens_are_checked(self, folder: Path) -> None:
        post = Post(as_keys_folder=folder)
        post.post(f"{SOURCE}?{query()}", BODY, key=PUSH)
        post.post(SOURCE, BODY, key=PUSH)
        told = SourceState("connected", last_message_at=STORED_AT * 1_000_000, messages=1, checks_token=True)
        assert post.sources.states() == {"demo": {"push": told}}
        assert Post().sources.states() == {"demo": {"push": SourceState("connected")}}

    def test_has_the_downlinks_of_the_last_request_and_never_their_key(self) -> None:
        post = Post()
        headers = {"X-Downlink-Push": PUSH_URL, "X-Downlink-Apikey": "a secret", "X-Downlink-Replace": "no address"}
        post.post(SOURCE, BODY, headers, PUSH)
        post.post(SOURCE, BODY, key=PUSH)
        state = post.sources.states()["demo"]["push"]
        assert state.downlinks == Downlinks(push=PUSH_URL)
        assert "a secret" not in repr([*post.taker.submissions, state])

    @pytest.mark.parametrize(
        "address", ["javascript:alert(1)", "https://user:word@host/", "https://h/?key=1", f"https://h/{'x' * 500}"]
    )
    def test_has_no_address_in_which_there_may_be_a_secret_or_a_script(self, address: str) -> None:
        post = Post()
        assert post.post(SOURCE, BODY, {"X-Downlink-Push": address}, PUSH) == 204
        assert post.sources.states()["demo"]["push"].downlinks is None

    def test_is_forgotten_with_the_last_key_of_the_source(self) -> None:
        post = Post()
        post.taker.answers_at_once = False
        post.post(SOURCE, BODY, key=PUSH)
        post.sources.follow({})
        post.taker.taken[0][1](None)
        assert post.answers == [204]
        assert post.sources.states() == {}
