"""``sens devices profile``: the profile that a device has by hand."""

from typing import Annotated

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json


def give_profile(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[str, typer.Argument(help="Name of the device.", show_default=False)],
    profile: Annotated[str | None, typer.Argument(help="Name of the profile.", show_default=False)] = None,
    none: Annotated[bool, typer.Option("--none", help="Take its profile away; the rules of its source count.")] = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Give a device a profile by hand, or show the one that it has; it counts before all rules of sources.

    \b
    sens devices profile 0004a30b001c0530
    sens devices profile 0004a30b001c0530 climate
    sens devices profile 0004a30b001c0530 --none
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    if none and profile is not None:
        raise typer.BadParameter("name a profile, or give --none, not both")
    api, path = Api(find_target(data_dir, api_url, api_key)), f"devices/{segment(device)}/profile"
    found = api.put(path, {"profile": profile}) if none or profile is not None else api.get(path)
    if as_json:
        print_json(found)
    elif found["profile"] is None:
        typer.echo(f"device {found['device']} has no profile by hand; the rules of its source count")
    else:
        typer.echo(f"device {found['device']} has the profile {found['profile']}")
