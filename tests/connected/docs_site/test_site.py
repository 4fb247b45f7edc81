"""The documentation's site as a process."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx2

from support.servers import HOST, accepts_connections, free_port, process, wait_until

COMMAND = [sys.executable, "-m", "sens_docs_site"]


def environment(folder: Path, port: int) -> dict[str, str]:
    return os.environ | {"SENS_SITE__FOLDER": str(folder), "SENS_HTTP__PORT": str(port)}


class TestProcess:
    def test_serves_the_folder_and_stops_when_told(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text("<h1>Start</h1>")
        port = free_port()
        with process(COMMAND, tmp_path / "log", env=environment(tmp_path, port)) as child:
            wait_until(lambda: accepts_connections(port), "the site starts")
            with urllib.request.urlopen(f"http://{HOST}:{port}/") as answer:
                assert answer.read() == b"<h1>Start</h1>"
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0

    def test_gives_its_metrics_at_a_port_of_their_own_when_told(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text("<h1>Start</h1>")
        port, metrics = free_port(), free_port()
        settings = environment(tmp_path, port) | {"SENS_HTTP__METRICS_PORT": str(metrics)}
        with process(COMMAND, tmp_path / "log", env=settings):
            wait_until(lambda: accepts_connections(port) and accepts_connections(metrics), "the site starts")
            assert httpx2.get(f"http://{HOST}:{port}/metrics").status_code == 404
            assert "sens_docs_responses_total" in httpx2.get(f"http://{HOST}:{metrics}/metrics").text

    def test_redirects_what_a_proxy_was_asked_for_by_plain_http(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text("<h1>Start</h1>")
        port = free_port()
        settings = environment(tmp_path, port) | {"SENS_HTTPS__ONLY": "true", "SENS_HTTPS__HSTS_SECONDS": "31536000"}
        with process(COMMAND, tmp_path / "log", env=settings):
            wait_until(lambda: accepts_connections(port), "the site starts")
            plain, safe = (
                httpx2.get(f"http://{HOST}:{port}/", headers={"X-Forwarded-Proto": scheme})
                for scheme in ("http", "https")
            )
            metrics = httpx2.get(f"http://{HOST}:{port}/metrics").text
        assert (plain.status_code, plain.headers["Location"]) == (308, f"https://{HOST}/")
        assert safe.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert 'sens_docs_plain_http_requests_total{outcome="redirected"} 1.0' in metrics

    def test_a_taken_port_is_named(self, tmp_path: Path) -> None:
        port = free_port()
        with process(COMMAND, tmp_path / "log", env=environment(tmp_path, port)):
            wait_until(lambda: accepts_connections(port), "the site starts")
            second = subprocess.run(
                COMMAND, env=environment(tmp_path, port), capture_output=True, text=True, timeout=20, check=False
            )
        assert second.returncode == 69
        assert f"port {port}" in second.stderr
        assert "Traceback" not in second.stderr

    def test_a_wrong_setting_is_named(self) -> None:
        result = subprocess.run(
            COMMAND,
            env=os.environ | {"SENS_HTTP__PORT": "http"},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert result.returncode == 78
        assert "SENS_HTTP__PORT" in result.stderr
