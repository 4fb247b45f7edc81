"""``sens verify``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sens_common.command_line.options import Json
from sens_common.errors import SettingsError

if TYPE_CHECKING:
    from sens_cli.verify.environment import Environment
    from sens_cli.verify.outcome import Outcome

_HOST_FORM: Final = "HOST, HOST:PORT, or http://HOST:PORT without TLS."


def verify(  # noqa: PLR0917 - typer calls it with keywords
    environment: Annotated[
        str | None, typer.Option(help="Name of the environment: test or production.", show_default=False)
    ] = None,
    gitops: Annotated[
        Path | None,
        typer.Option(help="Folder of the GitOps repository. (default: the working directory, where it is one)"),
    ] = None,
    api_host: Annotated[str | None, typer.Option(help=f"Public host of the API: {_HOST_FORM}")] = None,
    docs_host: Annotated[str | None, typer.Option(help="Public host of the documentation.")] = None,
    http_ingestion_host: Annotated[str | None, typer.Option(help="Public host of the HTTP ingestion.")] = None,
    argo_host: Annotated[str | None, typer.Option(help="Public host of Argo CD.")] = None,
    address: Annotated[str | None, typer.Option(help="IP address that all hosts lead to.")] = None,
    address_ipv6: Annotated[str | None, typer.Option("--address-ipv6", help="The same for AAAA records.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace in Kubernetes.")] = None,
    release: Annotated[str | None, typer.Option(help="Name of the Helm release.")] = None,
    channel: Annotated[str | None, typer.Option(help="Versions it takes: alpha, rc or stable.")] = None,
    expect_version: Annotated[str | None, typer.Option(help="Version that should be running.")] = None,
    expect_commit: Annotated[str | None, typer.Option(help="Commit that should be running, 7 digits or more.")] = None,
    test_namespace: Annotated[str | None, typer.Option(help="Namespace of test.")] = None,
    production_namespace: Annotated[str | None, typer.Option(help="Namespace of production.")] = None,
    deploy_account: Annotated[
        str | None,
        typer.Option(help="User that looks after test. (default: system:serviceaccount:TEST-NAMESPACE:deploy-test)"),
    ] = None,
    public_data: Annotated[
        bool | None,
        typer.Option(
            "--public-data/--no-public-data", help="Whether the API's host serves /api/v1. (default: it does)"
        ),
    ] = None,
    public_metrics: Annotated[
        bool | None,
        typer.Option(
            "--public-metrics/--no-public-metrics", help="Whether the hosts serve /metrics. (default: they do not)"
        ),
    ] = None,
    kube_context: Annotated[str | None, typer.Option(help="Context of kubectl. (default: its current one)")] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", help="Certificates of your own authority, PEM; no other is trusted then."),
    ] = None,
    days: Annotated[
        int, typer.Option("--certificate-days", min=0, max=3650, help="Days that certificates must be valid for.")
    ] = 14,
    check: Annotated[
        list[str] | None, typer.Option(help="Only this check, or this group of checks; may be given several times.")
    ] = None,
    list_checks: Annotated[bool, typer.Option("--list", help="List the checks, and run none.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Checks that could not be run count as failures.")] = False,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds for the whole run.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Check an installation from outside and through kubectl, with a remedy for each failure.

    Options add to what the GitOps repository says, or take its place. Checks that need kubectl, or something that is not known, are
    shown as not run. Exits with 0 when no check failed, with 1 when one did.

    \b
    sens verify --environment test --gitops ../sens-platform-infra
    sens verify --environment production --check dns --check certificate --json
    sens verify --api-host api.example.org --docs-host docs.example.org --address 192.0.2.7
    sens verify --api-host http://127.0.0.1:8000 --docs-host http://127.0.0.1:8080
    """
    import asyncio

    from sens_cli.verify.catalogue import CHECKS, chosen
    from sens_cli.verify.outcome import Status
    from sens_cli.verify.report import document, print_report
    from sens_common.command_line.output import print_json, print_table

    if list_checks:
        print_table(("CHECK", "SHOWS THAT"), CHECKS.items(), empty="")
        return
    try:
        names = chosen(check or [])
    except KeyError as error:
        raise typer.BadParameter(f"there is no check {error.args[0]!r}: see sens verify --list") from None
    described = _described(environment, gitops)
    options: dict[str, str | bool | None] = {
        "api_host": api_host,
        "docs_host": docs_host,
        "http_ingestion_host": http_ingestion_host,
        "argo_host": argo_host,
        "address": address,
        "address_ipv6": address_ipv6,
        "namespace": namespace,
        "release": release,
        "channel": channel,
        "test_namespace": test_namespace,
        "production_namespace": production_namespace,
        "deploy_account": deploy_account,
        "public_data": public_data,
        "public_metrics": public_metrics,
    }
    described = _completed(described, options, expect_version, expect_commit)
    outcomes = asyncio.run(_run(described, names, ca_file, kube_context, days=days, timeout_seconds=timeout))
    bad = {Status.FAILED, Status.NOT_RUN} if strict else {Status.FAILED}
    passed = not any(outcome.status in bad for outcome in outcomes)
    if as_json:
        print_json(document(described.name, outcomes, passed=passed))
    else:
        print_report(outcomes)
    if not passed:
        raise typer.Exit(1)


def _described(name: str | None, gitops: Path | None) -> "Environment":
    """Return what the GitOps repository says of an environment, or nothing of it."""
    from sens_cli.verify.environment import Environment, description_file

    if name is None:
        if gitops is not None:
            raise typer.BadParameter("--gitops needs --environment")
        return Environment(name="installation")
    try:
        found = gitops is not None or description_file(Path(), name).is_file()
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
    return Environment.read(gitops or Path(), name) if found else Environment(name=name)


def _completed(
    environment: "Environment", options: Mapping[str, str | bool | None], version: str | None, commit: str | None
) -> "Environment":
    """Return the environment with the options; without a repository, some have to be given."""
    from sens_cli.verify.environment import expecting

    if environment.address is None and all(value is None or isinstance(value, bool) for value in options.values()):
        raise typer.BadParameter(
            "nothing is known of the installation: name the GitOps repository's folder with --gitops, or give --api-host and others"
        )
    try:
        return expecting(environment.completed(options), version, commit)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None


async def _run(
    environment: "Environment",
    names: Sequence[str],
    ca_file: Path | None,
    kube_context: str | None,
    *,
    days: int,
    timeout_seconds: float,
) -> "list[Outcome]":
    from sens_cli.verify.catalogue import catalogue
    from sens_cli.verify.connections import trust
    from sens_cli.verify.kubectl import Kubectl
    from sens_cli.verify.runner import run_checks
    from sens_cli.verify.web import Web

    context = trust(ca_file)
    async with Web(environment, context) as web:
        checks = catalogue(environment, web=web, context=context, kubectl=Kubectl(kube_context), days=days)
        return await run_checks({name: checks[name] for name in names}, timeout_seconds)
