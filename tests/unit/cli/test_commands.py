"""Arguments, payloads, and what is printed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import BadStatusLine
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sens_cli.__main__ import app, main
from sens_cli.api import Api, RefusedByApiError, problem_sentence, segment
from sens_cli.api_dead_letters import DeadLettersOverApi
from sens_cli.commands.messages import metrics_payload
from sens_cli.events import Event, events
from sens_cli.target import Target
from sens_common.command_line import tables
from sens_common.command_line.output import print_table, short_time, show
from sens_common.command_line.tables import fitted, lines_of
from sens_common.errors import SensError, SettingsError, UnavailableError
from sens_common.version import product_version
from sens_platform_api.tenants.limits import LIMITS
from support.http_answers import Answer, Request, answering

COMMANDS = [
    ["up"],
    ["status"],
    ["version"],
    ["verify"],
    ["publish"],
    ["tail"],
    ["devices"],
    ["devices", "delete"],
    ["metrics"],
    ["metrics", "delete"],
    ["latest"],
    ["measurements"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "replay"],
    ["dead-letters", "delete"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["tenants", "create"],
    ["tenants", "list"],
    ["tenants", "limits"],
    ["audit"],
    ["migrate"],
]


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_is_there_for_every_command(self, command: list[str]) -> None:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0
        assert "--data-dir" in result.output or command[0] in {"version", "verify"}

    def test_tells_the_exit_codes(self) -> None:
        assert "69 not reachable" in " ".join(CliRunner().invoke(app, ["--help"]).output.split())


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["publish", "sensor-1"],
            ["publish", "sensor-1", "{}", "--metric", "a=1"],
            ["publish", "sensor-1", "--metric", "nothing"],
            ["publish", "--metric", "a=1"],
            ["publish", "--topic", "tele/x/SENSOR"],
            ["publish", "sensor-1", "--metric", "a=1", "--metric", "a=2"],
            ["measurements", "sensor-1", "--csv", "--json"],
            ["dead-letters", "replay"],
            ["dead-letters", "replay", "1", "--all"],
            ["dead-letters", "delete"],
            ["dead-letters", "delete", "1", "--reason", "too_large"],
            ["dead-letters", "show", "0"],
            ["devices", "delete", "--api-url", "http://127.0.0.1:1", "--api-key", "x"],
            ["up", "--devices", "0"],
            ["nothing"],
        ],
        ids=" ".join,
    )
    def test_that_is_wrong_exits_with_2(self, arguments: list[str]) -> None:
        assert CliRunner().invoke(app, arguments).exit_code == 2


class TestDelete:
    """The API's answers are played by the test."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, object]]:
        """Return what the API is asked for; it has the metrics a1 and a2."""
        asked: list[tuple[str, str, object]] = []

        def request(_api: Api, method: str, path: str, parameters: Mapping[str, object] | None) -> object:
            asked.append((method, path, parameters))
            if method == "GET":
                return {"metrics": [{"metric": name, "kind": "number"} for name in ("a1", "a2")], "next": None}
            return {}

        monkeypatch.setattr(Api, "_request", request)
        monkeypatch.setenv("SENS_API_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("SENS_API_KEY", "sens_" + "x" * 43)
        return asked

    def test_of_one_that_is_named_does_not_ask(self, asked: list[tuple[str, str, object]]) -> None:
        result = CliRunner().invoke(app, ["devices", "delete", "a/b"])
        assert result.output == "device a/b is deleted; its measurements follow\n"
        assert asked == [("DELETE", "devices/a%2Fb", None)]

    def test_of_several_asks_first(self, asked: list[tuple[str, str, object]]) -> None:
        result = CliRunner().invoke(app, ["metrics", "delete", "--prefix", "a"], input="n\n")
        assert result.exit_code == 1
        assert "Delete 2 metrics with all their measurements: a1, a2?" in result.output
        assert [method for method, *_ in asked] == ["GET"]

    def test_of_several_goes_on_when_it_was_said_before(self, asked: list[tuple[str, str, object]]) -> None:
        result = CliRunner().invoke(app, ["metrics", "delete", "--prefix", "a", "--kind", "number", "--yes"])
        assert result.exit_code == 0
        assert asked[1:] == [("DELETE", "metrics", {"metric": name, "kind": "number"}) for name in ("a1", "a2")]


class TestReplay:
    def test_that_is_interrupted_says_how_far_it_came_and_how_to_go_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_letters: object, _ids: object, progress: Callable[[int, int, int], None]) -> None:
            progress(500, 0, 700)
            raise KeyboardInterrupt

        monkeypatch.setattr(DeadLettersOverApi, "replay", interrupted)
        arguments = ["dead-letters", "replay", "--all", "--api-url", "http://api", "--api-key", "sens_key"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 130
        assert "replayed 500; for the others give the same command again, and --before 2" in result.stderr

    def test_of_one_that_is_not_there_says_so_and_advises_nothing_that_does_not_help(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def post(_api: Api, path: str) -> dict[str, int]:
            if path == "dead-letters/17/replay":
                return {}
            raise RefusedByApiError("Not found: there is no dead letter 18 (status 404)")

        monkeypatch.setattr(Api, "post", post)
        options = ["--api-url", "http://api", "--api-key", "sens_key"]
        missing = CliRunner().invoke(app, ["dead-letters", "replay", "18", *options])
        assert str(missing.exception) == "Not found: there is no dead letter 18 (status 404)"
        assert missing.stderr == ""
        second = CliRunner().invoke(app, ["dead-letters", "replay", "17", "18", "19", *options])
        assert isinstance(second.exception, RefusedByApiError)
        assert second.stderr == "replayed 1, and none after that\n"

    def test_past_the_api_adds_up_what_its_steps_have_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class InDatabase:
            def __init__(self, data_dir: Path, tenant: str | None, filters: Mapping[str, str | None]) -> None:
                assert (data_dir, tenant, filters["reason"]) == (Path("data"), "demo", "too_large")

            def replay(self, ids: Sequence[int], progress: Callable[[int, int, int], None]) -> None:
                assert ids == ()
                progress(10_000, 1, 10_001)
                progress(10_000, 1, 0)

        monkeypatch.setattr("sens_cli.administration.load", lambda _group: InDatabase)
        options = ["--all", "--tenant", "demo", "--reason", "too_large", "--data-dir", "data"]
        result = CliRunner().invoke(app, ["dead-letters", "replay", *options])
        assert result.output.splitlines() == [
            "replayed 20000",
            "2 can't be replayed: only their beginnings are kept, and the stream no longer has the whole",
        ]

    def test_past_the_api_needs_the_package_that_does_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_which: ())
        result = CliRunner().invoke(app, ["dead-letters", "list", "--unrouted"])
        assert isinstance(result.exception, SensError)
        assert "sens-platform-api" in str(result.exception)


class TestLimitsOfATenant:
    def test_have_an_option_each(self) -> None:
        text = CliRunner().invoke(app, ["tenants", "limits", "--help"], env={"COLUMNS": "200"}).output
        assert {limit.option for limit in LIMITS} <= set(text.split())

    @pytest.mark.parametrize("value", ["0", "-1", "1.5", "none", "many", "9" * 30])
    def test_are_numbers_in_their_range(self, value: str) -> None:
        result = CliRunner().invoke(app, ["tenants", "limits", "demo", f"--late-days={value}"])
        assert result.exit_code == 2
        assert "a number from 1 to 36500 is needed" in result.output


class TestThePayloadOfMetrics:
    def test_keeps_numbers_booleans_and_texts_apart(self) -> None:
        payload = metrics_payload(["a=21.5", "b=true", "c=open", 'd="1.20"', "e=", "f=1.2.3", "g=x=y"])
        assert json.loads(payload) == {
            "a": 21.5,
            "b": True,
            "c": "open",
            "d": "1.20",
            "e": "",
            "f": "1.2.3",
            "g": "x=y",
        }

    def test_takes_what_is_no_json_number_for_a_text(self) -> None:
        assert json.loads(metrics_payload(["a=NaN", "b=-Infinity"])) == {"a": "NaN", "b": "-Infinity"}


class TestProblems:
    def test_are_one_sentence(self) -> None:
        body = json.dumps({"title": "Not found", "detail": "there is no device x", "status": 404})
        assert problem_sentence(404, body) == "Not found: there is no device x (status 404)"

    @pytest.mark.parametrize("body", ["", "<html>", "[]", "{}", "null"])
    def test_without_details_name_the_status(self, body: str) -> None:
        assert problem_sentence(500, body) == "the API answered with status 500"

    @pytest.mark.parametrize(
        ("status", "error"), [(404, RefusedByApiError), (422, RefusedByApiError), (503, UnavailableError)]
    )
    def test_decide_the_exit_code(self, status: int, error: type[Exception]) -> None:
        api = Api(Target("http://api", "sens_key"), answering(lambda _request: Answer(status, {"title": "No"})))
        with pytest.raises(error, match="No"):
            api.get("devices")

    def test_of_something_else_than_the_api_say_so(self) -> None:
        api = Api(Target("http://api", "sens_key"), answering(lambda _request: Answer(200, b"hello")))
        with pytest.raises(UnavailableError, match="not JSON"):
            api.get("devices")

    def test_of_a_server_that_speaks_no_http_are_those_of_one_that_is_away(self) -> None:
        def answer(_request: Request) -> Answer:
            raise BadStatusLine("SSH-2.0-OpenSSH")

        with pytest.raises(UnavailableError, match=r"can't be reached: .*SSH"):
            Api(Target("http://api", "sens_key"), answering(answer)).get("devices")

    def test_of_an_address_that_is_none_name_it(self) -> None:
        with pytest.raises(SettingsError, match="http://api:eight is not a URL"):
            Api(Target("http://api:eight", "sens_key")).get("devices")


class TestPages:
    def test_are_read_until_the_limit_or_the_end(self) -> None:
        asked: list[tuple[str | None, str]] = []

        def answer(request: Request) -> Answer:
            cursor, limit = request.parameters.get("cursor"), request.parameters["limit"]
            asked.append((cursor, limit))
            start = int(cursor or 0)
            items = list(range(start, min(start + int(limit), 5)))
            return Answer(200, {"items": items, "next": str(start + len(items)) if start + len(items) < 5 else None})

        api = Api(Target("http://api", "sens_key"), answering(answer))
        assert list(api.pages("things", "items", {}, limit=100, page=2)) == [0, 1, 2, 3, 4]
        assert list(api.pages("things", "items", {}, limit=3, page=2)) == [0, 1, 2]
        assert asked == [(None, "2"), ("2", "2"), ("4", "2"), (None, "2"), ("2", "1")]

    def test_carry_the_key(self) -> None:
        def answer(request: Request) -> Answer:
            assert request.headers["Authorization"] == "Bearer sens_key"
            assert request.path == "/below/api/v1/devices/a%2Fb/latest"
            return Answer(200, {})

        Api(Target("http://api/below", "sens_key"), answering(answer)).get(f"devices/{segment('a/b')}/latest")

    def test_of_lines_end_where_the_server_ended_them(self) -> None:
        api = Api(Target("http://api", "sens_key"), answering(lambda _request: Answer(200, b"a\r\n\nb\xc3\xa9\nlast")))
        assert list(api.lines("live", accept="text/csv")) == ["a", "", "bé", "last"]


class TestServerSentEvents:
    def test_are_taken_apart(self) -> None:
        lines = [
            ": hello",
            "",
            "event: reading",
            'data: {"value":',
            "data: 1}",
            "",
            "data: no json",
            "",
            "data: [1]",
            "",
        ]
        assert list(events(lines)) == [Event("reading", {"value": 1})]
        assert list(events(lines, idle=True)) == [Event("idle", {}), Event("reading", {"value": 1})]


class TestTheCsvOfARange:
    def test_is_one_table_of_all_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pages = {
            None: ["time,metric,value", "1,a,1", "2,a,2", "# next: second"],
            "second": ["time,metric,value", "3,a,3", "# next: third"],
            "third": ["time,metric,value", "4,a,4"],
        }

        def lines(_api: Api, _path: str, parameters: Mapping[str, str | None], *, accept: str) -> Iterator[str]:
            assert accept == "text/csv"
            return iter(pages[parameters["cursor"]])

        monkeypatch.setattr(Api, "lines", lines)
        arguments = ["measurements", "x", "--csv", "--api-url", "http://api", "--api-key", "sens_key"]
        assert CliRunner().invoke(app, arguments).stdout.splitlines() == [
            "time,metric,value",
            "1,a,1",
            "2,a,2",
            "3,a,3",
            "4,a,4",
        ]
        limited = CliRunner().invoke(app, [*arguments, "--limit", "2"])
        assert limited.stdout.splitlines() == ["time,metric,value", "1,a,1", "2,a,2"]
        assert "there are more" in limited.stderr


class TestPoints:
    def test_are_a_table_of_least_most_and_average(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Mapping[str, object]] = []

        def request(_api: Api, _method: str, _path: str, parameters: Mapping[str, object]) -> object:
            asked.append(parameters)
            row = {"time": "2026-11-29T23:52:00Z", "metric": "t", "kind": "number", "min": 1.5, "max": None, "avg": 2}
            return {"measurements": [row], "next": None}

        monkeypatch.setattr(Api, "_request", request)
        options = ["--points", "60", "--fill", "null", "--tz", "Europe/Vienna", "--utc"]
        result = CliRunner().invoke(
            app, ["measurements", "x", *options, "--api-url", "http://api", "--api-key", "sens_key"]
        )
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["TIME", "METRIC", "MIN", "MAX", "AVG"],
            ["2026-11-29", "23:52:00Z", "t", "1.5", "-", "2"],
        ]
        [parameters] = asked
        assert (parameters["points"], parameters["fill"], parameters["tz"]) == (60, "null", "Europe/Vienna")


class TestTimes:
    def test_are_short_and_in_the_time_zone_of_the_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        try:
            assert short_time("2026-11-29T23:52:56.123456Z") == "2026-11-30 05:22:56.123"
            assert short_time("2026-11-29T23:52:56Z", utc=True) == "2026-11-29 23:52:56Z"
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_that_are_none_are_dashes(self) -> None:
        assert short_time(None) == "-"


class TestARefusedKey:
    @pytest.mark.parametrize(
        ("environment", "arguments", "origin"),
        [
            ({"SENS_API_KEY": "sens_old"}, [], "the environment (SENS_API_KEY)"),
            ({}, ["--api-key", "sens_old"], "--api-key"),
            ({"SENS_API_KEY": "sens_other"}, ["--api-key", "sens_old"], "--api-key"),
        ],
    )
    def test_is_told_with_where_it_came_from(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], arguments: list[str], origin: str
    ) -> None:
        refusal = answering(lambda _request: Answer(401, {"title": "Unauthorized"}))
        monkeypatch.setattr(Api.__init__, "__defaults__", (refusal,))
        result = CliRunner().invoke(app, ["devices", "--api-url", "http://api", *arguments], env=environment)
        assert isinstance(result.exception, RefusedByApiError)
        assert str(result.exception).endswith(f"the key came from {origin}")


def imported_by(arguments: list[str], environment: Mapping[str, str]) -> set[str]:
    """Return the modules that a command has imported when it ends, here because it reaches nothing."""
    code = (
        "import sys; from sens_cli.__main__ import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return set(run.stdout.split())


class TestTheCommand:
    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_explains_itself_at_every_level(self, option: str) -> None:
        for arguments in ([], ["keys"], ["keys", "create"]):
            result = CliRunner().invoke(app, [*arguments, option])
            assert result.exit_code == 0
            assert "Usage:" in result.output

    def test_tells_its_version(self) -> None:
        assert CliRunner().invoke(app, ["--version"]).output == f"{product_version()}\n"

    def test_has_no_administration_where_its_package_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_which: ())
        assert "Administration" not in CliRunner().invoke(app, ["--help"]).output
        assert CliRunner().invoke(app, ["tenants", "list"]).exit_code == 2

    def test_names_the_library_that_an_installation_leaves_out(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> str:
            raise ModuleNotFoundError("No module named 'httpx2'", name="httpx2")

        monkeypatch.setattr("sens_common.version.product_version", fail)
        with pytest.raises(SystemExit, match="1"):
            main(["version"])
        assert "needs the library httpx2" in capsys.readouterr().err

    def test_knows_what_a_typing_error_meant(self) -> None:
        result = CliRunner().invoke(app, ["statu"])
        assert result.exit_code == 2
        assert "Did you mean 'status'?" in result.output

    @pytest.mark.parametrize(
        "arguments", [["--version"], ["devices"], ["latest", "x"], ["publish", "x", "{}"], ["dead-letters", "list"]]
    )
    def test_imports_only_what_it_is_asked_for(self, arguments: list[str], tmp_path: Path) -> None:
        """What is named here would use more CPU than all the rest of the command; see scripts/startup-cost."""
        heavy = {
            "asyncio",
            "asyncpg",
            "httpx",
            "httpx2",
            "nats",
            "prometheus_client",
            "pydantic_settings",
            "rich",
        }
        imported = imported_by(arguments, {"SENS_DATA_DIR": str(tmp_path)})
        assert {"sens_cli.__main__", "typer"} <= imported
        assert heavy & imported == set()

    @pytest.mark.parametrize(
        ("arguments", "heavy"),
        [
            (
                ["tenants", "list"],
                {"fastapi", "limits", "nats", "prometheus_client", "rich", "starlette", "structlog", "uvicorn"},
            ),
            (
                ["audit"],
                {"fastapi", "limits", "nats", "prometheus_client", "rich", "starlette", "structlog", "uvicorn"},
            ),
            (["dead-letters", "list", "--unrouted"], {"fastapi", "limits", "uvicorn"}),
        ],
    )
    def test_starts_the_administration_without_the_api_and_an_http_server(
        self, arguments: list[str], heavy: set[str]
    ) -> None:
        imported = imported_by(arguments, {"SENS_DATABASE__PORT": "1"})
        assert {"sens_platform_api.administration", "asyncpg"} <= imported
        assert heavy & imported == set()


class TestTables:
    AT = "2026-11-29T23:52:56.123456Z"

    def shown(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
        """Return what a command prints on a terminal of 80 columns."""
        monkeypatch.setattr(tables, "terminal_width", lambda: 80)
        monkeypatch.setenv("TERM", "dumb")
        result = CliRunner().invoke(app, [*arguments, "--utc", "--api-url", "http://api", "--api-key", "sens_key"])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    def test_of_long_names_fit_eighty_columns_and_keep_a_row_in_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        value = {"metric": "compressor.outlet.temperature", "value": 21.5, "kind": "number", "time": self.AT}
        monkeypatch.setattr(Api, "get", lambda *_arguments: {"device": "sensor-0001", "latest": [value]})
        _, row = self.shown(monkeypatch, "latest", "sensor-0001")
        assert row.split() == ["compressor.outlet.temperature", "21.5", "number", "2026-11-29", "23:52:56.123Z"]

    def test_of_all_devices_name_the_device_in_each_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        value = {"metric": "t", "value": 21.5, "kind": "number", "time": self.AT}
        found = [
            {"device": "d1", "latest": [value, value | {"metric": "door", "kind": "boolean", "value": True}]},
            {"device": "silent", "latest": []},
            {"device": "d2", "latest": [value]},
        ]
        monkeypatch.setattr(Api, "pages", lambda *_arguments, **_options: iter(found))
        header, *rows = self.shown(monkeypatch, "latest")
        assert header.split() == ["DEVICE", "METRIC", "VALUE", "KIND", "MEASURED"]
        assert [row.split()[:4] for row in rows] == [
            ["d1", "t", "21.5", "number"],
            ["d1", "door", "true", "boolean"],
            ["d2", "t", "21.5", "number"],
        ]

    def test_with_sentences_fit_eighty_columns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        letter = {
            "id": 1234567,
            "dead_lettered_at": self.AT,
            "reason": "malformed_payload",
            "topic": "sens/v1/demo/kitchen-sensor-0001/telemetry",
            "detail": "the topic names the device 'Küche 1', but a device's name has 1 to 63 letters (A to Z, a to z)",
        }
        monkeypatch.setattr(Api, "pages", lambda *_arguments, **_options: iter([letter]))
        lines = self.shown(monkeypatch, "dead-letters", "list")
        assert max(map(len, lines)) <= 80


class TestWhatIsPrinted:
    def test_shows_values_as_they_were_sent(self) -> None:
        assert [show(value) for value in (None, True, 21.5, 1e300, 7, "1.20")] == [
            "-",
            "true",
            "21.5",
            "1e+300",
            "7",
            "1.20",
        ]

    def test_sends_no_control_characters_to_the_terminal(self) -> None:
        assert show("\x1b[2Jhello\n") == "\\x1b[2Jhello\\n"

    def test_says_when_there_is_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_table(("A",), [], empty="no devices")
        assert capsys.readouterr().out == "no devices\n"

    def test_takes_brackets_as_they_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_table(("A",), [("[red]x",)], empty="")
        assert "[red]x" in capsys.readouterr().out

    def test_is_lined_up_whatever_letters_are_in_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_table(("NAME", "VALUE"), [("温度", 1), ("café", 2), ("x", None)], empty="")
        assert capsys.readouterr().out == "NAME   VALUE\n温度   1\ncafé   2\nx      -\n"

    @pytest.mark.parametrize(
        ("cells", "widths", "lines"),
        [
            (["abc", "defgh"], [3, 2], [["abc", "de"], ["   ", "fg"], ["   ", "h "]]),
            (["温度", ""], [3, 1], [["温 ", " "], ["度 ", " "]]),
            (["a word or two"], [6], [["a word"], ["or two"]]),
            (["a long-word"], [6], [["a     "], ["long-w"], ["ord   "]]),
        ],
    )
    def test_is_folded_where_the_terminal_is_too_narrow(
        self, cells: list[str], widths: list[int], lines: list[list[str]]
    ) -> None:
        assert list(lines_of(cells, widths)) == lines

    def test_takes_the_room_from_the_widest_columns(self) -> None:
        assert fitted([5, 30, 40], [5, 12, 12], 45) == [5, 20, 20]
        assert fitted([10, 10], [10, 10], 1) == [4, 4]

    def test_keeps_words_whole_that_are_not_very_long(self) -> None:
        assert fitted([23, 17, 33, 200], [12, 17, 33, 60], 72) == [15, 17, 20, 20]
        assert fitted([23, 17, 33, 200], [12, 17, 33, 60], 66) == [12, 17, 19, 18]
