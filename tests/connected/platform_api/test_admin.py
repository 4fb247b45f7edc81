"""The administration on real servers, as `sens` runs it."""

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from sens_common import envelope
from sens_common.dead_letters import Reason
from sens_common.jetstream import connect as connect_nats
from sens_common.settings import DatabaseSettings, NatsSettings
from sens_platform_api.dead_letters.administration import DeadLettersInDatabase
from support.api import as_owner, make_stream, set_environment, store
from support.command_line import sens
from support.letters import dead_letter, put_dead_letters
from support.servers import free_port
from support.stored_rows import Form


class Admin:
    """Runs commands in this process and keeps what they wrote."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.error = ""

    def __call__(self, *arguments: str) -> int:
        with capture_logs():  # which the program sends to standard error
            code = sens(*arguments)
        self.output, self.error = self._capture.readouterr()
        return code

    def json(self, *arguments: str) -> object:
        assert self(*arguments, "--json") == 0, self.error
        return json.loads(self.output)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Admin:
    return Admin(capsys)


@pytest.fixture
def with_database(database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> DatabaseSettings:
    set_environment(monkeypatch, database=database)
    return database


@pytest.fixture
def with_nats(nats: NatsSettings, monkeypatch: pytest.MonkeyPatch) -> NatsSettings:
    set_environment(monkeypatch, nats=nats)
    return nats


@pytest.mark.usefixtures("with_database")
class TestTenants:
    def test_are_created_and_listed(self, run: Admin) -> None:
        created = run.json("tenants", "create", "demo")
        assert isinstance(created, dict)
        assert created["name"] == "demo"
        assert created["created"] is True
        assert run("tenants", "list") == 0
        assert re.fullmatch(r"TENANT +CREATED +DEVICE LIMIT\ndemo +[0-9: .-]+ +[0-9]+\n", run.output)

    def test_are_refused_when_they_exist_already(self, run: Admin) -> None:
        run("tenants", "create", "demo")
        assert run("tenants", "create", "demo") == 1
        assert run.error == "sens: the tenant demo already exists\n"

    def test_may_exist_already_when_that_is_said(self, run: Admin) -> None:
        run("tenants", "create", "demo")
        created = run.json("tenants", "create", "demo", "--if-missing")
        assert isinstance(created, dict)
        assert created["created"] is False

    @pytest.mark.parametrize("name", ["Demo", "", "a/b", "-a", "x" * 64, "ä"])
    def test_need_a_valid_name(self, run: Admin, name: str) -> None:
        assert run("tenants", "create", "--", name) == 2
        assert "a tenant's name has" in run.error


class TestKeys:
    def test_are_shown_once_and_stored_as_a_hash(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        created = run.json("keys", "create", "--tenant", "demo", "--name", "a dashboard")
        assert isinstance(created, dict)
        assert len(created["key"]) == len("sens_") + 43
        assert created["prefix"] == created["key"][:12]

        async def everything(connection: object) -> str:
            return str(await connection.fetchval("SELECT string_agg(k::text, ' ') FROM sens.api_keys k"))  # type: ignore[attr-defined]

        assert created["key"] not in as_owner(with_database, everything)
        assert run("keys", "list") == 0
        assert "a dashboard" in run.output
        assert created["key"] not in run.output

    @pytest.mark.usefixtures("with_database")
    def test_of_a_tenant_that_does_not_exist_are_refused(self, run: Admin) -> None:
        assert run("keys", "create", "--tenant", "nobody") == 1
        assert "there is no tenant nobody" in run.error

    @pytest.mark.usefixtures("with_database")
    @pytest.mark.parametrize("by", ["id", "prefix", "key"])
    def test_are_revoked_by_number_or_first_characters(self, run: Admin, by: str) -> None:
        run("tenants", "create", "demo")
        created = run.json("keys", "create", "--tenant", "demo")
        assert isinstance(created, dict)
        revoked = run.json("keys", "revoke", str(created[by]))
        assert isinstance(revoked, dict)
        assert revoked["revoked_at"] is not None
        assert run.json("keys", "revoke", str(created["id"])) == revoked

    @pytest.mark.usefixtures("with_database")
    def test_for_ingestion_are_made_listed_and_revoked_like_others(self, run: Admin) -> None:
        run("tenants", "create", "demo")
        created = run.json("keys", "create", "--tenant", "demo", "--ingest", "--device", "kitchen")
        assert isinstance(created, dict)
        assert run("keys", "list") == 0
        assert "ingest to the native topics, device kitchen" in run.output
        revoked = run.json("keys", "revoke", str(created["id"]))
        assert isinstance(revoked, dict)
        assert revoked["revoked_at"] is not None
        assert run("keys", "create", "--tenant", "demo", "--device", "kitchen") == 2
        assert run("keys", "create", "--tenant", "demo", "--ingest", "--source", "nowhere") == 1
        assert "there is no source nowhere" in run.error

    @pytest.mark.usefixtures("with_database")
    def test_that_do_not_exist_can_not_be_revoked(self, run: Admin) -> None:
        assert run("keys", "revoke", "4711") == 1
        assert "no such key" in run.error


class TestLogins:
    async def log_in(self, url: str) -> list[str]:
        connection = await asyncpg.connect(url)
        try:
            return [row["device"] for row in await connection.fetch("TABLE devices_by_name")]
        finally:
            await connection.close()

    def test_are_made_listed_and_deleted(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        store(with_database, "demo", [("sensor", "n", datetime(2026, 1, 31, tzinfo=UTC), 1.0)], Form.READINGS)
        created = run.json("logins", "create", "--tenant", "demo", "--name", "a dashboard", "--connections", "2")
        assert isinstance(created, dict)
        assert asyncio.run(self.log_in(created["url"])) == ["sensor"]
        assert run("logins", "list", "--tenant", "demo") == 0
        assert re.search(rf"{created['login']} +demo +a dashboard +0 of 2 +30 s", run.output)
        rotated = run.json("logins", "rotate", created["login"])
        assert isinstance(rotated, dict)
        assert asyncio.run(self.log_in(rotated["url"])) == ["sensor"]
        for former in (created["url"], rotated["url"]):
            if former == rotated["url"]:
                assert run("logins", "delete", created["login"]) == 0
            with pytest.raises(asyncpg.InvalidPasswordError):
                asyncio.run(self.log_in(former))
        assert run("logins", "list") == 0
        assert run.output == "no logins\n"

    def test_are_printed_for_people_with_a_line_to_try(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        assert run("logins", "create", "--tenant", "demo") == 0
        printed = dict(line.split(maxsplit=1) for line in run.output.splitlines())
        url = f"postgresql://{printed['login']}:{printed['password']}@{with_database.host}:{with_database.port}/{with_database.name}"
        assert printed["try"] == f"psql '{url}' -c 'TABLE latest_by_name'"

    def test_leave_their_password_nowhere(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        created = run.json("logins", "create", "--tenant", "demo")
        assert isinstance(created, dict)

        async def everything(connection: object) -> str:
            fetchval = connection.fetchval  # type: ignore[attr-defined]
            return str(await fetchval("SELECT string_agg(l::text, ' ') FROM sens.tenant_logins l")) + str(
                await fetchval("SELECT string_agg(e::text, ' ') FROM sens.audit_events e")
            )

        stored = as_owner(with_database, everything)
        assert created["login"] in stored
        assert created["password"] not in stored
        assert run("logins", "list") == 0
        assert created["password"] not in run.output

    @pytest.mark.usefixtures("with_database")
    def test_that_do_not_exist_are_not_found(self, run: Admin) -> None:
        for command in ("rotate", "delete"):
            assert run("logins", command, "sens_platform") == 1
            assert run.error == "sens: there is no login sens_platform; logins list shows those that exist\n"
        assert run("logins", "create", "--tenant", "nobody") == 1
        assert "there is no tenant nobody" in run.error


@pytest.mark.usefixtures("with_nats")
class TestDeadLetters:
    def test_are_listed_by_tenant_newest_first(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        letters = [dead_letter(), dead_letter(), dead_letter(tenant="other"), dead_letter(tenant=None, device=None)]
        numbers = put_dead_letters(with_database, letters)
        for arguments, expected in (
            (["--tenant", "demo"], numbers[1::-1]),
            (["--tenant", "other"], [numbers[2]]),
            (["--unrouted"], numbers[:1:-1]),
        ):
            listed = run.json("dead-letters", "list", *arguments)
            assert isinstance(listed, list)
            assert [item["id"] for item in listed] == expected

    def test_are_shown_with_their_payload(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        [number] = put_dead_letters(with_database, [dead_letter(payload=b"\xff")])
        shown = run.json("dead-letters", "show", str(number), "--tenant", "demo")
        assert isinstance(shown, dict)
        assert shown["payload_base64"] == "/w=="
        assert shown["payload_text"] is None
        assert shown["received_at"] == "2023-11-14T22:13:20.123456Z"

    def test_of_another_tenant_are_not_found(self, run: Admin, with_database: DatabaseSettings) -> None:
        [number] = put_dead_letters(with_database, [dead_letter()])
        for command in ("show", "replay", "delete"):
            assert run("dead-letters", command, str(number), "--tenant", "other") == 1

    def test_are_replayed_by_filter_and_go(
        self, run: Admin, with_nats: NatsSettings, with_database: DatabaseSettings
    ) -> None:
        letters = [dead_letter(), dead_letter(reason=Reason.UNKNOWN_TENANT, payload=b"{}"), dead_letter(tenant="other")]
        run("tenants", "create", "demo")
        with capture_logs():
            asyncio.run(make_stream(with_nats))
        numbers = put_dead_letters(with_database, letters)
        replayed = run.json("dead-letters", "replay", "--tenant", "demo", "--all", "--reason", "unknown_tenant")
        assert replayed == {"replayed": 1, "incomplete": 0}

        async def in_the_log() -> tuple[list[envelope.Message], dict[str, str]]:
            async with connect_nats(with_nats, "test") as client:
                message = await client.jetstream().get_msg("TELEMETRY", seq=1)
                assert message.subject == "sens.telemetry.replay"
                return envelope.decode(message.data or b""), dict(message.headers or {})

        with capture_logs():
            messages, headers = asyncio.run(in_the_log())
        assert messages == [envelope.Message(letters[1].topic, b"{}", 1_700_000_000_123_456, 0)]
        assert headers["Sens-Envelope"] == "1"
        assert headers["Sens-Count"] == "1"
        assert headers["Sens-Received"] == '{"demo":1}'
        listed = run.json("dead-letters", "list", "--tenant", "demo")
        assert isinstance(listed, list)
        assert [item["id"] for item in listed] == [numbers[0]]

    def test_are_deleted_by_filter_which_is_audited(self, run: Admin, with_database: DatabaseSettings) -> None:
        run("tenants", "create", "demo")
        letters = [dead_letter(), dead_letter(device="d2"), dead_letter(tenant="other")]
        numbers = put_dead_letters(with_database, letters)
        assert run.json("dead-letters", "delete", "--tenant", "demo", "--all", "--device", "d2") == {"deleted": 1}
        assert run.json("dead-letters", "delete", "--unrouted", str(numbers[2])) == {"deleted": 1}
        listed = run.json("dead-letters", "list", "--tenant", "demo")
        assert isinstance(listed, list)
        assert [item["id"] for item in listed] == [numbers[0]]
        audited = as_owner(
            with_database,
            lambda connection: connection.fetch(
                "SELECT tenant, actor, subject, details::text FROM sens.audit_events WHERE action = 'dead_letters.deleted' ORDER BY id"
            ),
        )
        assert [(row["tenant"], row["actor"], row["subject"]) for row in audited] == [
            ("demo", "administrator", "dead letters"),
            (None, "administrator", f"dead letter {numbers[2]}"),
        ]
        assert '"deleted": 1' in audited[0]["details"]
        assert '"device": "d2"' in audited[0]["details"]

    def test_of_a_tenant_that_is_made_later_become_its_own(self, run: Admin, with_database: DatabaseSettings) -> None:
        [number, _] = put_dead_letters(with_database, [dead_letter(tenant="later"), dead_letter(tenant="later-still")])
        run("tenants", "create", "later")
        owners = as_owner(
            with_database,
            lambda connection: connection.fetch(
                "SELECT d.id FROM sens.dead_letters d JOIN sens.tenants t ON t.id = d.tenant_id"
            ),
        )
        assert [row["id"] for row in owners] == [number]

    def test_are_replayed_in_as_many_steps_as_it_takes(
        self, run: Admin, with_nats: NatsSettings, with_database: DatabaseSettings
    ) -> None:
        run("tenants", "create", "demo")
        steps: list[tuple[int, int, int]] = []
        with capture_logs():
            asyncio.run(make_stream(with_nats))
            put_dead_letters(with_database, [dead_letter(payload=b"%d" % number) for number in range(5)])
            no_filter = dict.fromkeys(("reason", "device", "topic", "since", "before"))
            letters = DeadLettersInDatabase(Path("/nonexistent"), "demo", no_filter, replayed_together=2)
            letters.replay([], lambda *step: steps.append(step))
        assert steps == [(2, 0, 3), (2, 0, 1), (1, 0, 0)]
        assert run.json("dead-letters", "list", "--tenant", "demo") == []

    @pytest.mark.parametrize(
        "filter_", [("--reason", "boredom"), ("--device", "a b"), ("--since", "soon"), ("--before", "later")]
    )
    def test_are_not_found_by_what_is_no_filter(self, run: Admin, filter_: tuple[str, str]) -> None:
        assert run("dead-letters", "list", "--unrouted", *filter_) == 2
        assert filter_[0] in run.error

    def test_need_numbers_or_all(self, run: Admin) -> None:
        assert run("dead-letters", "replay", "--tenant", "demo") == 2


class TestServers:
    def test_that_can_not_be_reached_are_named(self, run: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SENS_DATABASE__PORT", str(free_port()))
        assert run("tenants", "list") == 69
        assert "check SENS_DATABASE__*" in run.error

    def test_without_a_schema_say_so(
        self, run: Admin, empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_environment(monkeypatch, database=empty_database)
        assert run("tenants", "list") == 70
        assert "run the migrations" in run.error

    def test_are_reached_by_the_program_itself(self, database: DatabaseSettings) -> None:
        with pytest.MonkeyPatch.context() as patch:
            set_environment(patch, database=database)
            done = subprocess.run(
                [sys.executable, "-m", "sens_cli", "tenants", "create", "demo"],
                capture_output=True,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stdout, done.stderr) == (0, "tenant demo is created\n", "")
