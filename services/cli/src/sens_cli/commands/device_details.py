"""``sens devices show``: a device, its metrics and their units."""

from typing import Annotated

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json, Utc


def show_device(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[str, typer.Argument(help="Name of the device.", show_default=False)],
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Show a device and its metrics, with their units as far as its profile tells them.

    \b
    sens devices show 0004a30b001c0530
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    found = Api(find_target(data_dir, api_url, api_key)).get(f"devices/{segment(device)}")
    if as_json:
        print_json(found)
        return
    rows = [
        (each["metric"], each["kind"], each.get("unit_text"), short_time(each["last_measured_at"], utc=utc))
        for each in found["metrics"]
    ]
    print_table(("METRIC", "KIND", "UNIT", "LAST MEASURED"), rows, empty="no metrics")
