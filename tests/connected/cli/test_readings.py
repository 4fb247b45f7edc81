"""``sens measurements --csv`` and ``sens tail`` at a small HTTP server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final, override

import pytest
from typer import BadParameter
from typer.testing import CliRunner, Result

from sens_cli.__main__ import app
from sens_cli.commands.measurements import Format, wanted_format
from sens_cli.commands.readings import print_readings
from sens_common.errors import SettingsError, UnavailableError

TABLE = "time,metric,value\r\n2026-11-24T12:00:00Z,t,1.0\r\n"


@contextmanager
def api(body: str | bytes, headers: dict[str, str]) -> Iterator[str]:
    """Run a server that speaks HTTP/1.0, as some proxies do: its answers end where the connection does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode() if isinstance(body, str) else body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sens(command: str, body: str | bytes, headers: dict[str, str] | None = None) -> Result:
    with api(body, headers or {}) as url:
        return CliRunner().invoke(app, [*command.split(), "--api-url", url, "--api-key", "sens_key"])


class TestCsvOverHttp10:
    """A proxy that speaks HTTP/1.0 leaves no sign of an answer's end but its last line."""

    def test_is_complete_with_its_last_line_which_is_not_printed(self) -> None:
        result = sens("measurements d --csv", f"{TABLE}# end\r\n", {"Sens-Last-Line": "# end"})
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == TABLE.splitlines()

    @pytest.mark.parametrize("body", [TABLE, TABLE[:-9], ""])
    def test_that_breaks_off_is_an_error(self, body: str) -> None:
        result = sens("measurements d --csv", body, {"Sens-Last-Line": "# end"})
        assert isinstance(result.exception, UnavailableError)
        assert "broke off: its end is missing" in str(result.exception)

    def test_of_an_api_that_names_no_last_line_is_taken_as_it_is(self) -> None:
        assert sens("measurements d --csv", TABLE).stdout.splitlines() == TABLE.splitlines()


class TestTail:
    READING = 'event: reading\ndata: {"device":"d","metric":"t","time":"2026-11-24T12:00:00Z","value":21.5}\n\n'

    def test_begins_with_what_is_watched_and_the_names_of_the_columns(self) -> None:
        result = sens("tail --utc --count 1 --device d", self.READING)
        said, columns = result.stderr.splitlines()
        assert said.startswith("readings of d as they are stored at http://127.0.0.1:")
        assert columns.split() == ["TIME", "DEVICE", "METRIC", "VALUE"]
        assert result.stdout.split() == ["2026-11-24", "12:00:00Z", "d", "t", "21.5"]

    @pytest.mark.parametrize(("as_json", "said"), [(False, "connected; no reading for 0 s\n"), (True, "")])
    def test_gives_a_sign_of_life_while_no_reading_comes(
        self, capsys: pytest.CaptureFixture[str], as_json: bool, said: str
    ) -> None:
        with pytest.raises(UnavailableError):
            print_readings(iter([": keep-alive", ""]), as_json=as_json, quiet_seconds=-1)
        assert capsys.readouterr().err == said

    def test_says_how_many_readings_it_was_too_slow_for(self) -> None:
        assert "7 readings were left out" in sens("tail", 'event: dropped\ndata: {"count":7}\n\n').stderr


class TestBinaryFormats:
    ARROW: Final = b"batches\xff\xff\xff\xff\x00\x00\x00\x00"
    PARQUET: Final = b"PAR1 row groups PAR1"

    @pytest.mark.parametrize(("name", "body"), [("x.arrow", ARROW), ("x.parquet", PARQUET)])
    def test_are_written_as_they_come(self, tmp_path: Path, name: str, body: bytes) -> None:
        file = tmp_path / name
        result = sens(f"measurements d e --output {file}", body)
        assert result.exit_code == 0, result.output
        assert file.read_bytes() == body
        assert [each.name for each in tmp_path.iterdir()] == [name]
        assert sens(f"measurements d --format {file.suffix[1:]}", body).stdout_bytes == body

    @pytest.mark.parametrize(("name", "body"), [("x.arrow", ARROW), ("x.parquet", PARQUET)])
    def test_that_break_off_leave_the_file_as_it_was(self, tmp_path: Path, name: str, body: bytes) -> None:
        file = tmp_path / name
        for before in (None, b"older"):
            if before is not None:
                file.write_bytes(before)
            result = sens(f"measurements d --output {file}", body[:-1])
            assert isinstance(result.exception, UnavailableError)
            assert "broke off: its end is missing" in str(result.exception)
            assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if before is None else [before])

    def test_go_to_no_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        with pytest.raises(BadParameter, match="arrow is not for a terminal: name a file with --output FILE"):
            wanted_format(Format.ARROW, None, csv=False, as_json=False)

    @pytest.mark.parametrize("arguments", ["--output x.txt", "--output x.csv --format table", "--csv --format json"])
    def test_that_are_not_clear_are_wrong_usage(self, arguments: str) -> None:
        assert sens(f"measurements d {arguments}", "").exit_code == 2

    def test_can_be_csv_and_json_in_files(self, tmp_path: Path) -> None:
        file = tmp_path / "x.csv"
        assert sens(f"measurements d --output {file}", TABLE).exit_code == 0
        assert file.read_text().splitlines() == TABLE.splitlines()
        file = tmp_path / "x.json"
        assert sens(f"measurements d --output {file}", '{"measurements": [1], "next": null}').exit_code == 0
        assert json.loads(file.read_text()) == [1]

    def test_can_not_be_written_into_a_folder_that_is_missing(self, tmp_path: Path) -> None:
        result = sens(f"measurements d --output {tmp_path}/missing/x.parquet", self.PARQUET)
        assert isinstance(result.exception, SettingsError)
