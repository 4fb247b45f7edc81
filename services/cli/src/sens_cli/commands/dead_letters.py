"""``sens dead-letters``: messages that could not be stored."""

import base64
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, DataDir, Json, Limit
from sens_cli.target import Target

app = typer.Typer(no_args_is_help=True, help="Messages that could not be stored: look at them, and send them again.")

_PAGE: Final = 1000
_REPLAY_PAGE: Final = 500

Unrouted = Annotated[
    bool,
    typer.Option(
        "--unrouted", help="Those whose topic names no valid tenant; asks the servers of this instance, not the API."
    ),
]
OfTenant = Annotated[
    str | None,
    typer.Option(
        "--tenant", help="Those of this tenant, which need not exist; asks the servers of this instance, not the API."
    ),
]
Number = Annotated[int, typer.Argument(min=1, help="Number of the dead letter.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, such as malformed_payload.")]
OfDevice = Annotated[str | None, typer.Option("--device", help="Only those of this device.")]


@app.command("list")
def list_dead_letters(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    reason: Reason = None,
    device: OfDevice = None,
    limit: Limit = 100,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List dead letters, oldest first.

    \b
    sens dead-letters list
    sens dead-letters list --tenant not-made-yet
    sens dead-letters list --unrouted
    """
    from sens_cli.api import Api
    from sens_cli.output import print_json, print_table
    from sens_cli.target import find_target

    if owner := _owner(tenant, unrouted):
        found = _owners_list(data_dir, owner, _filters(reason, device), limit)
    else:
        parameters = {"reason": reason, "device": device}
        with Api(find_target(data_dir, api_url, api_key)) as api:
            found = list(api.pages("dead-letters", "dead_letters", parameters, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [(each["id"], each["dead_lettered_at"], each["reason"], each["topic"], each["detail"]) for each in found]
    print_table(("ID", "AT", "REASON", "TOPIC", "DETAIL"), rows, empty="no dead letters")


def _owner(tenant: str | None, unrouted: bool) -> str | None:
    """Return the administration command's option that says whose dead letters are meant, None for those of the API key."""
    if tenant is not None and unrouted:
        raise typer.BadParameter("give either --tenant or --unrouted")
    return f"--tenant={tenant}" if tenant is not None else "--unrouted" if unrouted else None


def _owners_list(data_dir: Path, owner: str, filters: list[str], limit: int) -> list[dict[str, Any]]:
    from sens_cli.administration import administer

    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None and len(found) < limit:
        page = min(limit - len(found), _PAGE)
        answer = administer(
            data_dir,
            "dead-letters",
            "list",
            owner,
            f"--limit={page}",
            f"--after={after}",
            *filters,
        )
        found += answer["dead_letters"]
        after = answer["after"]
    return found


def _filters(reason: str | None, device: str | None) -> list[str]:
    return [f"--{name}={value}" for name, value in (("reason", reason), ("device", device)) if value is not None]


@app.command("show")
def show_dead_letter(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    number: Number,
    raw: Annotated[bool, typer.Option("--raw", help="Print the payload's bytes, and nothing else.")] = False,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show one dead letter with its payload.

    \b
    sens dead-letters show 17
    sens dead-letters show 17 --raw > payload.bin
    """
    from sens_cli.administration import administer
    from sens_cli.api import Api
    from sens_cli.output import print_json, print_pairs
    from sens_cli.target import find_target

    if owner := _owner(tenant, unrouted):
        letter = administer(data_dir, "dead-letters", "show", owner, str(number))
    else:
        with Api(find_target(data_dir, api_url, api_key)) as api:
            letter = api.get(f"dead-letters/{number}")
    if raw:
        typer.echo(base64.b64decode(letter["payload_base64"]), nl=False)
    elif as_json:
        print_json(letter)
    else:
        hidden = "payload_base64" if letter["payload_text"] is not None else "payload_text"
        print_pairs((name.replace("_", " "), value) for name, value in letter.items() if name != hidden)


@app.command("replay")
def replay(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    numbers: Annotated[
        list[int] | None, typer.Argument(min=1, help="Numbers of the dead letters.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All, or those that --reason and --device name.")] = False,
    reason: Reason = None,
    device: OfDevice = None,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Send dead letters through the platform again, when their cause is gone; each is stored once.

    \b
    sens dead-letters replay 17 18
    sens dead-letters replay --all --reason malformed_payload
    """
    from sens_cli.administration import administer
    from sens_cli.output import print_json
    from sens_cli.target import find_target

    if bool(numbers) == every or (numbers and (reason or device)):
        raise typer.BadParameter("give either numbers, or --all (with --reason or --device)")
    if owner := _owner(tenant, unrouted):
        which = ["--all", *_filters(reason, device)] if every else [str(number) for number in numbers or []]
        answer = administer(data_dir, "dead-letters", "replay", owner, *which)
    else:
        answer = _replay(find_target(data_dir, api_url, api_key), numbers or [], reason, device)
    if as_json:
        print_json(answer)
        return
    typer.echo(f"replayed {answer['replayed']}")
    if answer["unreadable"]:
        typer.echo(f"{answer['unreadable']} can't be replayed: not readable")


def _replay(target: Target, numbers: list[int], reason: str | None, device: str | None) -> dict[str, int]:
    from sens_cli.api import Api

    done = {"replayed": 0, "unreadable": 0}
    with Api(target) as api:
        for number in numbers:
            api.post(f"dead-letters/{number}/replay")
            done["replayed"] += 1
        cursor: str | None = None
        while not numbers:
            answer = api.post(
                "dead-letters/replay", {"reason": reason, "device": device, "limit": _REPLAY_PAGE, "cursor": cursor}
            )
            done["replayed"] += answer["replayed"]
            done["unreadable"] += answer["unreadable"]
            cursor = answer["next"]
            if cursor is None:
                break
    return done
