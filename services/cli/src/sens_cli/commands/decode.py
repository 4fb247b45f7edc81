"""``sens decode``: what a source makes of messages."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json

_MOST_BYTES: Final = 10_000_000
_MOST_MESSAGES: Final = 1000


class _Message(NamedTuple):
    """A message, and where it was read: empty where it is the only one of standard input."""

    where: str
    body: bytes


def decode(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    source: Annotated[str, typer.Option(help="Name of the source.", show_default=False)],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files with a message each; without any, standard input.", show_default=False),
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a message; empty lines are none.")] = False,
    topic: Annotated[str, typer.Option(help="MQTT topic that they were published to.", show_default=False)] = "",
    query: Annotated[str, typer.Option(help="Query of the HTTP request's address.", show_default=False)] = "",
    received: Annotated[
        str | None, typer.Option(help="When they were received. (default: now)", show_default=False)
    ] = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what each step makes of messages: one of standard input, or those of files. Nothing is stored.

    Several are counted at the end; with --json each is a line. Exits with 1 when one of them would be a dead letter.

    \b
    sens decode --source field < message.json
    sens decode --source field --lines uplinks.jsonl
    echo '{"temperature": 21.5}' | sens decode --source house --topic house/kitchen
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_json_line

    messages = _messages(files or [], lines=lines)
    api = Api(find_target(data_dir, api_url, api_key))
    parameters = {"topic": topic or None, "query": query or None, "received_at": received}
    headers = {"Content-Type": "application/octet-stream"}
    counts = dict.fromkeys(("stored", "without measurements", "refused"), 0)
    for number, message in enumerate(messages):
        found = api.post(f"sources/{segment(source)}/try", parameters, headers=headers, body=message.body)
        counts[_outcome(found)] += 1
        if as_json and message.where:
            print_json_line({"from": message.where, **found})
        elif as_json:
            print_json(found)
        else:
            if message.where:
                typer.echo(f"{chr(10) if number else ''}{message.where}")
            _print(found)
    if len(messages) > 1 and not as_json:
        typer.echo(f"\n{len(messages)} messages: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if counts["refused"]:
        raise typer.Exit(1)


def _messages(files: Sequence[Path], *, lines: bool) -> list[_Message]:
    """Return the messages of files, or of standard input.

    Raises:
        BadParameter: A file can't be read, or they are none or too many.
    """
    from sens_cli.documents import read_bytes

    found = [_Message(str(file), read_bytes(file)) for file in files] or [
        _Message("", sys.stdin.buffer.read(_MOST_BYTES))
    ]
    if lines:
        found = [
            _Message(f"{message.where or 'line'}{':' if message.where else ' '}{number}", line)
            for message in found
            for number, line in enumerate(message.body.splitlines(), 1)
            if line.strip()
        ]
    if not found:
        raise typer.BadParameter("there is no message: all lines are empty")
    if len(found) > _MOST_MESSAGES:
        raise typer.BadParameter(
            f"these are {len(found):,} messages; at most {_MOST_MESSAGES:,} are shown at once. sens import reads histories"
        )
    return found


def _outcome(found: dict[str, Any]) -> str:
    if found["refused"]:
        return "refused"
    has_values = any(uplink["metrics"] for uplink in found["uplinks"])
    return "stored" if has_values else "without measurements"


def _print(found: dict[str, Any]) -> None:
    if found["refusal"] is not None:
        _print_refusal(found["refusal"])
        return
    if found["without_measurements"] is not None:
        typer.echo(f"it carries no measurements by its nature: {found['without_measurements']}")
        return
    for number, uplink in enumerate(found["uplinks"]):
        if number:
            typer.echo()
        _print_uplink(uplink)


def _print_uplink(uplink: dict[str, Any]) -> None:
    from sens_common.command_line.output import print_pairs, print_table

    radio = ", ".join(f"{name} {value:g}" for name, value in uplink["radio"].items())
    print_pairs(
        [
            ("device", uplink["device"]),
            ("time", uplink["time"] or "that of its receipt"),
            ("bytes", f"{uplink['bytes']} on port {uplink['f_port']}" if uplink["bytes"] is not None else None),
            ("radio", radio or None),
            ("profile", uplink["profile"]),
            ("codec", uplink["codec"]),
        ]
    )
    if uplink["fields"]:
        print_table(("FIELD", "VALUE"), list(uplink["fields"].items()), empty="")
    if uplink["skipped"]:
        typer.echo(f"{uplink['skipped']} values are of kinds that are not stored")
    if uplink["refusal"] is not None:
        _print_refusal(uplink["refusal"])
        return
    rows = [(each["metric"], each["value"], each["unit_text"] or None) for each in uplink["metrics"]]
    print_table(("METRIC", "VALUE", "UNIT"), rows, empty="nothing of it is stored")


def _print_refusal(refusal: dict[str, Any]) -> None:
    from sens_common.command_line.output import show

    steps = {"unwrap": "unwrapping", "decode": "decoding", "name": "naming"}
    typer.echo(f"{steps[refusal['step']]} failed ({refusal['reason']}): {show(refusal['detail'])}")
