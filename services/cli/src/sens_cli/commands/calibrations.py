"""``sens calibrations``: from when on values of a device's metric are read with a scale and an offset."""

from typing import Annotated, Any

import typer

from sens_cli.options import ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json, Utc

app = typer.Typer(no_args_is_help=True, help="From when on values are read with a scale and an offset.")

Device = Annotated[str, typer.Argument(help="Name of the device.", show_default=False)]


@app.command("list")
def list_calibrations(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Device,
    removed: Annotated[bool, typer.Option("--removed", help="With those that were removed or replaced.")] = False,
    utc: Utc = False,
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """List the calibrations of a device.

    \b
    sens calibrations list sensor-0001
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json, print_table, short_time

    parameters = {"removed": "true" if removed else None}
    found = Api(find_target(data_dir, api_url, api_key)).get(f"devices/{segment(device)}/calibrations", parameters)
    if as_json:
        print_json(found["calibrations"])
        return
    rows = [
        (
            each["calibration"],
            each["metric"],
            short_time(each["valid_from"], utc=utc),
            each["scale"],
            each["offset"],
            each["reason"] or None,
            each["added_by"],
            *([short_time(each["removed_at"], utc=utc)] if removed else []),
        )
        for each in found["calibrations"]
    ]
    columns = ("ID", "METRIC", "VALID FROM", "SCALE", "OFFSET", "REASON", "BY", *(["REMOVED"] if removed else []))
    print_table(columns, rows, empty="no calibrations")


@app.command("add")
def add_calibration(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Device,
    metric: Annotated[str, typer.Argument(help="Name of the metric.", show_default=False)],
    valid_from: Annotated[
        str, typer.Option("--from", help="From when on it is valid: RFC 3339, an epoch, now, -2d.", show_default=False)
    ],
    scale: Annotated[float, typer.Option(help="By which what is stored is multiplied.")] = 1.0,
    offset: Annotated[float, typer.Option(help="What is added after that.")] = 0.0,
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    as_json: Json = False,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Read values of a metric, from a time on, as what is stored times the scale plus the offset. What is stored stays as it is.

    A calibration without --scale and --offset ends the one before.

    \b
    sens calibrations add sensor-0001 temperature --from 2026-11-24T08:00:00Z --offset -0.3 --reason 'compared with the reference'
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target
    from sens_common.command_line.output import print_json

    body: dict[str, Any] = {
        "metric": metric,
        "valid_from": valid_from,
        "scale": scale,
        "offset": offset,
        "reason": reason,
    }
    added = Api(find_target(data_dir, api_url, api_key)).post_document(f"devices/{segment(device)}/calibrations", body)
    if as_json:
        print_json(added)
        return
    typer.echo(
        f"calibration {added['calibration']}: {metric} of device {device} is read times {added['scale']:g} {added['offset']:+g} from {added['valid_from']} on"
    )


@app.command("remove")
def remove_calibration(
    data_dir: DataDir,
    device: Device,
    calibration: Annotated[int, typer.Argument(help="Id of the calibration.", show_default=False)],
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
) -> None:
    """Remove a calibration: the one before it is valid again. That it held stays known.

    \b
    sens calibrations remove sensor-0001 7
    """
    from sens_cli.api import Api, segment
    from sens_cli.target import find_target

    Api(find_target(data_dir, api_url, api_key)).delete(f"devices/{segment(device)}/calibrations/{calibration}")
    typer.echo(f"calibration {calibration} of device {device} is removed")
