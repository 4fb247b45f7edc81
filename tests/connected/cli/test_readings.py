"""``sens measurements --csv`` and ``sens tail`` at a small HTTP server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import override

import pytest
from typer.testing import CliRunner, Result

from sens_cli.__main__ import app
from sens_cli.commands.readings import print_readings
from sens_common.errors import UnavailableError

TABLE = "time,metric,value\r\n2026-11-24T12:00:00Z,t,1.0\r\n"


@contextmanager
def api(body: str, headers: dict[str, str]) -> Iterator[str]:
    """Run a server that speaks HTTP/1.0, as some proxies do: its answers end where the connection does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

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


def sens(command: str, body: str, headers: dict[str, str] | None = None) -> Result:
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
