"""Options that commands of several packages have."""

from pathlib import Path
from typing import Annotated

import typer

from sens_common.command_line.installation import DATA_DIR_VARIABLE, default_data_dir
from sens_common.names import TENANT_RULE, is_tenant_name

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Utc = Annotated[bool, typer.Option("--utc", help="Show times in UTC instead of this machine's time zone.")]


def tenant_name(text: str | None) -> str | None:
    """Return a tenant's name as it was given; the callback of an option or argument.

    Raises:
        BadParameter: No tenant can be called so.
    """
    if text is not None and not is_tenant_name(text):
        raise typer.BadParameter(f"a tenant's name has {TENANT_RULE}")
    return text
