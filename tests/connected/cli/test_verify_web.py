"""The checks of ``sens verify`` that go to public hosts: on real servers of the test's own, with and without TLS."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sens_cli.verify import certificates, web
from sens_cli.verify.catalogue import catalogue
from sens_cli.verify.certificates import check_certificate
from sens_cli.verify.connections import trust
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.exposure import check_paths, check_ports
from sens_cli.verify.kubectl import Kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError
from sens_cli.verify.plaintext import check_hsts, check_plaintext
from sens_cli.verify.record import Expected
from sens_cli.verify.services import DATA_PATH, Service
from sens_cli.verify.web import Web
from sens_common.errors import SettingsError
from support.certificates import Authority, Certificate
from support.servers import HOST, free_port

NAME = "api.example.test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For hosts without TLS; to load the usual authorities takes time."""

type Served = Mapping[str, bytes]
"""Whole answers by path."""


def answer(document: object, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def server(served: Served | None, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve the answers; None is a server that takes connections and never says anything. Gives its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if served is None:
                await reader.read()
                return
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split()[1].decode()
            if f"host: {NAME}:".encode() not in request.lower():
                path = "/misdirected"
            writer.write(served.get(path, answer(b"404 page not found\n", "404 Not Found", "text/plain")))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # whoever asked has gone
        finally:
            writer.transport.abort()

    listener = await asyncio.start_server(talk, HOST, 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def service_outcome(
    served: Served | None,
    ask: Callable[[Service], Callable[[], Awaitable[str]]],
    *,
    name: str = "platform-api",
    expected: Expected | None = None,
    timeout_seconds: float = web.TIMEOUT_SECONDS,
) -> str:
    """Return what a check of a service says of a server's answers."""

    async with server(served) as port:
        host = Endpoint("http", NAME, port)
        environment = Environment(name="test", address=HOST, expected=expected)
        async with Web(environment, PLAIN, timeout_seconds=timeout_seconds) as client:
            return await ask(Service(name, host, "--api-host", environment, client))()


async def service_failure(
    served: Served | None,
    ask: Callable[[Service], Callable[[], Awaitable[str]]],
    *,
    timeout_seconds: float = web.TIMEOUT_SECONDS,
) -> CheckFailedError:
    with pytest.raises(CheckFailedError) as error:
        await service_outcome(served, ask, timeout_seconds=timeout_seconds)
    assert error.value.remedy
    return error.value


async def certificate_outcome(
    served: ssl.SSLContext | None,
    ca_file: Path | None,
    *,
    days: int = 14,
    timeout_seconds: float = certificates.TIMEOUT_SECONDS,
) -> str:
    """Return what the check of a certificate says of a server."""

    async with server(None, served) as port:
        environment = Environment(name="test", namespace="sens-test", address=HOST)
        host = Endpoint("https", NAME, port)
        return await check_certificate(
            environment, host, "--api-host", trust(ca_file), days, timeout_seconds=timeout_seconds
        )


async def certificate_failure(certificate: Certificate, ca_file: Path | None, *, days: int = 14) -> CheckFailedError:
    with pytest.raises(CheckFailedError) as error:
        await certificate_outcome(certificate.context(), ca_file, days=days)
    return error.value


class TestACertificate:
    async def test_that_is_trusted_and_lasts(self, authority: Authority) -> None:
        said = await certificate_outcome(authority.certificate(NAME, 60).context(), authority.root.file)

        assert said == f"{NAME}: 59 days left, by Test authority"

    async def test_that_should_have_been_renewed(self, authority: Authority) -> None:
        error = await certificate_failure(authority.certificate(NAME, 10), authority.root.file)

        assert error.detail == f"{NAME}: 9 days left, by Test authority"
        assert "kubectl -n sens-test describe certificate" in error.remedy

    async def test_that_has_expired(self, authority: Authority) -> None:
        error = await certificate_failure(authority.certificate(NAME, -1), authority.root.file)

        assert error.detail == f"the certificate of {NAME} has expired"

    async def test_of_another_host(self, authority: Authority) -> None:
        error = await certificate_failure(authority.certificate("other.example.test", 60), authority.root.file)

        assert "is another host's" in error.detail

    async def test_that_is_self_signed(self, authority: Authority) -> None:
        certificate = authority.self_signed("own", "/CN=own", NAME)

        assert "is self-signed" in (await certificate_failure(certificate, authority.root.file)).detail

    async def test_of_an_authority_that_is_not_trusted(self, authority: Authority) -> None:
        error = await certificate_failure(authority.certificate(NAME, 60), None)

        assert "not trusted" in error.detail
        assert "--ca-file" in error.remedy

    async def test_that_is_traefiks_own(self, authority: Authority) -> None:
        certificate = authority.self_signed("traefik", "/CN=TRAEFIK DEFAULT CERT", "default.traefik.test")

        assert "Traefik's default one" in (await certificate_failure(certificate, None)).detail

    async def test_of_a_staging_authority(self, tmp_path: Path, authority: Authority) -> None:
        del authority  # it tells whether openssl is there
        staging = Authority(tmp_path, "(STAGING) Some Name")

        error = await certificate_failure(staging.certificate(NAME, 60), None)

        assert "staging authority" in error.detail
        assert "acme-v02.api.letsencrypt.org" in error.remedy

    async def test_of_what_does_not_speak_tls(self) -> None:
        async def outcome() -> str:
            async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"220 mail.example.test ESMTP\r\n")
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(greet, HOST, 0) as listener:
                host = Endpoint("https", NAME, listener.sockets[0].getsockname()[1])
                return await check_certificate(Environment(name="x", address=HOST), host, "--api-host", PLAIN, 14)

        with pytest.raises(CheckFailedError, match="does not speak TLS"):
            await outcome()

    async def test_of_what_never_answers(self) -> None:
        with pytest.raises(CheckFailedError, match=r"no answer within 0\.1 s"):
            await certificate_outcome(None, None, timeout_seconds=0.1)

    async def test_of_what_is_not_there(self) -> None:
        host = Endpoint("https", NAME, free_port())

        with pytest.raises(CheckFailedError, match="can't be reached"):
            await check_certificate(Environment(name="x", address=HOST), host, "--api-host", PLAIN, 14)

    async def test_of_a_host_without_tls_is_not_looked_at(self) -> None:
        host = Endpoint("http", NAME, 80)

        with pytest.raises(NotRunError, match="without TLS"):
            await check_certificate(Environment(name="x"), host, "--api-host", PLAIN, 14)

    @pytest.mark.parametrize("content", [None, "no certificate"])
    def test_of_an_authority_needs_its_file(self, tmp_path: Path, content: str | None) -> None:
        path = tmp_path / "ca"
        if content is not None:
            path.write_text(content, encoding="ascii")

        with pytest.raises(SettingsError, match="--ca-file"):
            trust(path)


class TestAService:
    async def test_that_works(self) -> None:
        served = {
            "/healthz": answer({"status": "ok", "detail": None}),
            "/readyz": answer({"status": "ok", "checks": {"database": "ok"}}),
            "/version": answer({"name": "platform-api", "version": "0.5.0", "product_commit": COMMIT}),
            "/test": answer({"message": "test endpoint called"}),
            "/": answer(b"<!doctype html><html></html>", content_type="text/html; charset=utf-8"),
        }

        assert await service_outcome(served, lambda service: service.healthy) == "ok"
        assert await service_outcome(served, lambda service: service.ready) == "ok"
        assert await service_outcome(served, lambda service: service.version) == f"0.5.0, commit {COMMIT}"
        assert "test endpoint called" in await service_outcome(served, lambda service: service.tested)
        assert await service_outcome(served, lambda service: service.page) == "a page of 28 bytes"

    async def test_that_works_and_should_be_otherwise_says_what(self) -> None:
        noted = {
            "status": "ok",
            "checks": {},
            "notes": {"database_roles": "it logs in as the owner", "nats": "no password"},
        }

        said = await service_outcome({"/readyz": answer(noted)}, lambda service: service.ready)

        assert said == "ok, but should be otherwise: it logs in as the owner; no password"

    async def test_that_is_not_ready_says_why(self) -> None:
        failed = {"status": "failed", "checks": {"database": "no answer", "nats": "ok"}}

        error = await service_failure(
            {"/readyz": answer(failed, "503 Service Unavailable")}, lambda service: service.ready
        )

        assert error.detail.endswith("/readyz answers with 503: database: no answer")

    async def test_of_which_a_part_does_not_work_says_which(self) -> None:
        degraded = {"status": "degraded", "checks": {"database": "ok", "nats": "not connected to NATS"}}

        error = await service_failure({"/readyz": answer(degraded)}, lambda service: service.ready)

        assert error.detail.endswith("/readyz answers with 200, degraded: nats: not connected to NATS")

    @pytest.mark.parametrize(
        "given",
        [
            answer({"status": "ok"}, "404 Not Found"),
            answer({"status": "failed"}),
            answer(b"no available server\n", "503 Service Unavailable", "text/plain"),
            answer(b"<html>", content_type="text/html"),
            answer([1]),
            answer(b"[" * 100_000),
            answer({"name": "docs", "version": "0.5.0", "product_commit": COMMIT}),
            answer({"name": "platform-api", "version": 5, "product_commit": None}),
            answer({"message": "hello"}),
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
            b"220 smtp.example.test ESMTP\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + b"X-Long: " + b"x" * 300_000 + b"\r\n\r\n{}",
        ],
        ids=["404", "failed", "busy", "page", "list", "deep", "other service", "types", "other message", "short", "no HTTP", "header"],
    )  # fmt: skip
    async def test_that_is_another_one_or_none_is_never_well(self, given: bytes) -> None:
        served = dict.fromkeys(["/healthz", "/readyz", "/version", "/test", "/"], given)

        for ask in (
            lambda service: service.healthy,
            lambda service: service.ready,
            lambda service: service.version,
            lambda service: service.tested,
            lambda service: service.page,
        ):
            await service_failure(served, ask)

    async def test_that_redirects_is_not_followed(self) -> None:
        redirect = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example.test/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        error = await service_failure({"/healthz": redirect}, lambda service: service.healthy)

        assert "redirects (302) to https://elsewhere.example.test/" in error.detail

    async def test_that_answers_without_end_is_left(self) -> None:
        given = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b" " * 5_000_000

        error = await service_failure({"/readyz": given}, lambda service: service.ready)

        assert "more than 262144 bytes" in error.detail

    async def test_that_never_answers_is_left(self) -> None:
        error = await service_failure(None, lambda service: service.ready, timeout_seconds=0.1)

        assert "no answer within 0.1 s" in error.detail

    async def test_over_tls_is_asked_by_its_name(self, authority: Authority) -> None:
        context = authority.certificate(NAME, 60).context()
        async with server({"/healthz": answer({"status": "ok"})}, context) as port:
            environment = Environment(name="test", address=HOST)
            async with Web(environment, trust(authority.root.file)) as client:
                host = Endpoint("https", NAME, port)
                assert (await Service("platform-api", host, "--api-host", environment, client).healthy()) == "ok"

    async def test_over_tls_of_another_name_is_refused(self, authority: Authority) -> None:
        async def outcome() -> str:
            context = authority.certificate("other.example.test", 60).context()
            async with server({"/healthz": answer({"status": "ok"})}, context) as port:
                environment = Environment(name="test", address=HOST)
                async with Web(environment, trust(authority.root.file)) as client:
                    host = Endpoint("https", NAME, port)
                    return await Service("platform-api", host, "--api-host", environment, client).healthy()

        with pytest.raises(CheckFailedError, match="certificate"):
            await outcome()


RELEASED: Served = {"/version": answer({"name": "platform-api", "version": "0.5.0", "product_commit": COMMIT})}


class TestTheRelease:
    @pytest.mark.parametrize(
        "expected",
        [
            Expected(version="0.5.0", commit=COMMIT),
            Expected(version="0.5.0-alpha.12.1", commit=COMMIT),
            Expected(version="0.5.0"),
            Expected(commit=COMMIT[:7]),
        ],
    )
    async def test_runs(self, expected: Expected) -> None:
        said = await service_outcome(RELEASED, lambda service: service.released, expected=expected)

        assert said == f"{expected.version or '0.5.0'}, commit {COMMIT}"

    @pytest.mark.parametrize(
        ("expected", "said"),
        [
            (Expected(version="0.6.0"), "version is 0.5.0, released is 0.6.0"),
            (Expected(version="0.5.1-alpha.1.1"), "version is 0.5.0, released is 0.5.1-alpha.1.1"),
            (Expected(version="0.5.0", commit="f" * 40), f"commit is {COMMIT}, released is {'f' * 40}"),
        ],
    )
    async def test_that_is_another_one_is_a_failure(self, expected: Expected, said: str) -> None:
        with pytest.raises(CheckFailedError) as error:
            await service_outcome(RELEASED, lambda service: service.released, expected=expected)
        assert said in error.value.detail

    async def test_that_is_not_known_is_not_compared(self) -> None:
        with pytest.raises(NotRunError, match="no release yet"):
            await service_outcome(RELEASED, lambda service: service.released)


class TestInternalPorts:
    async def test_that_are_closed(self) -> None:
        async def outcome(closed: int) -> str:
            async with server({}) as port:
                host = Endpoint("https", NAME, port)
                return await check_ports(
                    Environment(name="x", address=HOST, api_host=host, internal_ports={"nats": closed})
                )

        closed = free_port()
        assert await outcome(closed) == f"{HOST} accepts no connection on {closed}"

    async def test_that_are_open_are_a_failure(self) -> None:
        async def outcome() -> str:
            async with server({}) as port, server(None) as nats:
                host = Endpoint("https", NAME, port)
                return await check_ports(
                    Environment(
                        name="x", address=HOST, api_host=host, internal_ports={"nats": nats, "mqtt": free_port()}
                    )
                )

        with pytest.raises(CheckFailedError, match=r"accepts connections on [0-9]+ \(nats\)$"):
            await outcome()

    async def test_prove_nothing_where_nothing_is_reachable(self) -> None:
        environment = Environment(name="x", address=HOST, api_host=Endpoint("https", NAME, free_port()))

        with pytest.raises(NotRunError, match="closed ports prove nothing"):
            await check_ports(environment)


class TestInternalPaths:
    async def outcome(self, served: Served, docs: Served, *, public_metrics: bool = False) -> str:
        async with server(served) as port, server(docs) as docs_port:
            environment = Environment(
                name="x",
                address=HOST,
                api_host=Endpoint("http", NAME, port),
                docs_host=Endpoint("http", NAME, docs_port),
                public_metrics=public_metrics,
            )
            async with Web(environment, PLAIN) as client:
                return await check_paths(environment, client)

    async def test_that_lead_nowhere(self) -> None:
        assert await self.outcome({}, {}) == f"{NAME} and {NAME} do not answer on /metrics, /varz, /jsz, /connz"

    @pytest.mark.parametrize(
        ("path", "content"),
        [("/metrics", b"# HELP a b\n# TYPE a counter\na 1\n"), ("/varz", b'{\n  "server_id": "NA"}')],
    )
    @pytest.mark.parametrize("host", ["api", "docs"])
    async def test_that_lead_inside_are_a_failure(self, path: str, content: bytes, host: str) -> None:
        served = {path: answer(content, content_type="text/plain")}

        with pytest.raises(CheckFailedError, match=f"is answered at http://[^ ]+{path}$"):
            await self.outcome(served if host == "api" else {}, served if host == "docs" else {})

    async def test_are_not_the_metrics_where_these_are_public(self) -> None:
        served = {"/metrics": answer(b"# TYPE a counter\na 1\n", content_type="text/plain")}

        assert (await self.outcome(served, served, public_metrics=True)).endswith(
            "do not answer on /varz, /jsz, /connz"
        )


METRICS: Served = {
    "/metrics": answer(
        b"# TYPE sens_api_requests_total counter\nsens_api_requests_total 1\n", content_type="text/plain"
    )
}


class TestPublicMetrics:
    async def test_are_given_on_the_host(self) -> None:
        assert (await service_outcome(METRICS, lambda service: service.metrics)).startswith("1 series, on http://")

    async def test_that_are_missing_say_where_they_are_switched_on(self) -> None:
        error = await service_failure({}, lambda service: service.metrics)

        assert "answers with 404" in error.detail
        assert "ingress.publicMetrics" in error.remedy

    async def test_are_those_of_the_service(self) -> None:
        with pytest.raises(CheckFailedError):
            await service_outcome(METRICS, lambda service: service.metrics, name="docs")

    @pytest.mark.parametrize(("public", "path"), [(True, "/metrics"), (False, None)])
    async def test_are_asked_for_on_the_host_only_where_they_are_public(
        self, public: bool, path: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")

        async def outcome() -> str:
            async with server(METRICS) as port:
                host = Endpoint("http", NAME, port)
                environment = Environment(
                    name="x", release="x", namespace="x", address=HOST, api_host=host, public_metrics=public
                )
                async with Web(environment, PLAIN) as client:
                    checks = catalogue(environment, web=client, context=PLAIN, kubectl=Kubectl(), days=14)
                    return await checks["api.metrics"]()

        if path:
            assert (await outcome()).endswith(path)
        else:
            with pytest.raises(NotRunError, match="no kubectl"):
                await outcome()


class TestTheData:
    REFUSED = answer({"code": "unauthenticated", "status": 401}, "401 Unauthorized", "application/problem+json")

    async def outcome(self, given: bytes | None, *, public: bool) -> str:
        async with server({} if given is None else {DATA_PATH: given}) as port:
            environment = Environment(name="x", address=HOST, public_data=public)
            async with Web(environment, PLAIN) as client:
                host = Endpoint("http", NAME, port)
                return await Service("platform-api", host, "--api-host", environment, client).data()

    async def test_are_public_and_ask_for_a_key(self) -> None:
        assert (await self.outcome(self.REFUSED, public=True)).endswith("asks for a key")

    async def test_are_not_public(self) -> None:
        assert "is not served" in await self.outcome(None, public=False)

    @pytest.mark.parametrize(("given", "public"), [(None, True), (REFUSED, False), (answer([]), True)])
    async def test_that_are_public_or_not_against_what_is_said_are_a_failure(
        self, given: bytes | None, public: bool
    ) -> None:
        with pytest.raises(CheckFailedError) as error:
            await self.outcome(given, public=public)
        assert "ingress.publicData" in error.value.remedy


def redirect(location: str, status: str = "308 Permanent Redirect") -> bytes:
    return f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


class TestPlainHttp:
    async def outcome(self, given: bytes | None, *, path: str = "/healthz") -> str:
        async with server({} if given is None else {path: given}) as port:
            host = Endpoint("https", NAME, 443)
            if path == "/healthz":
                environment = Environment(name="x", address=HOST, api_host=host)
            else:
                environment = Environment(name="x", address=HOST, argo_host=host)
            async with Web(environment, PLAIN) as client:
                return await check_plaintext(environment, client, port=port)

    @pytest.mark.parametrize("path", ["/healthz", "/"])
    @pytest.mark.parametrize(
        "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
    )
    async def test_that_is_redirected(self, status: str, path: str) -> None:
        said = await self.outcome(redirect(f"https://{NAME}{path}", status), path=path)

        assert said == f"http://{NAME} redirects to HTTPS"

    async def test_that_is_refused(self) -> None:
        assert (await self.outcome(None)).endswith("refuses (404)")

    async def test_that_nothing_listens_for(self) -> None:
        environment = Environment(name="x", address=HOST, docs_host=Endpoint("https", NAME, 443))

        async with Web(environment, PLAIN) as client:
            assert "no connection" in (await check_plaintext(environment, client, port=free_port()))

    @pytest.mark.parametrize(
        "given",
        [
            answer({"status": "ok"}),
            answer({"status": "failed", "detail": "stands still"}, "503 Service Unavailable"),
            answer(b"<html>", content_type="text/html"),
            answer(b"oops", "500 Internal Server Error"),
            redirect(f"http://{NAME}/healthz/"),
            redirect("https://elsewhere.example.test/"),
            redirect("/login"),
            redirect("https://[bad"),
        ],
        ids=["ok", "failed", "page", "500", "plain", "elsewhere", "path", "broken"],
    )
    async def test_that_is_served_is_a_failure(self, given: bytes) -> None:
        with pytest.raises(CheckFailedError) as error:
            await self.outcome(given)

        assert f"http://{NAME}" in error.value.detail
        assert "router.entrypoints: websecure" in error.value.remedy

    async def test_is_not_known_while_no_pod_is_ready(self) -> None:
        with pytest.raises(NotRunError, match="no pod is ready"):
            await self.outcome(answer(b"no available server", "503 Service Unavailable", "text/plain"))

    async def test_is_not_looked_at_without_tls(self) -> None:
        environment = Environment(name="x", api_host=Endpoint("http", NAME, 80))

        async def outcome() -> str:
            async with Web(environment, PLAIN) as client:
                return await check_plaintext(environment, client)

        with pytest.raises(NotRunError, match="no host with TLS"):
            await outcome()


class TestHsts:
    async def outcome(self, authority: Authority, header: str) -> str:
        body = answer({"status": "ok"}).replace(b"Connection: close", f"{header}Connection: close".encode())

        async with server({"/healthz": body}, authority.certificate(NAME, 60).context()) as port:
            environment = Environment(name="x", address=HOST, api_host=Endpoint("https", NAME, port))
            async with Web(environment, trust(authority.root.file)) as client:
                return await check_hsts(environment, client)

    async def test_is_there(self, authority: Authority) -> None:
        said = await self.outcome(authority, "Strict-Transport-Security: includeSubDomains; max-age=31536000\r\n")

        assert said == f"{NAME}: 365 days"

    @pytest.mark.parametrize(
        "header", ["", "Strict-Transport-Security: max-age=0\r\n", "Strict-Transport-Security: x\r\n"]
    )
    async def test_that_is_missing_is_a_failure(self, authority: Authority, header: str) -> None:
        with pytest.raises(CheckFailedError) as error:
            await self.outcome(authority, header)

        assert "hstsSeconds" in error.value.remedy


class TestTheWholeCommand:
    async def test_prints_what_it_found_with_remedies(self, authority: Authority, tmp_path: Path) -> None:
        served = {"/healthz": answer({"status": "ok"})}
        async with server(served, authority.certificate(NAME, 60).context()) as port:
            command_line = [sys.executable, "-m", "sens_cli", "verify"]
            command = await asyncio.create_subprocess_exec(
                *command_line, "--api-host", f"{NAME}:{port}", "--address", HOST, "--ca-file", str(authority.root.file),
                "--check", "certificate.api", "--check", "api.healthz", "--check", "api.readyz", "--json",
                stdout=subprocess.PIPE, cwd=tmp_path,
            )  # fmt: skip
            output, _errors = await command.communicate()
            code, found = await command.wait(), json.loads(output)

        assert code == 1
        assert found["passed"] is False
        assert found["counts"] == {"ok": 2, "failed": 1, "not_run": 0}
