"""``sens verify`` against a running platform."""

import json
from collections.abc import Sequence

import httpx2
import pytest

from sens_common.version import product_version
from support.platform import Platform


def verify(platform: Platform, *arguments: str) -> tuple[int, dict[str, str]]:
    """Return the exit code, and the status of each check."""
    result = platform.sens(
        "verify",
        "--api-host",
        platform.api_url,
        "--docs-host",
        f"http://{platform.host}:{platform.ports.docs}",
        "--address",
        platform.host,
        "--json",
        *arguments,
    )
    assert result.returncode in {0, 1}, result.stderr
    return result.returncode, {each["name"]: each["status"] for each in json.loads(result.stdout)["checks"]}


def checks(*names: str) -> list[str]:
    return [part for name in names for part in ("--check", name)]


HTTP = (
    "api.healthz", "api.readyz", "api.version", "api.test", "api.data", "docs.healthz", "docs.readyz", "docs.page",
)  # fmt: skip


class TestARunningPlatform:
    def test_is_well(self, platform: Platform) -> None:
        code, statuses = verify(platform, *checks(*HTTP))

        assert code == 0
        assert statuses == dict.fromkeys(HTTP, "ok")

    @pytest.mark.parametrize(("version", "expected"), [(product_version(), "ok"), ("999.0.0", "failed")])
    def test_has_the_version_that_it_has(self, platform: Platform, version: str, expected: str) -> None:
        commit = httpx2.get(f"{platform.api_url}/version").json()["product_commit"]
        options: Sequence[str] = () if commit == "unknown" else ("--expect-commit", commit)

        _code, statuses = verify(
            platform, "--expect-version", version, *options, *checks("release.api", "release.docs")
        )

        assert statuses == {"release.api": expected, "release.docs": expected}

    def test_on_one_machine_shows_what_must_be_closed_elsewhere(self, platform: Platform) -> None:
        code, statuses = verify(platform, *checks("exposure.paths"))

        assert (code, statuses) == (1, {"exposure.paths": "failed"})

    def test_gives_its_metrics_where_they_are_said_to_be_public(self, platform: Platform) -> None:
        names = ("api.metrics", "docs.metrics", "exposure.paths")
        code, statuses = verify(platform, "--public-metrics", *checks(*names))

        assert (code, statuses) == (0, dict.fromkeys(names, "ok"))

    def test_is_confused_with_no_other_service(self, platform: Platform) -> None:
        result = platform.sens(
            "verify", "--api-host", f"http://{platform.host}:{platform.ports.docs}", "--check", "api.version"
        )

        assert result.returncode == 1
        assert "is answered by 'docs', not by platform-api" in result.stdout
