"""The services' log lines as people read them."""

import json
from typing import Final

_STOPPED: Final = "stopped by an error"
"""Event of `sens_common.lifecycle.run` whose error says all."""


def readable(line: str) -> str:
    """Take event and error out of a structured log line; leave any other line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    event, error = str(entry["event"]), entry.get("error")
    if not error:
        return event
    return str(error) if event == _STOPPED else f"{event}: {error}"
