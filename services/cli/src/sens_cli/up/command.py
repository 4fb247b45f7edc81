"""``sens up``: from the command line to the platform, and from its errors to a line for people."""

import asyncio
import ipaddress
import sys
from pathlib import Path

from sens_cli.up.components import Options
from sens_cli.up.display import PlainDisplay, TerminalDisplay
from sens_cli.up.platform import run
from sens_cli.up.ports import ports
from sens_common.errors import SettingsError


def up(data_dir: Path, *, port_offset: int, options: Options, terminal: bool | None = None) -> None:
    """Run the platform in the foreground.

    Args:
        data_dir: Its data folder; made where it is missing.
        port_offset: Added to every port.
        options: What runs, and how.
        terminal: Whether to show a live line; None to look at standard output.

    Raises:
        SensError: It can't be started, or can't be kept running.
    """
    for option, host in (
        ("--mqtt-host", options.mqtt_host),
        ("--api-host", options.api_host),
        ("--docs-host", options.docs_host),
    ):
        _check_address(option, host)
    table = ports(port_offset)
    display = TerminalDisplay() if (sys.stdout.isatty() if terminal is None else terminal) else PlainDisplay()
    display.open()
    try:
        asyncio.run(run(data_dir, table, options, display))
    finally:
        display.close()


def _check_address(option: str, host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(
            f"{option} {host!r} is not an IP address; it accepts one of this machine's, or 0.0.0.0 for all of them"
        ) from None
