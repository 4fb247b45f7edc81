"""Options of the commands that talk to the API or to the broker."""

from typing import Annotated, Final

import typer

API_URL_VARIABLE: Final = "SENS_API_URL"
API_KEY_VARIABLE: Final = "SENS_API_KEY"
MQTT_URL_VARIABLE: Final = "SENS_MQTT_URL"

ApiUrl = Annotated[
    str | None,
    typer.Option("--api-url", envvar=API_URL_VARIABLE, help="Base URL of the API. (default: the running instance's)"),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar=API_KEY_VARIABLE, help="API key. (default: the running instance's first key)"),
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]
