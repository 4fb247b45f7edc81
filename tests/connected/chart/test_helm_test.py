"""The script of ``helm test`` does on a running platform what it does in a cluster."""

import subprocess
import sys
from pathlib import Path

from sens_common.command_line.local_settings import instance_environment
from support.platform import Platform, clean_environment
from support.services import ROOT

SCRIPT = ROOT / "infra" / "helm" / "sens-platform" / "files" / "publish_and_read.py"


def run(platform: Platform, tmp_path: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    environment = clean_environment() | instance_environment(platform.data_dir)
    environment |= {"API_URL": platform.api_url, "MQTT_URL": f"mqtt://{platform.host}:{platform.ports.mqtt5}"}
    return subprocess.run(
        [sys.executable, SCRIPT],
        env=environment | changes,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


class TestPublishAndRead:
    def test_reads_back_what_it_published_and_leaves_no_valid_key(self, platform: Platform, tmp_path: Path) -> None:
        result = run(platform, tmp_path)

        assert result.returncode == 0, result.stdout + result.stderr
        assert "published, stored and read back" in result.stdout

    def test_fails_without_a_broker(self, platform: Platform, tmp_path: Path) -> None:
        result = run(platform, tmp_path, MQTT_URL=f"mqtt://{platform.host}:1")

        assert result.returncode != 0
