"""Which checks ``sens verify`` has, how it runs them, and how their outcomes are shown."""

import asyncio
import json
import socket
import ssl
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sens_cli.__main__ import app
from sens_cli.verify.catalogue import CHECKS, catalogue, chosen
from sens_cli.verify.endpoint import Endpoint
from sens_cli.verify.environment import Environment
from sens_cli.verify.kubectl import Kubectl
from sens_cli.verify.names import check_name
from sens_cli.verify.outcome import Check, CheckFailedError, NotRunError, Outcome, Status
from sens_cli.verify.report import document, print_report
from sens_cli.verify.runner import run_checks
from sens_cli.verify.web import Web


def sens(*arguments: str) -> tuple[int, str]:
    """Return exit code and output of ``sens verify``, on one line."""
    result = CliRunner().invoke(app, ["verify", *arguments], env={"COLUMNS": "300"})
    return result.exit_code, " ".join(result.output.split())


class TestTheChecks:
    async def test_are_what_the_list_says(self) -> None:
        environment, context = Environment(name="x"), ssl.create_default_context()
        async with Web(environment, context) as web:
            assert list(catalogue(environment, web=web, context=context, kubectl=Kubectl(), days=14)) == list(CHECKS)

    def test_are_chosen_by_name_and_by_group(self) -> None:
        assert chosen(["cluster.nats", "docs"]) == [
            "docs.healthz",
            "docs.readyz",
            "docs.page",
            "docs.metrics",
            "cluster.nats",
        ]
        assert chosen([]) == list(CHECKS)

    def test_that_are_not_there_are_wrong_usage(self) -> None:
        code, output = sens("--address", "192.0.2.7", "--check", "dns.ap")

        assert code == 2
        assert "there is no check 'dns.ap': see sens verify --list" in output

    def test_are_listed(self) -> None:
        code, output = sens("--list")

        assert code == 0
        assert all(name in output for name in CHECKS)

    def test_that_nothing_is_known_for_are_not_run_and_never_ok(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")

        code, output = sens("--channel", "stable", "--json")

        assert code == 0
        report = json.loads(output)
        assert report["counts"] == {"ok": 0, "failed": 0, "not_run": len(CHECKS)}
        assert all(check["detail"] and check["remedy"] is None for check in report["checks"])
        assert sens("--channel", "stable", "--strict")[0] == 1

    def test_of_kubectl_say_that_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")

        _code, output = sens(
            "--environment",
            "test",
            "--namespace",
            "a",
            "--release",
            "b",
            "--check",
            "cluster",
            "--check",
            "access.test",
        )

        assert output.count("there is no kubectl on the PATH") == 5
        assert "0 ok, 0 failed, 5 not run" in output


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["--gitops", "."],
            ["--environment", "../test"],
            ["--environment", "test"],
            ["--api-host", "a b"],
            ["--public-metrics", "--no-public-data"],
            ["--address", "api.example.org"],
            ["--namespace", "-A"],
            ["--channel", "latest"],
            ["--address", "192.0.2.7", "--expect-version", "v1.0.0"],
            ["--address", "192.0.2.7", "--expect-commit", "main"],
            ["--address", "192.0.2.7", "--timeout", "0"],
        ],
        ids=" ".join,
    )
    def test_that_is_wrong_exits_with_2(
        self, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert sens(*arguments)[0] == 2

    def test_finds_the_repository_in_the_working_directory(
        self, environments: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(environments)

        code, output = sens("--environment", "test", "--check", "release.channel")

        assert code == 0
        assert "0.5.0-alpha.12.1: alpha" in output


class TestTheChannel:
    def test_of_another_environment_is_a_failure(self, environments: Path) -> None:
        code, output = sens(
            "--environment", "production", "--gitops", str(environments), "--expect-version", "0.5.0-alpha.1.1", "--check", "release.channel"
        )  # fmt: skip

        assert code == 1
        assert "0.5.0-alpha.1.1 is of the channel alpha, production takes stable" in output


class TestNames:
    HOST = Endpoint("https", "api.example.org", 443)

    async def check(self, environment: Environment, *, ipv4: set[str], ipv6: set[str]) -> str:
        def lookup(name: str, family: socket.AddressFamily) -> set[str]:
            assert name == "api.example.org"
            found = ipv6 if family == socket.AF_INET6 else ipv4
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return found

        return await check_name(environment, self.HOST, "--api-host", lookup)

    async def test_lead_to_the_expected_addresses(self) -> None:
        environment = Environment(name="x", address="192.0.2.7", address_ipv6="2001:db8::7")

        assert await self.check(environment, ipv4={"192.0.2.7"}, ipv6={"2001:db8::7"}) == (
            "api.example.org: A 192.0.2.7, AAAA 2001:db8::7"
        )

    @pytest.mark.parametrize(
        ("ipv4", "ipv6", "remedy"),
        [
            ({"192.0.2.8"}, set(), "make the record A 192.0.2.7 and remove A 192.0.2.8"),
            ({"192.0.2.7", "192.0.2.8"}, set(), "remove A 192.0.2.8"),
            ({"192.0.2.7"}, {"2001:db8::8"}, "remove AAAA 2001:db8::8"),
            (set(), set(), "Make the record A 192.0.2.7 of api.example.org"),
        ],
    )
    async def test_that_lead_elsewhere_are_a_failure(self, ipv4: set[str], ipv6: set[str], remedy: str) -> None:
        with pytest.raises(CheckFailedError) as error:
            await self.check(Environment(name="x", address="192.0.2.7"), ipv4=ipv4, ipv6=ipv6)

        assert remedy in error.value.remedy

    async def test_are_not_asked_of_a_resolver_that_fails(self) -> None:
        def lookup(_name: str, _family: socket.AddressFamily) -> set[str]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        with pytest.raises(CheckFailedError, match="Temporary failure"):
            await check_name(Environment(name="x", address="192.0.2.7"), self.HOST, "--api-host", lookup)

    async def test_without_an_expected_address_are_not_run(self) -> None:
        with pytest.raises(NotRunError, match="--address"):
            await self.check(Environment(name="x"), ipv4={"192.0.2.7"}, ipv6=set())


class TestARun:
    async def test_tells_how_each_check_ended(self) -> None:
        async def well() -> str:
            return "all is well"

        async def badly() -> str:
            raise CheckFailedError("it is broken", "repair it")

        async def unknown() -> str:
            raise NotRunError("nothing is known")

        async def forever() -> str:
            await asyncio.Event().wait()
            return ""

        checks: dict[str, Check] = {"a": well, "b": badly, "c": unknown, "d": forever}
        outcomes = await run_checks(checks, 0.05)

        assert [(each.name, each.status, each.detail) for each in outcomes[:3]] == [
            ("a", Status.OK, "all is well"),
            ("b", Status.FAILED, "it is broken"),
            ("c", Status.NOT_RUN, "nothing is known"),
        ]
        assert [each.remedy for each in outcomes[:3]] == [None, "repair it", None]
        assert outcomes[3].status is Status.FAILED
        assert "--check d" in (outcomes[3].remedy or "")


class TestTheReport:
    OUTCOMES = (
        Outcome("dns.api", Status.OK, "fine", None, 0.1),
        Outcome("dns.docs", Status.FAILED, "wrong \x1b[2J", "repair [it]", 0.2),
        Outcome("cluster.nats", Status.NOT_RUN, "no kubectl", None, 0.0),
    )

    def test_has_remedies_below_failures_and_counts(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_report(self.OUTCOMES)

        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert lines == [
            "STATUS CHECK DETAIL",
            "ok dns.api fine",
            "failed dns.docs wrong \\x1b[2J",
            "Remedy: repair [it]",
            "not run cluster.nats no kubectl",
            "",
            "1 ok, 1 failed, 1 not run",
        ]

    def test_is_a_document_for_scripts(self) -> None:
        report = document("test", self.OUTCOMES, passed=False)

        assert report["counts"] == {"ok": 1, "failed": 1, "not_run": 1}
        assert report["checks"][1] == {
            "name": "dns.docs",
            "status": "failed",
            "detail": "wrong \x1b[2J",
            "remedy": "repair [it]",
            "seconds": 0.2,
        }
