"""Writes the users of the chart's NATS from the product's table: ``python -m tools.nats_users [--check]``."""

import sys
from pathlib import Path
from typing import Final

import yaml

from sens_common.nats_permissions import API_USER, HTTP_INGESTION_USER, INGESTION_USER, PERMISSIONS, TELEMETRY_USER

FILE: Final = Path(__file__).parents[1] / "infra/helm/sens-platform/files/nats-users.yaml"
_HEAD: Final = "# Written by scripts/generate-nats-users from sens_common.nats_permissions; change that file instead.\n"
_SECRETS: Final = {
    API_USER: "api",
    INGESTION_USER: "ingestion",
    HTTP_INGESTION_USER: "http-ingestion",
    TELEMETRY_USER: "telemetry",
}
"""What is between ``nats-`` and ``-password`` in the key of a user's password in the cluster's secret."""


def text() -> str:
    """Return the content of the file."""
    users = {
        name: {"secret": _SECRETS[name]} | {what: list(subjects) for what, subjects in may._asdict().items()}
        for name, may in PERMISSIONS.items()
    }
    return _HEAD + yaml.safe_dump(users, sort_keys=False, width=200)


def main() -> int:
    """Write the file, or compare it; return the exit code."""
    if sys.argv[1:] not in ([], ["--check"]):
        print("usage: scripts/generate-nats-users [--check]", file=sys.stderr)
        return 2
    if not sys.argv[1:]:
        FILE.write_text(text(), encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != text():
        print(f"{FILE.name} of the chart differs from sens_common.nats_permissions; run ./scripts/generate-nats-users")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
