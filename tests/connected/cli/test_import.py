"""``sens import`` with a running platform: killed, continued, done twice; nothing is lost, nothing is stored twice."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2

from support.platform import Platform
from support.servers import wait_until

LINES = 6_000
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=30)


def count_stored(platform: Platform, device: str) -> int:
    parameters = {"from": "-60d", "bucket": "366d", "aggregate": "count", "metric": "t"}
    with httpx2.Client(base_url=f"{platform.api_url}/api/v1", headers=platform.headers, timeout=30) as client:
        answer = client.get(f"/devices/{device}/measurements", params=parameters)
    return sum(row["count"] for row in answer.json()["measurements"]) if answer.is_success else 0


class TestImport:
    def test_that_was_killed_goes_on_and_stores_each_line_once(self, platform: Platform, tmp_path: Path) -> None:
        device, file, state = "imported", tmp_path / "history.csv.gz", tmp_path / "history.csv.gz.import"
        rows = (f"{(START + timedelta(seconds=n)).isoformat()},{device},{n}" for n in range(LINES))
        wrong = ["yesterday,imported,1", "1971-01-01T00:00:00Z,imported,1"]
        file.write_bytes(gzip.compress("\n".join(["time,device,t", *rows, *wrong]).encode()))
        killed = platform.start_sens("import", str(file))
        wait_until(state.exists, "the first lines are in the stream")
        killed.kill()
        killed.communicate()
        done = json.loads(state.read_bytes())["lines"]
        assert 0 < done < LINES

        again = platform.sens("import", str(file))
        assert again.returncode == 1
        assert f"{LINES + 2:,} lines, {LINES:,} accepted, 2 refused" in again.stdout
        assert f"line {LINES + 2}: invalid_time" in again.stderr
        wait_until(lambda: count_stored(platform, device) == LINES, "all lines are stored")

        state.unlink()
        assert platform.sens("import", str(file)).returncode == 1
        wait_until(lambda: count_stored(platform, device) == LINES, "they are stored once")

    def test_of_an_old_history_needs_what_the_operator_allows_for_imports_alone(
        self, platform: Platform, tmp_path: Path
    ) -> None:
        tenant, key = platform.create_tenant()
        file, line = tmp_path / "old.jsonl", '{"device": "old", "ts": "2017-01-01T00:00:00Z", "t": 21.5}'
        file.write_text(line)
        refused = platform.sens("import", str(file), "--api-key", key)
        assert "--import-late-days" in refused.stderr
        allowed = platform.sens("tenants", "limits", tenant, "--import-late-days", "9000")
        assert allowed.returncode == 0, allowed.stderr
        (tmp_path / "old.jsonl.import").unlink()
        assert platform.sens("import", str(file), "--api-key", key).returncode == 0
        wait_until(
            lambda: "21.5" in platform.sens("latest", "old", "--api-key", key).stdout, "the old reading is stored"
        )

    def test_shows_what_it_would_store(self, platform: Platform, tmp_path: Path) -> None:
        file = tmp_path / "history.jsonl"
        file.write_text(
            f'{{"device": "tried", "ts": "{START.isoformat()}", "t": 21.5, "on": true}}\n{{"device": "tried"}}\n'
        )
        shown = platform.sens("import", str(file), "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert "21.5" in shown.stdout
        assert "line 2: invalid_time" in shown.stderr
        assert "tried" not in platform.sens("devices").stdout

    def test_takes_line_protocol_by_a_source(self, platform: Platform, tmp_path: Path) -> None:
        file = tmp_path / "influx.lp"
        nanoseconds = int(START.timestamp()) * 10**9
        file.write_text(
            f"# kept\nclimate,device=influx-1 t=20.5 {nanoseconds}\nclimate,device=influx-1 t=1\nnonsense\n"
        )
        settings = tmp_path / "influx.json"
        settings.write_text('{"device": "{device}", "metric": "{field}"}')
        made = platform.sens("sources", "create", "influx", "--format", "line_protocol", "--settings", str(settings))
        assert made.returncode == 0, made.stderr
        done = platform.sens("import", str(file), "--source", "influx")
        assert "3 lines, 1 accepted, 2 refused" in done.stdout, done.stderr
        assert "has no time of its own" in done.stderr
        wait_until(lambda: "20.5" in platform.sens("latest", "influx-1").stdout, "the line is stored")
