"""How long what is kept, over HTTP and by commands, and that what is older goes away while the API runs."""

import json
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest

from sens_common.settings import DatabaseSettings
from support.api import RunningApi, as_owner, set_environment
from support.command_line import sens
from support.regular_readings import store_readings
from support.servers import wait_until

NOW = datetime.now(UTC)
COUNT = """
    SELECT count(*) FROM sens.readings r JOIN sens.devices d ON d.id = r.device_id JOIN sens.tenants t ON t.id = d.tenant_id WHERE t.name = $1
"""


class TestApi:
    def test_deletes_what_is_older_and_tells_how_far_it_is(self, api: RunningApi) -> None:
        tenant, key = api.new_tenant()
        as_owner(
            api.database,
            lambda connection: store_readings(
                connection,
                tenant,
                "d1",
                {"a": 1.0, "b": True},
                first=NOW - timedelta(days=99),
                step=timedelta(days=1),
                count=100,
            ),
        )
        as_owner(api.database, lambda connection: connection.execute("UPDATE sens.tenants SET late_days = 5"))
        with api.client(key) as client:
            shown = client.get("/api/v1/retention").json()
            assert shown.pop("sizes").keys() == {"readings", "rollups", "dead_letters", "measured_at"}
            assert shown == {
                "rules": [],
                "late_days": 5,
                "progress": {"started_at": None, "finished_at": None, "values": 0, "rollups": 0, "dead_letters": 0},
            }
            answer = client.put("/api/v1/retention", params={"kind": "raw", "days": 10, "device": "d1"})
            assert (answer.status_code, answer.json()["rules"]) == (
                HTTPStatus.OK,
                [{"kind": "raw", "device": "d1", "metric": None, "days": 10}],
            )
            wait_until(
                lambda: client.get("/api/v1/retention").json()["progress"]["finished_at"] is not None, "it is deleted"
            )
            # Whole months or chunks that nobody keeps are dropped, not counted.
            left = as_owner(api.database, lambda connection: connection.fetchval(COUNT, tenant))
            assert 10 <= left <= 42
            answer = client.delete("/api/v1/retention", params={"kind": "raw", "device": "d1"})
            assert answer.json()["rules"] == []
            event = client.get("/api/v1/audit").json()["events"][0]
            assert (event["action"], event["details"]) == (
                "retention.changed",
                {"device": "d1", "before": "10", "after": "unset"},
            )

    def test_refuses_what_makes_no_sense_with_the_reason(self, api: RunningApi) -> None:
        _, key = api.new_tenant()
        with api.client(key) as client:
            shorter = client.put("/api/v1/retention", params={"kind": "raw", "days": 30})
            assert shorter.status_code == HTTPStatus.CONFLICT
            assert shorter.json()["code"] == "limits_contradict"
            assert "400 days back (the limit late_days, or import_late_days)" in shorter.json()["detail"]
            assert "30 days only (the retention raw)" in shorter.json()["detail"]
            unknown = client.put("/api/v1/retention", params={"kind": "raw", "days": 500, "device": "nothing"})
            assert unknown.status_code == HTTPStatus.NOT_FOUND
            for wrong in ("kind=raw&days=0", "kind=all&days=1", "kind=raw", "kind=dead_letters&days=1&metric=a"):
                assert client.put(f"/api/v1/retention?{wrong}").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
            forever = client.put("/api/v1/retention", params={"kind": "rollup_1h", "days": "forever", "metric": "a"})
            assert forever.json()["rules"] == [{"kind": "rollup_1h", "device": None, "metric": "a", "days": None}]


class TestCommand:
    @pytest.fixture
    def administered(self, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> DatabaseSettings:
        """A database with the tenant demo, and the administration's environment."""
        set_environment(monkeypatch, database=database)
        assert sens("tenants", "create", "demo") == 0
        return database

    @pytest.mark.usefixtures("administered")
    def test_shows_and_changes_rules(self, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        assert sens("retention", "show", "demo") == 0
        assert capsys.readouterr().out == "everything is kept for ever\n"
        assert sens("retention", "set", "demo", "raw", "500") == 0
        assert sens("retention", "set", "demo", "rollup-1h", "forever", "--metric", "a", "--json") == 0
        out = capsys.readouterr().out
        assert ["raw", "all", "all", "500"] in [line.split() for line in out.splitlines()]
        assert "what is older will be deleted soon" in out
        assert json.loads(out[out.index("{") :])["rules"][1] == {
            "kind": "rollup_1h", "device": None, "metric": "a", "days": None
        }  # fmt: skip
        assert sens("retention", "unset", "demo", "raw", "--json") == 0
        assert [rule["kind"] for rule in json.loads(capsys.readouterr().out)["rules"]] == ["rollup_1h"]

    @pytest.mark.usefixtures("administered")
    def test_and_the_limit_of_late_days_name_each_other(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert sens("retention", "set", "demo", "raw", "399") != 0
        assert (
            "400 days back (the limit late_days, or import_late_days), and would be kept for 399 days only"
            in capsys.readouterr().err
        )
        assert sens("retention", "set", "demo", "raw", "400") == 0
        assert sens("tenants", "limits", "demo", "--late-days", "401") != 0
        assert "the limit must not be larger" in capsys.readouterr().err
        assert sens("tenants", "limits", "demo", "--late-days", "30") == 0

    @pytest.mark.usefixtures("administered")
    @pytest.mark.parametrize(
        "arguments",
        [
            ("raw", "0"),
            ("all", "30"),
            ("raw", "never"),
            ("dead-letters", "30", "--device", "d1"),
            ("raw", "500", "--device", "none"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, arguments: tuple[str, ...]) -> None:
        assert sens("retention", "set", "demo", *arguments) != 0
