"""Requests that a proxy was asked for by plain HTTP."""

import json

import pytest

from support.posting import PUSH, Post

SOURCE = "/ingest/v1/demo/push"


class TestPlainHttp:
    @pytest.mark.parametrize("proxies", ["http", "HTTP", "http, https"])
    def test_is_refused_where_https_is_asked_for(self, proxies: str) -> None:
        post = Post(https_only=True)

        assert post.post(SOURCE, headers={"X-Forwarded-Proto": proxies}, key=PUSH) == 403
        assert json.loads(post.transport.written.partition(b"\r\n\r\n")[2])["code"] == "plain_http"
        assert post.taker.submissions == []

    @pytest.mark.parametrize("headers", [{"X-Forwarded-Proto": "https"}, {"X-Forwarded-Proto": "https, http"}, {}])
    def test_in_the_cluster_or_behind_tls_is_taken(self, headers: dict[str, str]) -> None:
        assert Post(https_only=True).post(SOURCE, headers=headers, key=PUSH) == 204

    def test_is_taken_where_nothing_is_set(self) -> None:
        assert Post().post(SOURCE, headers={"X-Forwarded-Proto": "http"}, key=PUSH) == 204
