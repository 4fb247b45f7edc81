"""The check of the host at which messages are posted."""

import asyncio
from typing import cast

import pytest

from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.http_ingestion import check_http_ingestion
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.web import Answer, Web
from support.posting import Post

HOST = Endpoint("https", "in.example.org", 443)


class OneAnswer:
    """Gives one answer, as `Web`."""

    def __init__(self, status: int, body: bytes) -> None:
        self._status = status
        self._body = body
        self.path = ""

    async def get(self, host: Endpoint, path: str) -> Answer:
        self.path = path
        return Answer(f"https://{host.host}{path}", self._status, "application/problem+json", None, None, self._body)


async def outcome(web: OneAnswer, host: Endpoint | None = HOST) -> str:
    return await check_http_ingestion(
        Environment(name="x", http_ingestion_host=host), "--http-ingestion-host", cast("Web", web)
    )


class TestHttpIngestion:
    def test_is_known_by_its_refusal(self) -> None:
        web = OneAnswer(0, b"")
        with pytest.raises(CheckFailedError):
            asyncio.run(outcome(web))
        post = Post()
        post.feed(f"GET {web.path} HTTP/1.1\r\nhost: in.example.org\r\n\r\n".encode())
        refusal = OneAnswer(post.answers[0], post.transport.written.partition(b"\r\n\r\n")[2])
        assert asyncio.run(outcome(refusal)) == "https://in.example.org/ingest/v1/verify/verify takes what is posted"

    async def test_is_not_what_else_answers_there(self) -> None:
        for status, body in ((405, b"{}"), (404, b'{"code": "wrong_method"}'), (200, b"<html></html>")):
            with pytest.raises(CheckFailedError, match=f"answers with {status}"):
                await outcome(OneAnswer(status, body))

    async def test_is_not_asked_where_no_host_is_known(self) -> None:
        with pytest.raises(NotRunError, match="--http-ingestion-host"):
            await outcome(OneAnswer(200, b""), None)
