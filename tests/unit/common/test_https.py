"""What came over plain HTTP is not served, and browsers are told to use HTTPS."""

from collections.abc import Mapping

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from sens_common.https import HttpsOnly
from sens_common.settings import HttpsSettings

ON = HttpsSettings(only=True, hsts_seconds=600)


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand for any application."""
    await PlainTextResponse(f"served {Request(scope).url.path}")(scope, receive, send)


class Asked:
    """Asks one application, and keeps what was noted."""

    def __init__(self, settings: HttpsSettings = ON) -> None:
        self.noted: list[str] = []
        self._app = HttpsOnly(served, settings, self.noted.append)

    async def ask(
        self, url: str = "/", *, by: str | None, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        given = dict(headers or {}) | ({} if by is None else {"X-Forwarded-Proto": by})

        transport = httpx2.ASGITransport(self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api.example.org") as client:
            return await client.request(method, url, headers=given)


class TestPlainHttp:
    @pytest.mark.parametrize("by", ["http", "HTTP", "http, https", " http", "ws"])
    async def test_is_redirected_to_the_same_path(self, by: str) -> None:
        asked = Asked()

        answer = await asked.ask("/a%2Fb?c=d&e=%20", by=by)

        assert (answer.status_code, answer.headers["Location"]) == (308, "https://api.example.org/a%2Fb?c=d&e=%20")
        assert asked.noted == ["redirected"]

    async def test_loses_its_port(self) -> None:
        answer = await Asked().ask(by="http", headers={"Host": "[2001:db8::7]:8080"})

        assert answer.headers["Location"] == "https://[2001:db8::7]/"

    @pytest.mark.parametrize(
        ("method", "headers", "outcome"),
        [
            ("GET", {"Authorization": "Bearer sens_x"}, "key_exposed"),
            ("POST", {}, "refused"),
            ("GET", {"Host": "evil.example/path?"}, "refused"),
            ("GET", {"Host": ""}, "refused"),
        ],
        ids=["key", "body", "host", "no host"],
    )
    async def test_is_refused_where_a_redirect_would_hide_a_mistake(
        self, method: str, headers: Mapping[str, str], outcome: str
    ) -> None:
        asked = Asked()

        answer = await asked.ask(by="http", method=method, headers=headers)

        assert answer.status_code == 403
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "plain_http"
        assert "evil" not in answer.text
        assert asked.noted == [outcome]

    async def test_with_a_key_says_to_replace_it_and_never_repeats_it(self) -> None:
        with capture_logs() as logs:
            answer = await Asked().ask(by="http", headers={"Authorization": "Bearer sens_secret"})

        assert "ask https://api.example.org instead, and replace the key" in answer.json()["detail"]
        assert "sens_secret" not in f"{answer.text} {logs}"
        assert [entry["log_level"] for entry in logs] == ["warning"]

    async def test_is_served_where_nothing_else_is_asked_for(self) -> None:
        asked = Asked(HttpsSettings())

        assert (await asked.ask("/x", by="http")).text == "served /x"
        assert asked.noted == []


class TestHttps:
    async def test_is_served_and_browsers_are_told_to_stay(self) -> None:
        answer = await Asked().ask("/x", by="https", method="POST")

        assert answer.text == "served /x"
        assert answer.headers["Strict-Transport-Security"] == "max-age=600"

    async def test_is_not_recommended_where_it_is_not_asked_for(self) -> None:
        assert "Strict-Transport-Security" not in (await Asked(HttpsSettings(only=True)).ask(by="https")).headers


class TestWithoutAProxy:
    async def test_probes_and_prometheus_are_served(self) -> None:
        answer = await Asked().ask("/healthz", by=None)

        assert answer.status_code == 200
        assert "Strict-Transport-Security" not in answer.headers
