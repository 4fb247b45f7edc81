"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Final

import typer

from sens_cli.installation import DATA_DIR_VARIABLE, default_data_dir

API_URL_VARIABLE: Final = "SENS_API_URL"
API_KEY_VARIABLE: Final = "SENS_API_KEY"
MQTT_URL_VARIABLE: Final = "SENS_MQTT_URL"

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar=DATA_DIR_VARIABLE,
        default_factory=default_data_dir,
        show_default=".sens in the checkout, else in the working directory",
        help="Data folder of the instance on this machine.",
    ),
]
ApiUrl = Annotated[
    str | None,
    typer.Option("--api-url", envvar=API_URL_VARIABLE, help="Base URL of the API. (default: the running instance's)"),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar=API_KEY_VARIABLE, help="API key. (default: the running instance's first key)"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Utc = Annotated[bool, typer.Option("--utc", help="Show times in UTC instead of this machine's time zone.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]
Device = Annotated[str, typer.Argument(help="Name of the device.", show_default=False)]
