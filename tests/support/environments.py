"""Environments of a GitOps repository, as files."""

import json
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = f"sha256:{'ab' * 32}"

TEST = """
name = "test"
channel = "alpha"
namespace = "sens-test"
release = "sens-platform-test"
application = "sens-platform-test"
project = "sens-test"
registry = "ghcr.io/owner/sens-platform"
address = "192.0.2.7"
api_host = "API.dev.example.org"
docs_host = "docs.dev.example.org"
[internal_ports]
nats = 4222
"""
PRODUCTION = TEST.replace('"test"', '"production"').replace("sens-test", "sens-production").replace("alpha", "stable")
IMAGE = {"repository": "ghcr.io/owner/sens-platform/platform-api", "digest": DIGEST}
RECORD = {
    "version": "0.5.0-alpha.12.1",
    "channel": "alpha",
    "product_commit": COMMIT,
    "images": {"platform-api": IMAGE},
    "released_at": "2026-01-31T12:00:00Z",
    "run": None,
    "previous": None,
}


@pytest.fixture
def environments(tmp_path: Path) -> Path:
    """A GitOps repository with both environments and a release in test."""
    for name, text in (("test", TEST), ("production", PRODUCTION)):
        folder = tmp_path / "environments" / name
        folder.mkdir(parents=True)
        (folder / "environment.toml").write_text(text, encoding="utf-8")
    (tmp_path / "environments/test/release.json").write_text(json.dumps(RECORD), encoding="utf-8")
    return tmp_path
