"""``sens dead-letters``: messages that could not be stored.

Those of the API key's tenant come over the API; those of any other tenant, or without one, from the database. Commands know neither
way: they work on the protocol `DeadLetters`.
"""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import typer

from sens_cli.options import ApiKey, ApiUrl, Limit
from sens_common.command_line.options import DataDir, Json, Utc
from sens_common.errors import SensError

app = typer.Typer(
    no_args_is_help=True, help="Messages that could not be stored: look at them, send them again, delete them."
)

_FILTERS: Final = ("reason", "device", "topic", "since", "before")
_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it

type Filters = dict[str, str | None]


class DeadLetters(Protocol):
    """Dead letters of one tenant, or those without one, as far as the filters name them."""

    def list(self, limit: int) -> list[dict[str, Any]]:
        """Return so many, newest first, as the API's reference describes them."""

    def get(self, letter_id: int) -> dict[str, Any]:
        """Return one with its payload, whatever the filters say."""

    def replay(self, ids: Sequence[int], progress: Callable[[int, int, int], None]) -> None:
        """Replay these, or without any all that the filters name.

        Args:
            ids: Numbers of dead letters.
            progress: Is told again and again how many were replayed, how many can't be because they are incomplete, and how many remain.
        """

    def delete(self, ids: Sequence[int]) -> int:
        """Delete these, or without any all that the filters name; return how many."""


Unrouted = Annotated[
    bool,
    typer.Option(
        "--unrouted",
        help="Those whose topics name no tenant that exists; from the database, not over the API.",
    ),
]
OfTenant = Annotated[
    str | None,
    typer.Option("--tenant", help="Those of this tenant, which need not exist; from the database, not over the API."),
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
    sens dead-letters list --topic 'sens/v1/demo/+/telemetry' --since 2026-11-25T12:00:00Z
    sens dead-letters list --tenant not-made-yet
    sens dead-letters list --unrouted
    """
    from sens_common.command_line.output import print_json, print_table, short_time

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    found = _dead_letters(data_dir, tenant, unrouted, api_url, api_key, filters).list(limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (each["id"], short_time(each["dead_lettered_at"], utc=utc), each["reason"], each["topic"], each["detail"])
        for each in found
    ]
    print_table(("ID", "AT", "REASON", "TOPIC", "DETAIL"), rows, empty="no dead letters")


def _dead_letters(  # noqa: PLR0917 - the options of each command
    data_dir: Path,
    tenant: str | None,
    unrouted: bool,
    api_url: str | None,
    api_key: str | None,
    filters: Filters,
) -> DeadLetters:
    if tenant is not None and unrouted:
        raise typer.BadParameter("give either --tenant or --unrouted")
    if tenant is not None or unrouted:
        from sens_cli.administration import DEAD_LETTERS, load

        in_database: Callable[[Path, str | None, Filters], DeadLetters] = load(DEAD_LETTERS)
        return in_database(data_dir, tenant, filters)
    from sens_cli.api import Api
    from sens_cli.api_dead_letters import DeadLettersOverApi
    from sens_cli.target import find_target

    return DeadLettersOverApi(Api(find_target(data_dir, api_url, api_key)), filters)


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
    from sens_common.command_line.output import print_json, print_pairs

    letter = _dead_letters(data_dir, tenant, unrouted, api_url, api_key, dict.fromkeys(_FILTERS)).get(number)
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

    A replayed message is no longer a dead letter. When the command was interrupted, run it again.

    \b
    sens dead-letters replay 17 18
    sens dead-letters replay --all --reason malformed_payload
    sens dead-letters replay --all --before 2026-11-25T12:00:00Z
    """
    from sens_common.command_line.output import print_json, progress

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    _either(numbers, every, filters)
    letters = _dead_letters(data_dir, tenant, unrouted, api_url, api_key, filters)
    done = {"replayed": 0, "incomplete": 0}
    started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        with progress() as show:

            def count(replayed: int, incomplete: int, remaining: int) -> None:
                done["replayed"] += replayed
                done["incomplete"] += incomplete
                show(f"replayed {done['replayed']:,}; {remaining:,} to go")

            letters.replay(numbers or (), count)
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
            f"{done['incomplete']} can't be replayed: only their beginnings are kept, and the stream no longer has the whole"
        )


def _either(numbers: list[int] | None, every: bool, filters: dict[str, str | None]) -> None:
    """Refuse numbers together with anything else, and nothing at all."""
    if bool(numbers) == every or (numbers and any(value is not None for value in filters.values())):
        raise typer.BadParameter(
            "give either numbers, or --all (with --reason, --device, --topic, --since or --before)"
        )


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
    from sens_common.command_line.output import print_json

    filters = {"reason": reason, "device": device, "topic": topic, "since": since, "before": before}
    _either(numbers, every, filters)
    deleted = _dead_letters(data_dir, tenant, unrouted, api_url, api_key, filters).delete(numbers or ())
    if as_json:
        print_json({"deleted": deleted})
    else:
        typer.echo(f"deleted {deleted}")
