"""``sens dead-letters``: messages that could not be stored."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl, DataDir, Json, Limit, Utc
from sens_cli.target import Target, find_target
from sens_common.errors import SensError

app = typer.Typer(
    no_args_is_help=True, help="Messages that could not be stored: look at them, send them again, delete them."
)

_PAGE: Final = 1000
_REPLAY_PAGE: Final = 5000
_DELETE_PAGE: Final = 10_000
_OWNERS_REPLAY_PAGE: Final = 10_000
_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it

Unrouted = Annotated[
    bool,
    typer.Option(
        "--unrouted",
        help="Those whose topics name no tenant that exists; asks the servers of this instance, not the API.",
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
OfTopic = Annotated[
    str | None,
    typer.Option("--topic", help="Only those with this topic, or one that this filter of MQTT (+, #) matches."),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Only those that were dead-lettered at this time or later: RFC 3339, or epoch in s, ms, µs or ns."
    ),
]
Before = Annotated[str | None, typer.Option(help="Only those that were dead-lettered before this time.")]


@app.command("list")
def list_dead_letters(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    reason: Reason = None,
    device: OfDevice = None,
    topic: OfTopic = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = 100,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List dead letters, newest first.

    \b
    sens dead-letters list
    sens dead-letters list --topic 'sens/v1/demo/kitchen-+/telemetry' --since 2026-11-25T12:00:00Z
    sens dead-letters list --tenant not-made-yet
    sens dead-letters list --unrouted
    """
    from sens_cli.api import Api
    from sens_common.command_line.output import print_json, print_table, short_time

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    if owner := _owner(tenant, unrouted):
        found = _owners_list(data_dir, owner, _options(filters), limit)
    else:
        api = Api(find_target(data_dir, api_url, api_key))
        found = list(api.pages("dead-letters", "dead_letters", filters, limit=limit, page=_PAGE))
    if as_json:
        print_json(found)
        return
    rows = [
        (each["id"], short_time(each["dead_lettered_at"], utc=utc), each["reason"], each["topic"], each["detail"])
        for each in found
    ]
    print_table(("ID", "AT", "REASON", "TOPIC", "DETAIL"), rows, empty="no dead letters")


def _owner(tenant: str | None, unrouted: bool) -> str | None:
    """Return the administration command's option that says whose dead letters are meant, None for those of the API key."""
    if tenant is not None and unrouted:
        raise typer.BadParameter("give either --tenant or --unrouted")
    return f"--tenant={tenant}" if tenant is not None else "--unrouted" if unrouted else None


def _owners_list(data_dir: Path, owner: str, filters: list[str], limit: int) -> list[dict[str, Any]]:
    from sens_cli.administration import administer

    found: list[dict[str, Any]] = []
    below: list[str] = []
    while len(found) < limit:
        page = min(limit - len(found), _PAGE)
        answer = administer(data_dir, "dead-letters", "list", owner, f"--limit={page}", *filters, *below)
        found += answer["dead_letters"]
        if answer["below"] is None:
            break
        below = [f"--below={answer['below']}"]
    return found


def _options(filters: dict[str, str | None]) -> list[str]:
    """Return the administration command's options that say which dead letters are meant."""
    return [f"--{name}={value}" for name, value in filters.items() if value is not None]


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
    from sens_common.command_line.output import print_json, print_pairs

    if owner := _owner(tenant, unrouted):
        letter = administer(data_dir, "dead-letters", "show", owner, str(number))
    else:
        api = Api(find_target(data_dir, api_url, api_key))
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
    every: Annotated[bool, typer.Option("--all", help="All, or those that the filters name.")] = False,
    reason: Reason = None,
    device: OfDevice = None,
    topic: OfTopic = None,
    since: Since = None,
    before: Before = None,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Send dead letters through the platform again, when their cause is gone; each is stored once.

    What was replayed is gone from the dead letters: when the command was interrupted, give it again.

    \b
    sens dead-letters replay 17 18
    sens dead-letters replay --all --reason malformed_payload
    sens dead-letters replay --all --before 2026-11-25T12:00:00Z
    """
    from sens_common.command_line.output import print_json, progress

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    _either(numbers, every, filters)
    if owner := _owner(tenant, unrouted):
        steps = _owners_replay(data_dir, owner, numbers or [], _options(filters))
    else:
        steps = _replay(find_target(data_dir, api_url, api_key), numbers or [], filters)
    done = {"replayed": 0, "incomplete": 0}
    started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        with progress() as show:
            for answer in steps:
                done = {name: number + answer[name] for name, number in done.items()}
                show(f"replayed {done['replayed']:,}; {answer['remaining']:,} to go")
    except (SensError, KeyboardInterrupt) as error:
        going_on = "" if before or numbers else f", and --before {started} to leave out what has come back meanwhile"
        if not numbers or isinstance(error, KeyboardInterrupt):
            typer.echo(f"replayed {done['replayed']}; for the others give the same command again{going_on}", err=True)
        elif done["replayed"]:
            typer.echo(f"replayed {done['replayed']}, and none after that", err=True)
        if isinstance(error, SensError):
            raise
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        print_json(done)
        return
    typer.echo(f"replayed {done['replayed']}")
    if done["incomplete"]:
        typer.echo(
            f"{done['incomplete']} can't be replayed: only their beginnings are kept, and the log no longer has the whole"
        )


def _either(numbers: list[int] | None, every: bool, filters: dict[str, str | None]) -> None:
    """Refuse numbers together with anything else, and nothing at all."""
    if bool(numbers) == every or (numbers and any(value is not None for value in filters.values())):
        raise typer.BadParameter(
            "give either numbers, or --all (with --reason, --device, --topic, --since or --before)"
        )


def _replay(target: Target, numbers: list[int], filters: dict[str, str | None]) -> Iterator[dict[str, int]]:
    """Replay through the API; yield what each call has done."""
    from sens_cli.api import Api

    api = Api(target)
    for number in numbers:
        api.post(f"dead-letters/{number}/replay")
        yield {"replayed": 1, "incomplete": 0, "remaining": 0}
    cursor: str | None = None
    while not numbers:
        answer = api.post("dead-letters/replay", {**filters, "limit": _REPLAY_PAGE, "cursor": cursor})
        yield answer
        cursor = answer["next"]
        if cursor is None:
            break


def _owners_replay(data_dir: Path, owner: str, numbers: list[int], options: list[str]) -> Iterator[dict[str, int]]:
    """Replay past the API; yield what each call has done."""
    from sens_cli.administration import administer

    if numbers:
        yield administer(data_dir, "dead-letters", "replay", owner, *map(str, numbers))
        return
    going_on: list[str] = []
    while True:
        answer = administer(
            data_dir, "dead-letters", "replay", owner, "--all", f"--limit={_OWNERS_REPLAY_PAGE}", *options, *going_on
        )
        yield answer
        if answer["above"] is None:
            break
        going_on = [f"--above={answer['above']}", f"--until={answer['until']}"]


@app.command("delete")
def delete(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    numbers: Annotated[
        list[int] | None, typer.Argument(min=1, help="Numbers of the dead letters.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All, or those that the filters name.")] = False,
    reason: Reason = None,
    device: OfDevice = None,
    topic: OfTopic = None,
    since: Since = None,
    before: Before = None,
    tenant: OfTenant = None,
    unrouted: Unrouted = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Delete dead letters for good: their messages can't be replayed any more.

    \b
    sens dead-letters delete 17 18
    sens dead-letters delete --all --device broken-1
    sens dead-letters delete --all --before 2026-11-25T12:00:00Z
    """
    from sens_cli.administration import administer
    from sens_common.command_line.output import print_json

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    _either(numbers, every, filters)
    if owner := _owner(tenant, unrouted):
        which = list(map(str, numbers)) if numbers else ["--all", *_options(filters)]
        deleted = administer(data_dir, "dead-letters", "delete", owner, *which)["deleted"]
    else:
        deleted = _delete(find_target(data_dir, api_url, api_key), numbers or [], filters)
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"deleted {deleted}")


def _delete(target: Target, numbers: list[int], filters: dict[str, str | None]) -> int:
    """Delete through the API; return how many."""
    from sens_cli.api import Api

    api = Api(target)
    for number in numbers:
        api.delete(f"dead-letters/{number}")
    if numbers:
        return len(numbers)
    deleted = 0
    everything = "true" if all(value is None for value in filters.values()) else None
    # What comes meanwhile is not meant.
    filters = {**filters, "before": filters["before"] or datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    while True:
        answer = api.delete("dead-letters", {**filters, "all": everything, "limit": _DELETE_PAGE})
        deleted += int(answer["deleted"])
        if not answer["deleted"] or not answer["remaining"]:
            return deleted
