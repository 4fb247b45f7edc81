"""The documentation's site, without a network."""

from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from sens_common.operations import Heartbeat
from sens_docs_site.app import create_app, metrics_app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "guides").mkdir(parents=True)
    (site / "index.html").write_text("<h1>Start</h1>")
    (site / "guides" / "index.html").write_text("<h1>Guides</h1>")
    (site / "search.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    return site


class Client:
    """Calls an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def get(self, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.request("GET", path, headers)

    async def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        transport = httpx2.ASGITransport(self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://docs.example") as client:
            return await client.request(method, f"http://docs.example{path}", headers=headers)


def client(folder: Path) -> Client:
    return Client(create_app(folder, Heartbeat()))


class TestPages:
    async def test_the_start_is_index_html(self, folder: Path) -> None:
        answer = await client(folder).get("/")
        assert answer.status_code == 200
        assert "Start" in answer.text

    async def test_a_folder_is_redirected_to_its_path_with_a_slash_on_this_site(self, folder: Path) -> None:
        answer = await client(folder).get("/guides", headers={"Host": "elsewhere.example"})
        assert answer.status_code == 307
        assert answer.headers["Location"] == "/guides/"

    async def test_a_doubled_slash_redirects_to_no_other_host(self, folder: Path) -> None:
        answer = await client(folder).get("//guides")
        assert answer.headers.get("Location", "/").startswith("//") is False

    async def test_a_missing_page_has_a_page_of_its_own(self, folder: Path) -> None:
        answer = await client(folder).get("/nope")
        assert answer.status_code == 404
        assert "There is no such page" in answer.text

    async def test_the_themes_page_for_missing_pages_is_preferred(self, folder: Path) -> None:
        (folder / "404.html").write_text("<h1>Lost</h1>")
        answer = await client(folder).get("/nope")
        assert (answer.status_code, answer.text) == (404, "<h1>Lost</h1>")

    async def test_only_reading_is_allowed(self, folder: Path) -> None:
        assert (await client(folder).request("POST", "/")).status_code == 405

    @pytest.mark.parametrize(
        "path", ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/guides/..%5c..%5csecret.txt"]
    )
    async def test_nothing_outside_the_folder_is_served(self, folder: Path, path: str) -> None:
        answer = await client(folder).get(path)
        assert answer.status_code == 404
        assert "secret" not in answer.text

    async def test_a_link_out_of_the_folder_is_not_followed(self, folder: Path) -> None:
        (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
        assert (await client(folder).get("/link.txt")).status_code == 404

    async def test_a_path_with_nul_is_a_missing_page(self, folder: Path) -> None:
        assert (await client(folder).get("/%00")).status_code == 404


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", "/search.json", "/nope", "/healthz"])
    async def test_every_response_carries_the_security_headers(self, folder: Path, path: str) -> None:
        headers = (await client(folder).get(path)).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"]

    async def test_an_unchanged_page_is_not_sent_again(self, folder: Path) -> None:
        site = client(folder)
        etag = (await site.get("/")).headers["ETag"]
        assert (await site.get("/", headers={"If-None-Match": etag})).status_code == 304


class TestOperations:
    async def test_is_ready_with_an_index(self, folder: Path) -> None:
        answer = await client(folder).get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {"site": "ok"}})

    async def test_a_folder_that_is_not_there_is_named_and_serves_missing_pages(self, tmp_path: Path) -> None:
        site = client(tmp_path / "later")
        answer = await site.get("/readyz")
        assert answer.status_code == 503
        assert "SENS_SITE__FOLDER" in answer.json()["checks"]["site"]
        assert (await site.get("/")).status_code == 404

    async def test_serves_a_folder_that_came_later(self, tmp_path: Path, folder: Path) -> None:
        site = client(tmp_path / "later")
        assert (await site.get("/")).status_code == 404
        folder.rename(tmp_path / "later")
        assert (await site.get("/")).status_code == 200

    async def test_counts_responses_by_class(self, folder: Path) -> None:
        site = client(folder)
        await site.get("/nope")
        assert 'sens_docs_responses_total{status="4xx"}' in (await site.get("/metrics")).text

    async def test_shows_no_metrics_where_they_have_a_port_of_their_own(self, folder: Path) -> None:
        pages, metrics = Client(create_app(folder, Heartbeat(), with_metrics=False)), Client(metrics_app(Heartbeat()))

        assert (await pages.get("/metrics")).status_code == 404
        assert (await pages.get("/healthz")).status_code == 200
        assert "# TYPE sens_docs_responses_total" in (await metrics.get("/metrics")).text
        assert (await metrics.get("/")).status_code == 404

    async def test_tells_its_name_and_version(self, folder: Path) -> None:
        assert (await client(folder).get("/version")).json()["name"] == "docs"
