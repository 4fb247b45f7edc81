"""``sens tenants``: make tenants, list them, and say what each may have and send."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from sens_common.command_line.options import DataDir, Json, Utc, tenant_name
from sens_platform_api.tenants.limits import LIMITS, Limit

app = typer.Typer(
    no_args_is_help=True, help="Customers of the installation, which own devices, metrics, keys and dead letters."
)

_NONE: Final = "none"


@app.command("create")
def create_tenant(
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="Its name, as in the topics.", show_default=False, callback=tenant_name)],
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Succeed when it exists already.")] = False,
    as_json: Json = False,
) -> None:
    """Create a tenant.

    \b
    sens tenants create greenhouse
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.tenants import administration

    tenant, created = in_transaction(
        data_dir, lambda connection: administration.create(connection, name, if_missing=if_missing)
    )
    if as_json:
        print_json(tenant._asdict() | {"created": created})
    else:
        typer.echo(f"tenant {tenant.name} {'is created' if created else 'exists already'}")


@app.command("list")
def list_tenants(data_dir: DataDir, utc: Utc = False, as_json: Json = False) -> None:
    """List all tenants."""
    from sens_common.command_line.output import print_json, print_table, short_time
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.tenants import repository

    found = in_transaction(data_dir, repository.list_all)
    if as_json:
        print_json([tenant._asdict() for tenant in found])
        return
    rows = [(tenant.name, short_time(tenant.created_at, utc=utc), tenant.device_limit) for tenant in found]
    print_table(("TENANT", "CREATED", "DEVICE LIMIT"), rows, empty="no tenants")


@app.command("delete")
def delete_tenant(
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="The tenant.", show_default=False, callback=tenant_name)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a tenant with all that it has: devices, metrics, keys, dead letters at once, readings in steps. It can't be undone.

    \b
    sens tenants delete trial-7
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.tenants import administration

    if not yes:
        typer.confirm(f"Delete the tenant {name} with all that it has?", abort=True, err=True)
    devices = in_transaction(data_dir, lambda connection: administration.delete(connection, name))
    if as_json:
        print_json({"tenant": name, "devices": devices})
    else:
        typer.echo(
            f"tenant {name} is deleted; the readings of its {devices:,} devices follow, while the API is running"
        )


@app.command("rename")
def rename_tenant(
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="The tenant.", show_default=False, callback=tenant_name)],
    new_name: Annotated[str, typer.Argument(help="Its new name.", show_default=False, callback=tenant_name)],
    as_json: Json = False,
) -> None:
    """Give a tenant another name. Its devices have to publish under the new one; messages under the old one become dead letters.

    \b
    sens tenants rename trial-7 greenhouse
    """
    from sens_common.command_line.output import print_json
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.tenants import administration

    in_transaction(data_dir, lambda connection: administration.rename(connection, name, new_name))
    if as_json:
        print_json({"tenant": new_name})
    else:
        typer.echo(f"tenant {name} is {new_name} now; its topics begin with sens/v1/{new_name}/")


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each limit; typer reads them from its signature."""
    signature = inspect.signature(command)
    parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    for limit in LIMITS:
        option = typer.Option(
            limit.option,
            metavar="NUMBER|none" if limit.may_be_none else "NUMBER",
            help=f"{limit.meaning[0].upper()}{limit.meaning[1:]}.",
            callback=_value(limit),
            show_default=False,
        )
        annotation = Annotated[str | None, option]
        parameters.append(
            inspect.Parameter(limit.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )
        command.__annotations__[limit.name] = annotation
    command.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return command


def _value(limit: Limit) -> Callable[[str | None], str | None]:
    def value(text: str | None) -> str | None:
        if text is None or (limit.may_be_none and text == _NONE):
            return text
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(limit.most))) or not (
            limit.least <= int(text) <= limit.most
        ):
            raise typer.BadParameter(
                f"a number from {limit.least} to {limit.most} is needed{', or none' if limit.may_be_none else ''}"
            )
        return text

    return value


@app.command("limits")
@_with_limits
def tenant_limits(
    data_dir: DataDir,
    name: Annotated[str, typer.Argument(help="The tenant.", show_default=False, callback=tenant_name)],
    as_json: Json = False,
    **given: Any,
) -> None:
    """Show what a tenant may have and send, and change it; a change holds within ten seconds, without a restart.

    \b
    sens tenants limits demo
    sens tenants limits demo --metrics 20000 --late-days 3650
    sens tenants limits demo --messages-per-second 500
    """
    from sens_common.command_line.output import print_json, print_table
    from sens_platform_api.administration import in_transaction
    from sens_platform_api.tenants import administration

    values = {limit: given[limit.name] for limit in LIMITS if given[limit.name] is not None}
    changes = {limit: None if value == _NONE else int(value) for limit, value in values.items()}
    found = in_transaction(data_dir, lambda connection: administration.change_limits(connection, name, changes))
    if as_json:
        print_json(found._asdict())
        return
    rows = [
        (
            option.replace("_", "-"),
            "none" if limit is None else f"{limit:,}",
            f"{found.used[option]:,}" if option in found.used else "",
        )
        for option, limit in found.limits.items()
    ]
    print_table(("LIMIT", "AT MOST", "NOW"), rows, empty="no limits")
    if found.changed:
        typer.echo(f"changed: {', '.join(found.changed).replace('_', '-')}; this holds within ten seconds")
