"""``sens redecode``: what a wrong codec has stored is put right from the messages."""

from typing import Annotated

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json


def redecode(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[str, typer.Option(help="Whose messages are decoded again.", show_default=False)],
    codec: Annotated[
        str, typer.Option(help="Version of a codec that decodes them, for example dragino@3.", show_default=False)
    ],
    start: Annotated[
        str,
        typer.Option(
            "--from", help="Readings from this time on: RFC 3339, or relative, such as -7d.", show_default=False
        ),
    ],
    end: Annotated[
        str | None, typer.Option("--to", help="And before this time; without it, now.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Decode messages of a device again, and store what they say now in the place of what they had led to.

    It takes the messages that the device's source keeps (sens sources change --keep-frames), and those that the stream still has. The work goes on
    when this command is interrupted; the same command follows it again.

    \b
    sens redecode --device 0004a30b001c0530 --from -7d --codec dragino@3 --dry-run
    sens redecode --device 0004a30b001c0530 --from -7d --codec dragino@3
    """
    from sens_cli.api import Api
    from sens_cli.codec_runs import follow, show
    from sens_cli.target import find_target

    api = Api(find_target(data_dir, api_url, api_key))
    order = {"kind": "dry_run" if dry_run else "redecode", "device": device, "codec": codec, "from": start}
    run = api.post_document("codec-runs", order | ({} if end is None else {"to": end}))
    show(follow(api, run, lambda line: typer.echo(line, err=True)), as_json=as_json)
