"""``sens decode``: what a source makes of a message."""

import sys
from typing import Annotated, Any, Final

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json

_MOST_BYTES: Final = 10_000_000


def decode(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    source: Annotated[str, typer.Option(help="Name of the source.", show_default=False)],
    topic: Annotated[str, typer.Option(help="MQTT topic that it was published to.", show_default=False)] = "",
    query: Annotated[str, typer.Option(help="Query of the HTTP request's address.", show_default=False)] = "",
    received: Annotated[
        str | None, typer.Option(help="When it was received. (default: now)", show_default=False)
    ] = None,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show what each step makes of a message, which is read from standard input. Nothing is stored.

    Exits with 1 when it would be a dead letter.

    \b
    sens decode --source field < message.json
    echo '{"temperature": 21.5}' | sens decode --source house --topic house/kitchen
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    body = sys.stdin.buffer.read(_MOST_BYTES)
    parameters = {"topic": topic or None, "query": query or None, "received_at": received}
    found = Api(find_target(data_dir, api_url, api_key)).post(
        f"sources/{segment(source)}/try", parameters, headers={"Content-Type": "application/octet-stream"}, body=body
    )
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["refused"]:
        raise typer.Exit(1)


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
